"""Rotary position embeddings, which rotate pairs of channels by angles proportional to the position, and their use."""

from typing import Any, Self

import keras
import numpy as np
from keras import ops

from keras_gen.core.checks import check, check_greater, check_integer, known_size
from keras_gen.core.frozen import StaysFrozen
from keras_gen.export import keras_gen_export


def inverse_frequencies(pairs: int, base: float) -> np.ndarray:
    """Returns the angle of each pair of channels at position 1: `base^(-i / pairs)`."""
    return base ** (-np.arange(pairs) / pairs)


def rotate(x: Any, angles: Any) -> Any:
    """Rotates each pair of channels `2 i` and `2 i + 1` by the i-th angle, in float32.

    Args:
        x: `(..., dim)`.
        angles: float32 that broadcasts to `(..., dim / 2)`.

    Returns:
        float32 tensor of the shape of `x`.
    """
    shape = (*ops.shape(x)[:-1], x.shape[-1])
    pairs = ops.reshape(ops.cast(x, "float32"), (*shape[:-1], shape[-1] // 2, 2))
    even, odd = pairs[..., 0], pairs[..., 1]
    cos, sin = ops.cos(angles), ops.sin(angles)
    return ops.reshape(ops.stack([even * cos - odd * sin, odd * cos + even * sin], axis=-1), shape)


@keras_gen_export("keras_gen.layers.RotaryEmbedding")
class RotaryEmbedding(keras.layers.Layer):
    """Rotary position embedding: rotates pairs of channels by angles proportional to the position in a sequence.

        f_i = base^(-i / (dim / 2)),   pair i rotates by position f_i,   i = 0 .. dim / 2 - 1

    Channels `2 i` and `2 i + 1` are a pair. With queries and keys both rotated, `q . k` depends on the positions only
    through their difference. Computed in float32 under any dtype policy. There are no weights, and no maximum position.

    Args:
        base: float > 1. Defaults to `10000.0`.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        x: queries or keys `(batch, tokens, heads, dim)`, `dim` even.
        positions: integers `(batch, tokens)`, or `None` for 0, 1, 2, ... Defaults to `None`.

    Returns:
        A tensor like `x`.

    Raises:
        ValueError: if `base` is outside its range, or `x` has the wrong shape.

    Reference: https://kexue.fm/archives/8265; Su et al. 2021, arXiv:2104.09864.
    """

    def __init__(self, base: float = 10000.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.base = check_greater("base", base, 1)

    def build(self, x_shape: Any, positions_shape: Any = None) -> None:
        even = len(x_shape) == 4 and x_shape[3] % 2 == 0
        check(even, "x", "have shape (batch, tokens, heads, an even number)", f"shape {tuple(x_shape)}")

    def call(self, x: Any, positions: Any = None) -> Any:
        positions = ops.arange(ops.shape(x)[1], dtype="int32")[None] if positions is None else positions
        frequencies = ops.convert_to_tensor(inverse_frequencies(x.shape[-1] // 2, self.base), "float32")
        angles = ops.cast(positions, "float32")[:, :, None, None] * frequencies
        return ops.cast(rotate(x, angles), self.compute_dtype)

    def compute_output_shape(self, x_shape: Any, positions_shape: Any = None) -> tuple[int | None, ...]:
        return tuple(x_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "base": self.base}


@keras_gen_export("keras_gen.layers.RotaryEmbedding2D")
class RotaryEmbedding2D(keras.layers.Layer):
    """Two-dimensional rotary position embedding: rotates pairs of channels by angles proportional to row or column.

        f_i = base^(-i / (dim / 4)),   i = 0 .. dim / 4 - 1
        pair i of the first half of channels rotates by row f_i, pair i of the second half by column f_i

    Channels `2 i` and `2 i + 1` are a pair. With queries and keys both rotated, `q . k` depends on the positions only
    through their difference. Computed in float32 under any dtype policy. There are no weights.

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
        ValueError: if an argument is outside its range, or `x` has the wrong shape.

    Reference: Su et al. 2021, arXiv:2104.09864; in two dimensions https://kexue.fm/archives/8397.
    """

    def __init__(self, height: int, width: int, base: float = 10000.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.height = check_integer("height", height)
        self.width = check_integer("width", width)
        self.base = check_greater("base", base, 1)

    def build(self, x_shape: tuple[int | None, ...]) -> None:
        tokens = self.height * self.width
        is_grid = len(x_shape) == 4 and x_shape[1] in (None, tokens) and known_size("x", x_shape) % 4 == 0
        check(is_grid, "x", f"have shape (batch, {tokens}, heads, a multiple of 4)", f"shape {tuple(x_shape)}")

    def call(self, x: Any) -> Any:
        angles = ops.convert_to_tensor(self._angles(x.shape[-1]), "float32")
        return ops.cast(rotate(x, angles), self.compute_dtype)

    def compute_output_shape(self, x_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return x_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "height": self.height, "width": self.width, "base": self.base}

    def _angles(self, dim: int) -> np.ndarray:
        """Returns the angles `(height * width, 1, dim / 2)`."""
        row, column = np.divmod(np.arange(self.height * self.width), self.width)
        frequencies = inverse_frequencies(dim // 4, self.base)
        return np.concatenate([np.outer(row, frequencies), np.outer(column, frequencies)], axis=-1)[:, None]


class RotatedAttention(StaysFrozen, keras.layers.Layer):
    """Base class of attention layers that rotate queries and keys by a layer such as `RotaryEmbedding`, if given one.

    Subclasses take it as their argument `positions`, set it by `check_positions`, and serialize it in `get_config`.
    """

    positions: keras.Layer | None

    def build_positions(self, heads_shape: tuple[int | None, ...]) -> None:
        """Builds the layer of positions for queries of shape `(batch, tokens, heads, dim)`, unless it is built."""
        if self.positions is not None and not self.positions.built:
            self.positions.build(heads_shape)

    def rotated(self, q: Any, k: Any, *token_positions: Any) -> tuple[Any, Any]:
        """Returns queries and keys `(batch, tokens, heads, dim)`, rotated if there is a layer of positions."""
        if self.positions is None:
            return q, k
        q, k = (ops.cast(self.positions(heads, *token_positions), self.compute_dtype) for heads in (q, k))
        return q, k

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**keras.saving.deserialize_keras_object(config))


def check_positions(positions: Any) -> keras.Layer | None:
    """Checks that `positions` is a layer or `None`, and returns it."""
    check(positions is None or isinstance(positions, keras.Layer), "positions", "be a layer or None", positions)
    return positions
