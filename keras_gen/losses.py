"""Losses, as functions of tensors."""

from keras_gen.diffusion.discretized_gaussian_nll import discretized_gaussian_nll as discretized_gaussian_nll
from keras_gen.latent.bernoulli_likelihood import BernoulliLikelihood as BernoulliLikelihood
from keras_gen.latent.categorical_kl import categorical_kl as categorical_kl
from keras_gen.latent.categorical_likelihood import CategoricalLikelihood as CategoricalLikelihood
from keras_gen.latent.concrete_kl import concrete_kl as concrete_kl
from keras_gen.latent.gaussian_kl import gaussian_kl as gaussian_kl
from keras_gen.latent.gaussian_likelihood import GaussianLikelihood as GaussianLikelihood
