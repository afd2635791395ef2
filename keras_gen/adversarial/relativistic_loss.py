from typing import Any

from keras import ops

from keras_gen.adversarial.adversarial_loss import AdversarialLoss
from keras_gen.export import keras_gen_export


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
