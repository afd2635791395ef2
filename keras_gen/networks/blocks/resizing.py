"""Resizing of images by one matrix for their rows and one for their columns, as two other libraries do it."""

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from keras_gen.core.checks import check
from keras_gen.core.devices.products import precise_product


def bicubic_weights(old: int, new: int) -> np.ndarray:
    """Returns the matrix of Pillow's bicubic resizing, with antialiasing.

        w(d) = 1.5 |d|^3 - 2.5 |d|^2 + 1 for |d| < 1,   -0.5 |d|^3 + 2.5 |d|^2 - 4 |d| + 2 for 1 <= |d| < 2

    d is the distance between the centres of an old and a new pixel, in units of the larger of both.

    Args:
        old: int >= 1. Number of pixels before.
        new: int >= 1. Number of pixels after.

    Returns:
        float64 array `(new, old)`, whose rows sum to 1.

    Reference: Keys 1981, "Cubic convolution interpolation for digital image processing".
    """
    scale = old / new
    centres = (np.arange(new) + 0.5) * scale
    d = np.abs(np.arange(old) + 0.5 - centres[:, None]) / max(scale, 1)
    near, far = 1.5 * d**3 - 2.5 * d**2 + 1, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
    weights = np.where(d < 1, near, np.where(d < 2, far, 0))
    return weights / weights.sum(axis=1, keepdims=True)


def bilinear_weights(old: int, new: int) -> np.ndarray:
    """Returns the matrix of TensorFlow 1's bilinear resizing: corners of pixels instead of centres, no antialiasing.

    Args:
        old: int >= 1. Number of pixels before.
        new: int >= 1. Number of pixels after.

    Returns:
        float32 array `(new, old)`, whose rows sum to 1.
    """
    rows, places = np.arange(new), np.arange(new, dtype="float32") * np.float32(old / new)  # rounded as there
    left = places.astype("int64")
    right = np.minimum(left + 1, old - 1)
    weights = np.zeros((new, old), "float32")
    weights[rows, left] = 1 - (places - left)
    weights[rows, right] += places - left  # at the end both are one pixel
    return weights


def resize(x: Any, size: int, weights: Callable[[int, int], np.ndarray]) -> Any:
    """Resizes images to squares, in full float32 on any device.

    Args:
        x: float32 `(batch, height, width, channels)`.
        size: int >= 1. Height and width after.
        weights: function that returns the matrix `(size, height)` or `(size, width)`, such as `bicubic_weights`.

    Returns:
        float32 `(batch, size, size, channels)`.
    """
    height, width = x.shape[1:3]
    is_known = isinstance(height, int) and isinstance(width, int)
    check(is_known, "images", "have a known height and width", f"shape {tuple(x.shape)}")
    of_rows, of_columns = (ops.convert_to_tensor(weights(old, size).T, "float32") for old in (height, width))
    x = precise_product(ops.transpose(x, (0, 3, 1, 2)), of_columns)  # (batch, channels, height, size)
    x = precise_product(ops.transpose(x, (0, 1, 3, 2)), of_rows)
    return ops.transpose(x, (0, 3, 2, 1))
