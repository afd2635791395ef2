"""Clipping in the precision of the tensor."""

from typing import Any

from keras import ops


def clip(x: Any, low: float, high: float) -> Any:
    """Computes `keras.ops.clip(x, low, high)`, which on torch rounds the ends to float32."""
    return ops.clip(x, ops.convert_to_tensor(low, x.dtype), ops.convert_to_tensor(high, x.dtype))
