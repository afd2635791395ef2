from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.checks import check, check_integer, is_number
from keras_gen.export import keras_gen_export
from keras_gen.networks.blocks.rotary import frequencies, turn


@keras_gen_export("keras_gen.layers.RotaryEmbedding2D")
class RotaryEmbedding2D(keras.layers.Layer):
    """Turns pairs of channels by angles that grow with the position in a grid: rotary positions in two dimensions.

        f_i = base^(-i / (dim / 4)),   i = 0 .. dim / 4 - 1
        pair i of the first half of channels turns by row f_i, pair i of the second half by column f_i

    Channels `2 i` and `2 i + 1` are a pair. With queries and keys both turned, `q . k` depends on the positions by
    their difference alone. Computed in float32 under any dtype policy. There are no weights.

    Args:
        height: int >= 1. Rows of the grid.
        width: int >= 1. Columns of the grid.
        base: float > 1. Defaults to `10000.0`.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        x: queries or keys `(batch, height * width, heads, dim)`, row by row, `dim` a multiple of 4.

    Returns:
        A tensor like `x`.

    Raises:
        ValueError: if an argument is outside its range, or `x` has another shape.

    Reference: Su et al. 2021, arXiv:2104.09864; in two dimensions https://kexue.fm/archives/8397.
    """

    def __init__(self, height: int, width: int, base: float = 10000.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.height = check_integer("height", height)
        self.width = check_integer("width", width)
        check(is_number(base) and base > 1, "base", "be > 1", repr(base))
        self.base = float(base)

    def build(self, x_shape: tuple[int | None, ...]) -> None:
        tokens = self.height * self.width
        fits = len(x_shape) == 4 and x_shape[1] in (None, tokens) and x_shape[3] % 4 == 0
        check(fits, "x", f"have shape (batch, {tokens}, heads, a multiple of 4)", f"shape {tuple(x_shape)}")

    def call(self, x: Any) -> Any:
        angles = ops.convert_to_tensor(self._angles(x.shape[-1]), "float32")
        return ops.cast(turn(x, angles), self.compute_dtype)

    def compute_output_shape(self, x_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return x_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "height": self.height, "width": self.width, "base": self.base}

    def _angles(self, dim: int) -> np.ndarray:
        """Returns the angles `(height * width, 1, dim / 2)`."""
        row, column = np.divmod(np.arange(self.height * self.width), self.width)
        once = frequencies(dim // 4, self.base)
        return np.concatenate([np.outer(row, once), np.outer(column, once)], axis=-1)[:, None]
