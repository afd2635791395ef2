from typing import Any

import numpy as np

from keras_gen.export import keras_gen_export
from keras_gen.hubness.distances import as_matrix, smallest_others


@keras_gen_export("keras_gen.ops.csls")
def csls(similarities: Any, k: int = 10) -> np.ndarray:
    """Reduces hubness by cross-domain similarity local scaling: takes off what a point is similar to all neighbours.

        d'(i, j) = -(2 cos_ij - r_i - r_j),   r_i = mean similarity of point i to its k most similar ones

    Args:
        similarities: `(n, n)`, such as `1 - pairwise_distances(x, metric="cosine")`.
        k: int >= 1, less than n. Defaults to `10`.

    Returns:
        float64 array `(n, n)`, the less the nearer, for `k_occurrence(..., metric="precomputed")`.

    Raises:
        ValueError: if `similarities` is not a square matrix, or `k` is outside its range.

    Reference: Conneau et al. 2018, arXiv:1710.04087, section 2.3.
    """
    similarities = as_matrix("similarities", similarities, k)
    r = -smallest_others(-similarities, k).mean(axis=1)
    return r[:, None] + r - 2 * similarities
