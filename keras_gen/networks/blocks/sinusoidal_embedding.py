import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.checks import check, check_integer, is_number
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.layers.SinusoidalEmbedding")
class SinusoidalEmbedding(keras.layers.Layer):
    """Embeds a time as sines and cosines of falling frequencies.

        f_i = max_period^(-i / (dim / 2)),   output = [sin(t f_0), sin(t f_1), ..., cos(t f_0), cos(t f_1), ...]

    Computed in float32 under any dtype policy: half precision cannot tell time 999 from 1000.

    Args:
        dim: even int >= 2. Width of the embedding.
        max_period: float > 1. The longest period is `2 pi max_period`. Defaults to `10000.0`.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        t: `(batch,)`, integer or real times.

    Returns:
        `(batch, dim)`, in the layer's compute dtype.

    Raises:
        ValueError: if an argument is outside its range.

    Reference: Vaswani et al. 2017, arXiv:1706.03762, section 3.5; Ho et al. 2020, arXiv:2006.11239, appendix B.
    """

    def __init__(self, dim: int, max_period: float = 10000.0, **kwargs: Any):
        # A layer casts its real inputs to its compute dtype, of which 999 and 1000 may be the same number.
        super().__init__(autocast=False, **kwargs)
        self.dim = check_integer("dim", dim, at_least=2)
        check(dim % 2 == 0, "dim", "be even", dim)
        check(is_number(max_period) and max_period > 1, "max_period", "be > 1", repr(max_period))
        self.max_period = float(max_period)

    def call(self, t: Any) -> Any:
        half = self.dim // 2
        frequencies = np.exp(np.arange(half) * (-math.log(self.max_period) / half))
        angles = ops.expand_dims(ops.cast(t, "float32"), -1) * ops.convert_to_tensor(frequencies, "float32")
        return ops.cast(ops.concatenate([ops.sin(angles), ops.cos(angles)], axis=-1), self.compute_dtype)

    def compute_output_shape(self, t_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*t_shape, self.dim)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "dim": self.dim, "max_period": self.max_period}
