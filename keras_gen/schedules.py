"""Noise schedules of diffusion models."""

from keras_gen.diffusion.schedules.continuous_schedule import ContinuousSchedule as ContinuousSchedule
from keras_gen.diffusion.schedules.cos_map_time import CosMapTime as CosMapTime
from keras_gen.diffusion.schedules.cosine_schedule import CosineSchedule as CosineSchedule
from keras_gen.diffusion.schedules.discrete_schedule import DiscreteSchedule as DiscreteSchedule
from keras_gen.diffusion.schedules.edm_schedule import EDMSchedule as EDMSchedule
from keras_gen.diffusion.schedules.kexue_schedule import KexueSchedule as KexueSchedule
from keras_gen.diffusion.schedules.linear_schedule import LinearSchedule as LinearSchedule
from keras_gen.diffusion.schedules.log_normal_sigma import LogNormalSigma as LogNormalSigma
from keras_gen.diffusion.schedules.logit_normal_time import LogitNormalTime as LogitNormalTime
from keras_gen.diffusion.schedules.mode_time import ModeTime as ModeTime
from keras_gen.diffusion.schedules.posterior import posterior as posterior
from keras_gen.diffusion.schedules.rectified_flow_schedule import RectifiedFlowSchedule as RectifiedFlowSchedule
from keras_gen.diffusion.schedules.scaled_linear_schedule import ScaledLinearSchedule as ScaledLinearSchedule
from keras_gen.diffusion.schedules.shifted import Shifted as Shifted
from keras_gen.diffusion.schedules.sub_vp_schedule import SubVPSchedule as SubVPSchedule
from keras_gen.diffusion.schedules.time_sampler import TimeSampler as TimeSampler
from keras_gen.diffusion.schedules.uniform_time import UniformTime as UniformTime
from keras_gen.diffusion.schedules.ve_schedule import VESchedule as VESchedule
from keras_gen.diffusion.schedules.vp_schedule import VPSchedule as VPSchedule
from keras_gen.diffusion.schedules.zero_terminal_snr import ZeroTerminalSNR as ZeroTerminalSNR
