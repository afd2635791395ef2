from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_gen.adversarial.penalty import Penalty
from keras_gen.core.gradient import gradient
from keras_gen.core.per_sample import per_sample
from keras_gen.export import keras_gen_export

TINY = 1e-12  # the root has no slope at 0


@keras_gen_export("keras_gen.losses.GradientPenalty")
class GradientPenalty(Penalty):
    """Pulls the slope of the discriminator to 1 on the straight lines between data and samples (WGAN-GP).

        weight (|grad D(y)| - 1)^2,   y = u x + (1 - u) G(z),   u ~ U(0, 1)

    Args:
        weight: float >= 0. Defaults to `10.0`.

    Raises:
        ValueError: if `weight` is negative.

    Reference: Gulrajani et al. 2017, arXiv:1704.00028, equation 3.
    """

    def __call__(self, discriminator: Callable[[Any], Any], x: Any, fake: Any, seed: Any) -> Any:
        u = keras.random.uniform((ops.shape(x)[0], *(1 for _ in x.shape[1:])), seed=seed)
        slope = gradient(discriminator, u * x + (1 - u) * fake)
        norm = ops.sqrt(per_sample(ops.square(slope)) + TINY)
        return self.weight * ops.square(norm - 1)
