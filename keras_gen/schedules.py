"""Noise schedules of diffusion models."""

from keras_gen.diffusion.cosine_schedule import CosineSchedule as CosineSchedule
from keras_gen.diffusion.discrete_schedule import DiscreteSchedule as DiscreteSchedule
from keras_gen.diffusion.kexue_schedule import KexueSchedule as KexueSchedule
from keras_gen.diffusion.linear_schedule import LinearSchedule as LinearSchedule
from keras_gen.diffusion.posterior import posterior as posterior
from keras_gen.diffusion.scaled_linear_schedule import ScaledLinearSchedule as ScaledLinearSchedule
from keras_gen.diffusion.zero_terminal_snr import ZeroTerminalSNR as ZeroTerminalSNR
