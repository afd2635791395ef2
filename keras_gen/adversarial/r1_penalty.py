from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_gen.adversarial.penalty import Penalty
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.losses.R1Penalty")
class R1Penalty(Penalty):
    """Half the squared gradient of the discriminator at the data, without which GANs need not converge.

        weight / 2 |grad D(x)|^2 = weight / 2 E_v[(v . grad D(x))^2],   v = +-1 in each dimension, even odds

    The right side takes one derivative along one drawn `v`, by forward-mode differentiation, and no second reverse
    pass. It is right on average for a squared norm only.

    Args:
        weight: float >= 0. More for larger images: of the order of the number of pixels over a thousand to ten, by
            batch size and data. Defaults to `10.0`.

    Raises:
        ValueError: if `weight` is negative.

    Reference: Mescheder et al. 2018, arXiv:1801.04406, section 4.1; Hutchinson's estimator.
    """

    def __call__(self, discriminator: Callable[[Any], Any], x: Any, fake: Any, seed: Any) -> Any:
        heads = keras.random.uniform(ops.shape(x), seed=seed) < 0.5
        v = ops.where(heads, ops.ones_like(x), -ops.ones_like(x))
        _, slope = ops.jvp(discriminator, (x,), (v,))
        return self.weight / 2 * ops.square(slope)
