from typing import Any

import keras
from keras import ops

from keras_gen.core.checks import check, is_number
from keras_gen.export import keras_gen_export
from keras_gen.networks.blocks.rotary import frequencies, turn


@keras_gen_export("keras_gen.layers.RotaryEmbedding")
class RotaryEmbedding(keras.layers.Layer):
    """Turns pairs of channels by angles that grow with the position: rotary positions in a sequence.

        f_i = base^(-i / (dim / 2)),   pair i turns by position f_i,   i = 0 .. dim / 2 - 1

    Channels `2 i` and `2 i + 1` are a pair. With queries and keys both turned, `q . k` depends on the positions by
    their difference alone. Computed in float32 under any dtype policy. There are no weights, and no longest position.

    Args:
        base: float > 1. Defaults to `10000.0`.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        x: queries or keys `(batch, tokens, heads, dim)`, `dim` even.
        positions: integers `(batch, tokens)`, or `None` for 0, 1, 2, ... Defaults to `None`.

    Returns:
        A tensor like `x`.

    Raises:
        ValueError: if `base` is outside its range, or `x` has another shape.

    Reference: https://kexue.fm/archives/8265; Su et al. 2021, arXiv:2104.09864.
    """

    def __init__(self, base: float = 10000.0, **kwargs: Any):
        super().__init__(**kwargs)
        check(is_number(base) and base > 1, "base", "be > 1", repr(base))
        self.base = float(base)

    def build(self, x_shape: Any, positions_shape: Any = None) -> None:
        even = len(x_shape) == 4 and x_shape[3] % 2 == 0
        check(even, "x", "have shape (batch, tokens, heads, an even number)", f"shape {tuple(x_shape)}")

    def call(self, x: Any, positions: Any = None) -> Any:
        positions = ops.arange(ops.shape(x)[1])[None] if positions is None else positions
        once = ops.convert_to_tensor(frequencies(x.shape[-1] // 2, self.base), "float32")
        angles = ops.cast(positions, "float32")[:, :, None, None] * once
        return ops.cast(turn(x, angles), self.compute_dtype)

    def compute_output_shape(self, x_shape: Any, positions_shape: Any = None) -> tuple[int | None, ...]:
        return tuple(x_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "base": self.base}
