"""Losses, as functions of tensors."""

from keras_gen.diffusion.discretized_gaussian_nll import discretized_gaussian_nll as discretized_gaussian_nll
from keras_gen.latent.gaussian_kl import gaussian_kl as gaussian_kl
