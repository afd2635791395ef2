from typing import Any

import numpy as np
from keras import ops

from keras_gen.core.per_sample import per_sample
from keras_gen.export import keras_gen_export
from keras_gen.flows.base import Base


@keras_gen_export("keras_gen.layers.UniformBase")
class UniformBase(Base):
    """Uniform distribution on the unit cube: `log p(z) = 0` inside, minus infinity outside.

    Args:
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        z: `(batch, ...)`.

    Returns:
        log p(z), float32 `(batch,)`.

    Raises:
        ValueError: if `dtype` names no dtype.

    Example:

    >>> flow = keras_gen.models.Flow(keras_gen.layers.Dequantize(256), keras_gen.layers.UniformBase())  # 8 bits/dim

    Reference: Theis et al. 2015, arXiv:1511.01844, section 3.1.
    """

    def log_density(self, z: Any) -> Any:
        return per_sample(ops.where((z >= 0) & (z <= 1), ops.zeros_like(z), -float("inf")))

    def draw_noise(self, n: int, shape: tuple[int, ...], seed: int) -> np.ndarray:
        return np.random.default_rng(seed).random((n, *shape), dtype="float32")

    def place(self, noise: Any, temperature: float) -> Any:
        return 0.5 + temperature * (noise - 0.5)
