import math
from typing import Any

import numpy as np
from keras import ops

from keras_gen.core.per_sample import per_sample
from keras_gen.core.random import starting_noise
from keras_gen.export import keras_gen_export
from keras_gen.flows.base import Base


@keras_gen_export("keras_gen.layers.LearnedNormalBase")
class LearnedNormalBase(Base):
    """Normal distribution with a mean and a deviation to learn for each number.

        log p(z) = -1/2 sum_i [((z_i - mean_i) / sigma_i)^2 + 2 log sigma_i + log 2 pi]

    Args:
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        z: `(batch, ...)`.

    Returns:
        log p(z), float32 `(batch,)`.

    Raises:
        ValueError: if the size of an axis of z is unknown.

    Example:

    >>> flow = keras_gen.models.Flow(bijector, keras_gen.layers.LearnedNormalBase())

    Reference: Kingma and Dhariwal 2018, arXiv:1807.03039, section 3.
    """

    def build(self, z_shape: Any) -> None:
        self.mean, self.log_sigma = (
            self.add_weight(name=name, shape=z_shape[1:], initializer="zeros", autocast=False)
            for name in ("mean", "log_sigma")
        )

    def log_density(self, z: Any) -> Any:
        log_sigma = ops.cast(self.log_sigma, z.dtype)
        eps = (z - ops.cast(self.mean, z.dtype)) * ops.exp(-log_sigma)
        return -0.5 * per_sample(eps**2 + 2 * log_sigma + math.log(2 * math.pi))

    def draw_noise(self, n: int, shape: tuple[int, ...], seed: int) -> np.ndarray:
        return starting_noise(n, shape, seed)

    def place(self, noise: Any, temperature: float) -> Any:
        sigma = ops.exp(ops.cast(self.log_sigma, noise.dtype))
        return ops.cast(self.mean, noise.dtype) + temperature * sigma * noise
