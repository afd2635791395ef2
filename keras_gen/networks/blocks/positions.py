"""Sinusoidal embeddings of places on a grid, added to its tokens."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.checks import check, check_integer, check_integer_or_none, known_size
from keras_gen.export import keras_gen_export
from keras_gen.networks.blocks.rotary import inverse_frequencies


def waves(positions: np.ndarray, width: int) -> np.ndarray:
    """Returns sines, then cosines, of positions `(n,)` at `width / 2` frequencies: `(n, width)`."""
    angles = np.outer(positions, inverse_frequencies(width // 2, 10000.0))
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)


def sincos_positions(rows: int, columns: int, width: int, columns_first: bool = False) -> np.ndarray:
    """Returns sinusoidal embeddings of each place of a grid, row by row: float32 `(rows * columns, width)`.

    The embedding of its row comes first, then that of its column, or the other way round.
    """
    row, column = np.divmod(np.arange(rows * columns), columns)
    axes = (column, row) if columns_first else (row, column)
    return np.concatenate([waves(axis, width // 2) for axis in axes], axis=-1).astype("float32")


@keras_gen_export("keras_gen.layers.SinusoidalPositions2D")
class SinusoidalPositions2D(keras.layers.Layer):
    """Adds sinusoidal embeddings of column and row to a grid of tokens, from the middle of a table.

        y[i, j] = x[i, j] + [sin(u f), cos(u f), sin(v f), cos(v f)],   f_k = 10000^(-k / (channels / 4))
        u = (j + (size - columns) // 2) base_size / size,   v = (i + (size - rows) // 2) base_size / size

    So the middle of a grid has the same position whatever its size. The table of all `size^2` embeddings is a weight,
    which is not trained. Computed in float32 under any dtype policy.

    Args:
        size: int >= 1. Rows and columns of the table, the largest ones of a grid.
        base_size: int >= 1 or `None`. Positions are counted in units of `size / base_size`. Defaults to `None`, which
            is `size`.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        x: `(batch, rows, columns, channels)`, with channels a multiple of 4.

    Returns:
        A tensor like `x`.

    Raises:
        ValueError: if an argument is outside its range, or `x` is no such grid or larger than the table.

    Example:

    >>> tokens = keras_gen.layers.SinusoidalPositions2D(64)(tokens)        # (n, 32, 48, 128)

    Reference: Esser et al. 2024, arXiv:2403.03206, section 5.3.2; Dosovitskiy et al. 2021, arXiv:2010.11929.
    """

    def __init__(self, size: int, base_size: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.size = check_integer("size", size)
        self.base_size = check_integer_or_none("base_size", base_size)

    def build(self, x_shape: Any) -> None:
        check(len(x_shape) == 4, "x", "have shape (batch, rows, columns, channels)", f"shape {tuple(x_shape)}")
        channels = known_size("x", x_shape)
        check(channels % 4 == 0, "x", "have a multiple of 4 channels", f"shape {tuple(x_shape)}")
        # With an axis of size one, as in files.
        self.table = self.add_weight(
            name="table", shape=(1, self.size**2, channels), initializer=self._table, trainable=False, autocast=False
        )

    def call(self, x: Any) -> Any:
        self._check_fits(x.shape)
        rows, columns, channels = ops.shape(x)[1:]
        top, left = (self.size - rows) // 2, (self.size - columns) // 2
        table = ops.reshape(self.table, (self.size, self.size, channels))[top : top + rows, left : left + columns]
        return ops.cast(ops.cast(x, "float32") + ops.cast(table, "float32"), self.compute_dtype)

    def compute_output_shape(self, x_shape: Any) -> tuple[int | None, ...]:
        self._check_fits(x_shape)
        return tuple(x_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "size": self.size, "base_size": self.base_size}

    def _table(self, shape: Any, dtype: Any) -> Any:
        """Returns the table. Only those of rows and of columns are computed in NumPy: this one may be a gigabyte."""
        positions = np.arange(self.size) * ((self.base_size or self.size) / self.size)
        axis = ops.convert_to_tensor(waves(positions, shape[-1] // 2), dtype)
        whole = (self.size, self.size, axis.shape[-1])
        columns, rows = (ops.broadcast_to(ops.expand_dims(axis, i), whole) for i in (0, 1))
        return ops.reshape(ops.concatenate([columns, rows], axis=-1), shape)

    def _check_fits(self, x_shape: Any) -> None:
        rule = f"have at most {self.size} rows and columns"
        check(all((side or 0) <= self.size for side in x_shape[1:3]), "x", rule, f"shape {tuple(x_shape)}")
