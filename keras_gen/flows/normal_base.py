import math
from typing import Any

import numpy as np

from keras_gen.core.per_sample import per_sample
from keras_gen.core.random import starting_noise
from keras_gen.export import keras_gen_export
from keras_gen.flows.base import Base


@keras_gen_export("keras_gen.layers.NormalBase")
class NormalBase(Base):
    """Standard normal distribution: `log p(z) = -1/2 sum_i (z_i^2 + log 2 pi)`.

    Args:
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        z: `(batch, ...)`.

    Returns:
        log p(z), float32 `(batch,)`.

    Raises:
        ValueError: if `dtype` names no dtype.

    Example:

    >>> flow = keras_gen.models.Flow(bijector, keras_gen.layers.NormalBase())      # or "normal"

    Reference: Dinh et al. 2014, arXiv:1410.8516, section 3.4.
    """

    def log_density(self, z: Any) -> Any:
        return -0.5 * per_sample(z**2 + math.log(2 * math.pi))

    def draw_noise(self, n: int, shape: tuple[int, ...], seed: int) -> np.ndarray:
        return starting_noise(n, shape, seed)
