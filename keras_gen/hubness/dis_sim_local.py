from typing import Any

import numpy as np

from keras_gen.core.checks import check_integer
from keras_gen.export import keras_gen_export
from keras_gen.hubness.nearest_neighbors import nearest_neighbors
from keras_gen.hubness.pairwise_distances import pairwise_distances
from keras_gen.hubness.points import as_points


@keras_gen_export("keras_gen.ops.dis_sim_local")
def dis_sim_local(x: Any, k: int = 10) -> np.ndarray:
    """Reduces hubness: takes off how far each point is from the middle of its neighbours, where hubs lie.

        d'(i, j) = |x_i - x_j|^2 - |x_i - c_i|^2 - |x_j - c_j|^2,   c_i = mean of the k neighbours of x_i

    Args:
        x: `(n, dim)`, array or tensor.
        k: int >= 1, less than n. Defaults to `10`.

    Returns:
        float64 array `(n, n)`, the less the nearer, also below zero, for `k_occurrence(..., metric="precomputed")`.

    Raises:
        ValueError: if `x` is not two-dimensional or not finite, or `k` is outside its range.

    Reference: Hara et al. 2016, "Flattening the Density Gradient for Eliminating Spatial Centrality to Reduce Hubness".
    """
    check_integer("k", k)
    x = as_points("x", x).astype("float64")
    _, neighbors = nearest_neighbors(x, k=k)
    from_center = ((x - x[neighbors].mean(axis=1)) ** 2).sum(axis=1)
    return pairwise_distances(x) ** 2 - from_center[:, None] - from_center
