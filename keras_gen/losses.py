"""Loss functions, likelihoods, adversarial and contrastive losses, and gradient penalties."""

from keras_gen.adversarial.losses import HingeLoss as HingeLoss
from keras_gen.adversarial.losses import NonSaturatingLoss as NonSaturatingLoss
from keras_gen.adversarial.losses import RelativisticLoss as RelativisticLoss
from keras_gen.adversarial.losses import WassersteinLoss as WassersteinLoss
from keras_gen.adversarial.penalties import GradientPenalty as GradientPenalty
from keras_gen.adversarial.penalties import R1Penalty as R1Penalty
from keras_gen.diffusion.models.likelihood import discretized_gaussian_nll as discretized_gaussian_nll
from keras_gen.discriminative.expected_error import ExpectedError as ExpectedError
from keras_gen.discriminative.info_nce import InfoNCE as InfoNCE
from keras_gen.discriminative.multilabel import multilabel_crossentropy as multilabel_crossentropy
from keras_gen.discriminative.multilabel import sparse_multilabel_crossentropy as sparse_multilabel_crossentropy
from keras_gen.flows.residual_log_likelihood import ResidualLogLikelihood as ResidualLogLikelihood
from keras_gen.latent.divergences import categorical_kl as categorical_kl
from keras_gen.latent.divergences import concrete_kl as concrete_kl
from keras_gen.latent.divergences import gaussian_kl as gaussian_kl
from keras_gen.latent.likelihoods import BernoulliLikelihood as BernoulliLikelihood
from keras_gen.latent.likelihoods import CategoricalLikelihood as CategoricalLikelihood
from keras_gen.latent.likelihoods import GaussianLikelihood as GaussianLikelihood
from keras_gen.latent.likelihoods import LaplaceLikelihood as LaplaceLikelihood
from keras_gen.quantization.feature_distance import feature_distance as feature_distance
