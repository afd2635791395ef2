"""Small formulas of arrays and tensors; `array_module` lets one formula serve NumPy's float64 and compiled tensors."""

from typing import Any

import numpy as np
from keras import ops

from keras_gen.core.checks import check

SMALLEST = 1e-24  # square of a vector that counts as 0
NUMPY = np.ndarray | np.generic | int | float | list | tuple | range


def array_module(x: Any) -> Any:
    """Returns the module with `exp`, `sqrt`, ... for `x`: `numpy` for numbers, lists and arrays, else `keras.ops`."""
    return np if isinstance(x, NUMPY) else ops


def as_float64(x: Any) -> Any:
    """Returns numbers, lists and arrays as float64 NumPy, tensors as they are."""
    return np.asarray(x, "float64") if isinstance(x, NUMPY) else x


def sum_per_sample(values: Any) -> Any:
    """Returns the sum of `values` over all axes but the first."""
    return ops.sum(values, axis=tuple(range(1, len(values.shape))))


def mean_per_sample(values: Any) -> Any:
    """Returns the mean of `values` over all axes but the first."""
    return ops.mean(values, axis=tuple(range(1, len(values.shape))))


def mean_square(error: Any) -> Any:
    """Returns the mean square of each sample, as `(batch,)`."""
    return mean_per_sample(ops.square(error))


def broadcast_to_batch(value: Any, x: Any) -> Any:
    """Returns the scalar `value` once for each sample of `x`: `(batch,)`."""
    return ops.zeros(ops.shape(x)[:1], x.dtype) + value


def clip(x: Any, low: float, high: float) -> Any:
    """Computes `keras.ops.clip(x, low, high)`, which on torch rounds the ends to float32."""
    return ops.clip(x, ops.convert_to_tensor(low, x.dtype), ops.convert_to_tensor(high, x.dtype))


def unit_vectors(x: Any) -> Any:
    """Scales vectors to unit length, in float32. A zero stays 0, with gradient 0 (that of `ops.normalize` is NaN)."""
    x = ops.cast(x, "float32")
    square = ops.sum(ops.square(x), axis=-1, keepdims=True)
    return x * ops.where(square > SMALLEST, ops.rsqrt(ops.maximum(square, SMALLEST)), 0.0)


def straight_paths(a: np.ndarray, b: np.ndarray, points: int) -> np.ndarray:
    """Returns `points` points on each straight line from a to b, both ends included: `(n, points, ...)`."""
    check(a.shape == b.shape, "x_b", f"be as many as x_a, {len(a)}", f"{len(b)}")
    w = np.linspace(0, 1, points, dtype="float32").reshape(1, points, *[1] * (a.ndim - 1))
    return (1 - w) * a[:, None] + w * b[:, None]
