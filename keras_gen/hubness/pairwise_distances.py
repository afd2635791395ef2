from typing import Any

import numpy as np

from keras_gen.core.checks import check_choice
from keras_gen.export import keras_gen_export
from keras_gen.hubness.points import as_points, unit_rows

CLOSE = 1e-6  # squared distance over squared norms, below which products are not exact enough


@keras_gen_export("keras_gen.ops.pairwise_distances")
def pairwise_distances(x: Any, metric: str = "euclidean") -> np.ndarray:
    """Computes the distances between all points of a set, in float64: for the methods that reduce hubness.

        |x_i - x_j|   or   1 - cos(x_i, x_j)

    The whole matrix is held; `nearest_neighbors` and `k_occurrence` do without it.

    Args:
        x: `(n, dim)`, array or tensor.
        metric: `"euclidean"` or `"cosine"`. Defaults to `"euclidean"`.

    Returns:
        float64 array `(n, n)`, symmetric, zero on the diagonal.

    Raises:
        ValueError: if `x` is not two-dimensional or not finite, or `metric` is unknown.

    Reference: https://kexue.fm/archives/9147.
    """
    check_choice("metric", metric, ("euclidean", "cosine"))
    x = as_points("x", x).astype("float64")
    x = unit_rows("x", x) if metric == "cosine" else x - x.mean(axis=0)
    norms = np.einsum("ij,ij->i", x, x)
    sums = norms[:, None] + norms
    squares = sums - 2 * x @ x.T
    squares = (squares + squares.T) / 2
    # Products have few digits left of what is small, and would hold equal points apart: those from differences.
    near = squares < CLOSE * sums
    for row in np.flatnonzero(near.any(axis=1)):
        squares[row, near[row]] = np.square(x[near[row]] - x[row]).sum(axis=1)
    return squares / 2 if metric == "cosine" else np.sqrt(squares)
