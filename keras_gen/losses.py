"""Losses, as functions of tensors."""

from keras_gen.adversarial.gradient_penalty import GradientPenalty as GradientPenalty
from keras_gen.adversarial.hinge_loss import HingeLoss as HingeLoss
from keras_gen.adversarial.non_saturating_loss import NonSaturatingLoss as NonSaturatingLoss
from keras_gen.adversarial.r1_penalty import R1Penalty as R1Penalty
from keras_gen.adversarial.relativistic_loss import RelativisticLoss as RelativisticLoss
from keras_gen.adversarial.wasserstein_loss import WassersteinLoss as WassersteinLoss
from keras_gen.diffusion.models.discretized_gaussian_nll import discretized_gaussian_nll as discretized_gaussian_nll
from keras_gen.latent.bernoulli_likelihood import BernoulliLikelihood as BernoulliLikelihood
from keras_gen.latent.categorical_kl import categorical_kl as categorical_kl
from keras_gen.latent.categorical_likelihood import CategoricalLikelihood as CategoricalLikelihood
from keras_gen.latent.concrete_kl import concrete_kl as concrete_kl
from keras_gen.latent.gaussian_kl import gaussian_kl as gaussian_kl
from keras_gen.latent.gaussian_likelihood import GaussianLikelihood as GaussianLikelihood
from keras_gen.quantization.feature_distance import feature_distance as feature_distance
