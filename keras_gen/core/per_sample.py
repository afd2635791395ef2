"""Sums over what a batch holds of each sample."""

from typing import Any

from keras import ops


def per_sample(values: Any) -> Any:
    """Returns the sum of `values` over all axes but the first."""
    return ops.sum(values, axis=tuple(range(1, len(values.shape))))


def for_each_sample(value: Any, x: Any) -> Any:
    """Returns the scalar `value` once for each sample of `x`: `(batch,)`."""
    return ops.zeros(ops.shape(x)[:1], x.dtype) + value
