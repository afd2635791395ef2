"""Samplers."""

from keras_gen.diffusion.ddim_sampler import DDIMSampler as DDIMSampler
from keras_gen.diffusion.ddpm_sampler import DDPMSampler as DDPMSampler
from keras_gen.diffusion.diffusion_sampler import DiffusionSampler as DiffusionSampler
from keras_gen.hubness.hubness_sampler import HubnessSampler as HubnessSampler
from keras_gen.hubness.norm_sampler import NormSampler as NormSampler
from keras_gen.hubness.truncation_sampler import TruncationSampler as TruncationSampler
