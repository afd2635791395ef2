from typing import Any

from keras import ops

from keras_gen.adversarial.adversarial_loss import AdversarialLoss
from keras_gen.export import keras_gen_export


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
