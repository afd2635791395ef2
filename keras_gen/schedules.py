"""Noise schedules and training-time samplers of diffusion models."""

from keras_gen.diffusion.schedules.continuous import ContinuousSchedule as ContinuousSchedule
from keras_gen.diffusion.schedules.continuous import EDMSchedule as EDMSchedule
from keras_gen.diffusion.schedules.continuous import RectifiedFlowSchedule as RectifiedFlowSchedule
from keras_gen.diffusion.schedules.continuous import SubVPSchedule as SubVPSchedule
from keras_gen.diffusion.schedules.continuous import VESchedule as VESchedule
from keras_gen.diffusion.schedules.continuous import VPSchedule as VPSchedule
from keras_gen.diffusion.schedules.discrete import CosineSchedule as CosineSchedule
from keras_gen.diffusion.schedules.discrete import DiscreteSchedule as DiscreteSchedule
from keras_gen.diffusion.schedules.discrete import KexueSchedule as KexueSchedule
from keras_gen.diffusion.schedules.discrete import LinearSchedule as LinearSchedule
from keras_gen.diffusion.schedules.discrete import ScaledLinearSchedule as ScaledLinearSchedule
from keras_gen.diffusion.schedules.discrete import SigmoidSchedule as SigmoidSchedule
from keras_gen.diffusion.schedules.modifiers import Shifted as Shifted
from keras_gen.diffusion.schedules.modifiers import ZeroTerminalSNR as ZeroTerminalSNR
from keras_gen.diffusion.schedules.posterior import posterior as posterior
from keras_gen.diffusion.schedules.time_samplers import CosMapTime as CosMapTime
from keras_gen.diffusion.schedules.time_samplers import LogitNormalTime as LogitNormalTime
from keras_gen.diffusion.schedules.time_samplers import LogNormalSigma as LogNormalSigma
from keras_gen.diffusion.schedules.time_samplers import ModeTime as ModeTime
from keras_gen.diffusion.schedules.time_samplers import TimeSampler as TimeSampler
from keras_gen.diffusion.schedules.time_samplers import UniformTime as UniformTime
from keras_gen.pretrained.schedules import from_diffusers as from_diffusers
