"""Tolerances by the precision in which the device multiplies."""

import functools

import numpy as np
from keras import ops

from keras_gen.core.fixtures import to_numpy

TF32 = 2e-2  # of sums of some hundred products of standard normal factors with 11 significant bits


def within(rtol: float, atol: float | None = None) -> dict[str, float]:
    """Returns tolerances: as given where the device multiplies float32 in float32, else at least those of TF32.

    Args:
        rtol: float.
        atol: float. Defaults to `None`, which is `rtol`.
    """
    least = TF32 if rounds() else 0.0
    return {"rtol": max(rtol, least), "atol": max(rtol if atol is None else atol, least)}


@functools.cache
def rounds() -> bool:
    """Measures whether the device rounds the factors of products or convolutions: not every device heeds a setting."""
    x = np.full((1, 16, 16, 64), 1 + 2.0**-14, "float32")
    kernel = np.zeros((3, 3, 64, 64), "float32")
    kernel[1, 1] = np.eye(64)
    x, kernel = map(ops.convert_to_tensor, (x, kernel))
    results = ops.conv(x, kernel, padding="same"), ops.matmul(x[0, 0], kernel[1, 1])
    return any(np.abs(to_numpy(result) - (1 + 2.0**-14)).max() > 2.0**-16 for result in results)
