"""Straight ways between points."""

import numpy as np

from keras_gen.core.checks import check


def straight_paths(a: np.ndarray, b: np.ndarray, points: int) -> np.ndarray:
    """Returns `points` points of each way from a to b, both ends included: `(n, points, ...)`."""
    check(a.shape == b.shape, "x_b", f"be as many as x_a, {len(a)}", f"{len(b)}")
    w = np.linspace(0, 1, points, dtype="float32").reshape(1, points, *[1] * (a.ndim - 1))
    return (1 - w) * a[:, None] + w * b[:, None]
