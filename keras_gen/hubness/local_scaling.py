from typing import Any

import numpy as np

from keras_gen.core.checks import check
from keras_gen.export import keras_gen_export
from keras_gen.hubness.distances import as_distances, smallest_others


@keras_gen_export("keras_gen.ops.local_scaling")
def local_scaling(distances: Any, k: int = 5) -> np.ndarray:
    """Reduces hubness: measures distances in units of how far the neighbours of each point are.

        d'(i, j) = 1 - exp(-d_ij^2 / (r_i r_j)),   r_i = distance of point i to its k-th neighbour

    Args:
        distances: `(n, n)`, such as `pairwise_distances` gives.
        k: int >= 1, less than n. Defaults to `5`.

    Returns:
        float64 array `(n, n)` in [0, 1], for `k_occurrence(..., metric="precomputed")`; the diagonal is zero.

    Raises:
        ValueError: if `distances` is not a square matrix of numbers >= 0, `k` is outside its range, or a point equals
            its k-th neighbour.

    Reference: Zelnik-Manor and Perona 2004, "Self-tuning spectral clustering"; Schnitzer et al. 2012, "Local and Global
    Scaling Reduce Hubs in Space", JMLR 13.
    """
    distances = as_distances(distances, k)
    r = smallest_others(distances, k)[:, -1]
    check(bool((r > 0).all()), "distances", "be > 0 to the k-th neighbour", f"{(r == 0).sum()} rows without")
    reduced = -np.expm1(-(distances**2) / (r[:, None] * r))
    np.fill_diagonal(reduced, 0)
    return reduced
