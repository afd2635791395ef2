from typing import Any

import numpy as np

from keras_gen.core.checks import check
from keras_gen.export import keras_gen_export
from keras_gen.hubness.distances import as_distances, smallest_others


@keras_gen_export("keras_gen.ops.nicdm")
def nicdm(distances: Any, k: int = 5) -> np.ndarray:
    """Reduces hubness by the non-iterative contextual dissimilarity measure.

        d'(i, j) = d_ij / sqrt(m_i m_j),   m_i = mean distance of point i to its k neighbours

    Args:
        distances: `(n, n)`, such as `pairwise_distances` gives.
        k: int >= 1, less than n. Defaults to `5`.

    Returns:
        float64 array `(n, n)`, for `k_occurrence(..., metric="precomputed")`; the diagonal is zero.

    Raises:
        ValueError: if `distances` is not a square matrix of numbers >= 0, `k` is outside its range, or a point equals
            all of its k neighbours.

    Reference: Jegou et al. 2007, "A contextual dissimilarity measure for accurate and efficient image search";
    Schnitzer et al. 2012, "Local and Global Scaling Reduce Hubs in Space", JMLR 13.
    """
    distances = as_distances(distances, k)
    m = smallest_others(distances, k).mean(axis=1)
    check(bool((m > 0).all()), "distances", "have one > 0 to a neighbour in each row", f"{(m == 0).sum()} rows without")
    reduced = distances / np.sqrt(m[:, None] * m)
    np.fill_diagonal(reduced, 0)
    return reduced
