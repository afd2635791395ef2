"""The turn of pairs of channels that rotary positions are made of."""

from typing import Any

import numpy as np
from keras import ops


def frequencies(pairs: int, base: float) -> np.ndarray:
    """Returns the angle of each pair of channels at position 1: `base^(-i / pairs)`."""
    return base ** (-np.arange(pairs) / pairs)


def turn(x: Any, angles: Any) -> Any:
    """Turns channels `2 i` and `2 i + 1`, together a plane, by the i-th angle; in float32.

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
