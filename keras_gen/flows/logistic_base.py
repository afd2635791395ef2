from typing import Any

import numpy as np
from keras import ops

from keras_gen.core.per_sample import per_sample
from keras_gen.export import keras_gen_export
from keras_gen.flows.base import Base


@keras_gen_export("keras_gen.layers.LogisticBase")
class LogisticBase(Base):
    """Standard logistic distribution, with heavier tails: `log p(z) = -sum_i [softplus(z_i) + softplus(-z_i)]`.

    Args:
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        z: `(batch, ...)`.

    Returns:
        log p(z), float32 `(batch,)`.

    Raises:
        ValueError: if `dtype` names no dtype.

    Example:

    >>> flow = keras_gen.models.Flow(bijector, keras_gen.layers.LogisticBase())    # or "logistic"

    Reference: Dinh et al. 2014, arXiv:1410.8516, section 3.4.
    """

    def log_density(self, z: Any) -> Any:
        return -per_sample(ops.softplus(z) + ops.softplus(-z))

    def draw_noise(self, n: int, shape: tuple[int, ...], seed: int) -> np.ndarray:
        return np.random.default_rng(seed).logistic(size=(n, *shape)).astype("float32")
