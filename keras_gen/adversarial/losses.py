"""Losses of the two players of a GAN."""

import abc
from typing import Any

from keras import ops

from keras_gen.export import keras_gen_export


class AdversarialLoss(abc.ABC):
    """Base class: the loss of each player, as a function of the discriminator's outputs.

    To write another: define `discriminator` and `generator`, and `get_config` for the arguments of its own. `real` and
    `fake` are float32 `(batch,)`: `D(x)` of data, the higher the more likely to be data, and `D(G(z))` of samples.
    """

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
    """The first GAN's: the discriminator tells data from samples, the generator wants its samples told wrong.

        L_D = -log s(D(x)) - log(1 - s(D(G(z)))),   L_G = -log s(D(G(z))),   s(y) = 1 / (1 + exp(-y))

    Minus `L_D` would be the generator's side of the same game, but it has no gradient where the discriminator is sure.

    Raises:
        ValueError: never; the loss has no arguments.

    Reference: Goodfellow et al. 2014, arXiv:1406.2661; https://kexue.fm/archives/4439.
    """

    def discriminator(self, real: Any, fake: Any) -> Any:
        return ops.softplus(-real) + ops.softplus(fake)

    def generator(self, real: Any, fake: Any) -> Any:
        return ops.softplus(-fake)


@keras_gen_export("keras_gen.losses.HingeLoss")
class HingeLoss(AdversarialLoss):
    """The discriminator is content with a margin of 1 on each side.

        L_D = max(0, 1 - D(x)) + max(0, 1 + D(G(z))),   L_G = -D(G(z))

    Raises:
        ValueError: never; the loss has no arguments.

    Reference: Lim and Ye 2017, arXiv:1705.02894; Miyato et al. 2018, arXiv:1802.05957.
    """

    def discriminator(self, real: Any, fake: Any) -> Any:
        return ops.relu(1 - real) + ops.relu(1 + fake)

    def generator(self, real: Any, fake: Any) -> Any:
        return -fake


@keras_gen_export("keras_gen.losses.WassersteinLoss")
class WassersteinLoss(AdversarialLoss):
    """Minus the loss of the discriminator estimates the Wasserstein distance, if its slope is at most 1.

        L_D = D(G(z)) - D(x),   L_G = -D(G(z))

    The slope is bounded by `GradientPenalty` (WGAN-GP), or by `keras.layers.SpectralNormalization` in the
    discriminator. Without either the loss falls for ever.

    Raises:
        ValueError: never; the loss has no arguments.

    Reference: Arjovsky et al. 2017, arXiv:1701.07875; https://kexue.fm/archives/4439.
    """

    def discriminator(self, real: Any, fake: Any) -> Any:
        return fake - real

    def generator(self, real: Any, fake: Any) -> Any:
        return -fake


@keras_gen_export("keras_gen.losses.RelativisticLoss")
class RelativisticLoss(AdversarialLoss):
    """The discriminator says which of two is data, rather than whether one is (RSGAN).

        L_D = -log s(D(x) - D(G(z))),   L_G = -log s(D(G(z)) - D(x)),   s(y) = 1 / (1 + exp(-y))

    Raises:
        ValueError: never; the loss has no arguments.

    Reference: Jolicoeur-Martineau 2018, arXiv:1807.00734; https://kexue.fm/archives/6110.
    """

    def discriminator(self, real: Any, fake: Any) -> Any:
        return ops.softplus(fake - real)

    def generator(self, real: Any, fake: Any) -> Any:
        return ops.softplus(real - fake)
