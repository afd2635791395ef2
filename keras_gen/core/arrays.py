"""Small functions of arrays; by `array_module`, one formula serves both NumPy's float64 and compiled tensors."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.checks import NUMPY, check
from keras_gen.export import keras_gen_export

SMALLEST = 1e-24  # squared norm below which a vector counts as zero


@keras_gen_export("keras_gen.ops.array_module")
def array_module(x: Any) -> Any:
    """Returns the module whose `exp`, `sqrt`, ... take `x`: `numpy` for numbers, lists and arrays, else `keras.ops`.

    A formula written with it serves both the float64 tables of samplers and the compiled training step.

    Args:
        x: number, list, array or tensor.

    Returns:
        `numpy` or `keras.ops`.

    Example:

    >>> xp = keras_gen.ops.array_module(t)
    >>> alpha = xp.cos(0.5 * np.pi * t)

    Reference: https://data-apis.org/array-api, whose `__array_namespace__` it resembles.
    """
    return np if isinstance(x, NUMPY) else ops


def as_float64(x: Any) -> Any:
    """Converts numbers, lists and arrays to float64 NumPy arrays; returns tensors unchanged."""
    return np.asarray(x, "float64") if isinstance(x, NUMPY) else x


def constant(values: np.ndarray) -> Callable[..., Any]:
    """Returns an initializer of a weight that begins as an array; `keras.initializers.Constant` takes a number."""
    return lambda shape, dtype=None: ops.convert_to_tensor(values, dtype)


def sum_per_sample(values: Any) -> Any:
    """Returns the sum of `values` over all axes but the first."""
    return ops.sum(values, axis=tuple(range(1, len(values.shape))))


def mean_per_sample(values: Any) -> Any:
    """Returns the mean of `values` over all axes but the first."""
    return ops.mean(values, axis=tuple(range(1, len(values.shape))))


def mean_square(error: Any) -> Any:
    """Returns the mean squared error of each sample, `(batch,)`."""
    return mean_per_sample(ops.square(error))


def broadcast_to_batch(value: Any, x: Any) -> Any:
    """Broadcasts the scalar `value` to the batch axis of `x`: `(batch,)`."""
    return ops.zeros(ops.shape(x)[:1], x.dtype) + value


def broadcastable(values: Any, x: Any) -> Any:
    """Reshapes `values`, one for each sample, `(batch,)`, so that they broadcast to `x`, `(batch, ...)`."""
    return array_module(values).reshape(values, (-1, *[1] * (len(x.shape) - 1)))


def at_index(x: Any, indices: Any) -> Any:
    """Returns the entries of `x`, `(..., n)`, at integers `indices`, `(...)`, of the last axis."""
    indices = ops.cast(indices, "int32")[..., None]
    if keras.backend.backend() == "torch":  # whose exporter would fix the batch size in `take_along_axis`
        return x.gather(-1, indices.long())[..., 0]
    return ops.take_along_axis(x, indices, axis=-1)[..., 0]


def reordered(x: Any, order: Any) -> Any:
    """Returns `x[..., order]` for a vector of integers."""
    order = ops.convert_to_tensor(order, "int32")
    if keras.backend.backend() == "torch":  # whose exporter writes the `squeeze` of `take` wrongly
        return x.index_select(-1, order)
    return ops.take(x, order, axis=-1)


def clip(x: Any, low: float, high: float) -> Any:
    """Clips `x` to [low, high] in its own dtype; on torch, `keras.ops.clip` rounds the bounds to float32."""
    return ops.clip(x, ops.convert_to_tensor(low, x.dtype), ops.convert_to_tensor(high, x.dtype))


def unit_vectors(x: Any) -> Any:
    """Normalizes vectors to unit length, in float32. Zero vectors stay zero, with gradient 0 (`ops.normalize`: NaN)."""
    x = ops.cast(x, "float32")
    square = ops.sum(ops.square(x), axis=-1, keepdims=True)
    return x * ops.where(square > SMALLEST, ops.rsqrt(ops.maximum(square, SMALLEST)), 0.0)


def straight_paths(a: np.ndarray, b: np.ndarray, points: int) -> np.ndarray:
    """Returns `points` points on each straight line from a to b, endpoints included: `(n, points, ...)`."""
    check(a.shape == b.shape, "x_b", f"have as many samples as x_a, {len(a)}", f"{len(b)}")
    w = np.linspace(0, 1, points, dtype="float32").reshape(1, points, *[1] * (a.ndim - 1))
    return (1 - w) * a[:, None] + w * b[:, None]
