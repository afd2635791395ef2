"""Samplers."""

from keras_gen.diffusion.ddim_sampler import DDIMSampler as DDIMSampler
from keras_gen.diffusion.ddpm_sampler import DDPMSampler as DDPMSampler
from keras_gen.diffusion.diffusion_sampler import DiffusionSampler as DiffusionSampler
