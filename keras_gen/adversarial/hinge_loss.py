from typing import Any

from keras import ops

from keras_gen.adversarial.adversarial_loss import AdversarialLoss
from keras_gen.export import keras_gen_export


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
