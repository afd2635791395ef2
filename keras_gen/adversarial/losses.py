"""Adversarial losses of generator and discriminator."""

import abc
from typing import Any

from keras import ops

from keras_gen.export import keras_gen_export


class AdversarialLoss(abc.ABC):
    """Base class of adversarial losses: the loss of each player, as a function of the discriminator's outputs.

    Subclasses define `discriminator` and `generator`, and `get_config` for their own arguments. `real` and `fake` are
    float32 `(batch,)`: `D(x)` of data and `D(G(z))` of samples, logits of being data; unless `takes_logits` is `False`,
    a discriminator that ends in an activation such as a sigmoid leads to a warning.
    """

    takes_logits = True

    @abc.abstractmethod
    def discriminator(self, real: Any, fake: Any) -> Any:
        """Returns the loss of the discriminator, float32 `(batch,)`."""

    @abc.abstractmethod
    def generator(self, real: Any, fake: Any) -> Any:
        """Returns the loss of the generator, float32 `(batch,)`."""

    def get_config(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "AdversarialLoss":
        return cls(**config)


@keras_gen_export("keras_gen.losses.NonSaturatingLoss")
class NonSaturatingLoss(AdversarialLoss):
    """Non-saturating loss of the original GAN.

        L_D = -log s(D(x)) - log(1 - s(D(G(z)))),   L_G = -log s(D(G(z))),   s(y) = 1 / (1 + exp(-y))

    The minimax loss of the generator, `-L_D`, saturates: it has no gradient where the discriminator is confident.

    Reference: Goodfellow et al. 2014, arXiv:1406.2661; https://kexue.fm/archives/4439.
    """

    def discriminator(self, real: Any, fake: Any) -> Any:
        return ops.softplus(-real) + ops.softplus(fake)

    def generator(self, real: Any, fake: Any) -> Any:
        return ops.softplus(-fake)


@keras_gen_export("keras_gen.losses.HingeLoss")
class HingeLoss(AdversarialLoss):
    """Hinge loss with margin 1.

        L_D = max(0, 1 - D(x)) + max(0, 1 + D(G(z))),   L_G = -D(G(z))

    Reference: Lim and Ye 2017, arXiv:1705.02894; Miyato et al. 2018, arXiv:1802.05957.
    """

    def discriminator(self, real: Any, fake: Any) -> Any:
        return ops.relu(1 - real) + ops.relu(1 + fake)

    def generator(self, real: Any, fake: Any) -> Any:
        return -fake


@keras_gen_export("keras_gen.losses.WassersteinLoss")
class WassersteinLoss(AdversarialLoss):
    """Wasserstein loss: `-L_D` estimates the Wasserstein distance if the discriminator is 1-Lipschitz.

        L_D = D(G(z)) - D(x),   L_G = -D(G(z))

    The Lipschitz constant is bounded by `GradientPenalty` (WGAN-GP), or by `keras.layers.SpectralNormalization` in the
    discriminator. Without either, the loss decreases without bound.

    Reference: Arjovsky et al. 2017, arXiv:1701.07875; https://kexue.fm/archives/4439.
    """

    def discriminator(self, real: Any, fake: Any) -> Any:
        return fake - real

    def generator(self, real: Any, fake: Any) -> Any:
        return -fake


@keras_gen_export("keras_gen.losses.RelativisticLoss")
class RelativisticLoss(AdversarialLoss):
    """Relativistic loss (RSGAN): the discriminator compares data with samples instead of classifying each alone.

        L_D = -log s(D(x) - D(G(z))),   L_G = -log s(D(G(z)) - D(x)),   s(y) = 1 / (1 + exp(-y))

    Reference: Jolicoeur-Martineau 2018, arXiv:1807.00734; https://kexue.fm/archives/6110.
    """

    def discriminator(self, real: Any, fake: Any) -> Any:
        return ops.softplus(fake - real)

    def generator(self, real: Any, fake: Any) -> Any:
        return ops.softplus(real - fake)
