"""Noise schedules of diffusion models."""

from keras_gen.diffusion.continuous_schedule import ContinuousSchedule as ContinuousSchedule
from keras_gen.diffusion.cos_map_time import CosMapTime as CosMapTime
from keras_gen.diffusion.cosine_schedule import CosineSchedule as CosineSchedule
from keras_gen.diffusion.discrete_schedule import DiscreteSchedule as DiscreteSchedule
from keras_gen.diffusion.edm_schedule import EDMSchedule as EDMSchedule
from keras_gen.diffusion.kexue_schedule import KexueSchedule as KexueSchedule
from keras_gen.diffusion.linear_schedule import LinearSchedule as LinearSchedule
from keras_gen.diffusion.log_normal_sigma import LogNormalSigma as LogNormalSigma
from keras_gen.diffusion.logit_normal_time import LogitNormalTime as LogitNormalTime
from keras_gen.diffusion.mode_time import ModeTime as ModeTime
from keras_gen.diffusion.posterior import posterior as posterior
from keras_gen.diffusion.rectified_flow_schedule import RectifiedFlowSchedule as RectifiedFlowSchedule
from keras_gen.diffusion.scaled_linear_schedule import ScaledLinearSchedule as ScaledLinearSchedule
from keras_gen.diffusion.shifted import Shifted as Shifted
from keras_gen.diffusion.sub_vp_schedule import SubVPSchedule as SubVPSchedule
from keras_gen.diffusion.time_sampler import TimeSampler as TimeSampler
from keras_gen.diffusion.uniform_time import UniformTime as UniformTime
from keras_gen.diffusion.ve_schedule import VESchedule as VESchedule
from keras_gen.diffusion.vp_schedule import VPSchedule as VPSchedule
from keras_gen.diffusion.zero_terminal_snr import ZeroTerminalSNR as ZeroTerminalSNR
