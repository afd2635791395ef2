from typing import Any

import numpy as np
from keras import ops

from keras_gen.core.checks import check
from keras_gen.export import keras_gen_export
from keras_gen.hubness.distances import as_distances


@keras_gen_export("keras_gen.ops.mutual_proximity")
def mutual_proximity(distances: Any) -> np.ndarray:
    """Reduces hubness: two points are near if each has few points that are nearer than the other.

        d'(i, j) = 1 - P(D_i > d_ij) P(D_j > d_ij),   D_i ~ N(mean and variance of the distances of point i)

    Args:
        distances: `(n, n)`, of n >= 3 points, such as `pairwise_distances` gives.

    Returns:
        float64 array `(n, n)` in [0, 1], for `k_occurrence(..., metric="precomputed")`; the diagonal is zero.

    Raises:
        ValueError: if `distances` is not a square matrix of numbers >= 0, or all distances of a point are equal.

    Reference: Schnitzer et al. 2012, "Local and Global Scaling Reduce Hubs in Space", JMLR 13.
    """
    distances = as_distances(distances)
    n = len(distances)
    check(n > 2, "distances", "be of at least 3 points", f"shape {distances.shape}")
    others = distances[~np.eye(n, dtype=bool)].reshape(n, n - 1)
    equal = int((np.ptp(others, axis=1) == 0).sum())
    check(equal == 0, "distances", "differ in each row", f"{equal} rows of equal ones")
    z = (distances - others.mean(axis=1)[:, None]) / others.std(axis=1)[:, None]
    # P(D_i < d_ij), small for neighbours: erfc keeps its digits where 1 - P would lose them.
    nearer = ops.convert_to_numpy(0.5 * ops.erfc(ops.convert_to_tensor(-z / np.sqrt(2), "float32"))).astype("float64")
    reduced = nearer + nearer.T - nearer * nearer.T
    np.fill_diagonal(reduced, 0)
    return reduced
