from typing import Any

from keras_gen.adversarial.adversarial_loss import AdversarialLoss
from keras_gen.export import keras_gen_export


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
