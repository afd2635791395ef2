"""Hubness reduction: similarities and distances relative to the neighbourhood."""

from typing import Any

import numpy as np
from keras import ops

from keras_gen.core.checks import check, check_integer
from keras_gen.export import keras_gen_export
from keras_gen.hubness.neighbors import (
    as_distances,
    as_matrix,
    as_points,
    nearest_neighbors,
    pairwise_distances,
    smallest_others,
)


@keras_gen_export("keras_gen.ops.csls")
def csls(similarities: Any, k: int = 10) -> np.ndarray:
    """Reduces hubness by cross-domain similarity local scaling (CSLS): subtracts mean similarities to neighbours.

        d'(i, j) = -(2 cos_ij - r_i - r_j),   r_i = mean similarity of point i to its k nearest neighbours

    Args:
        similarities: `(n, n)`, such as `1 - pairwise_distances(x, metric="cosine")`.
        k: int >= 1, less than n. Defaults to `10`.

    Returns:
        float64 array `(n, n)`, smaller for nearer points, for `k_occurrence(..., metric="precomputed")`.

    Raises:
        ValueError: if `similarities` is not a square matrix, or `k` is outside its range.

    Reference: Conneau et al. 2018, arXiv:1710.04087, section 2.3.
    """
    similarities = as_matrix("similarities", similarities, k)
    r = -smallest_others(-similarities, k).mean(axis=1)
    return r[:, None] + r - 2 * similarities


@keras_gen_export("keras_gen.ops.nicdm")
def nicdm(distances: Any, k: int = 5) -> np.ndarray:
    """Reduces hubness by the non-iterative contextual dissimilarity measure.

        d'(i, j) = d_ij / sqrt(m_i m_j),   m_i = mean distance of point i to its k neighbours

    Args:
        distances: `(n, n)`, such as from `pairwise_distances`.
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
    check(
        bool((m > 0).all()), "distances", "be > 0 to at least one of the k neighbours", f"{(m == 0).sum()} rows without"
    )
    reduced = distances / np.sqrt(m[:, None] * m)
    np.fill_diagonal(reduced, 0)
    return reduced


@keras_gen_export("keras_gen.ops.local_scaling")
def local_scaling(distances: Any, k: int = 5) -> np.ndarray:
    """Reduces hubness by local scaling: measures distances relative to those of the k-th neighbours.

        d'(i, j) = 1 - exp(-d_ij^2 / (r_i r_j)),   r_i = distance of point i to its k-th neighbour

    Args:
        distances: `(n, n)`, such as from `pairwise_distances`.
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


@keras_gen_export("keras_gen.ops.mutual_proximity")
def mutual_proximity(distances: Any) -> np.ndarray:
    """Reduces hubness by mutual proximity: two points are near if, for each, few points are nearer than the other.

        d'(i, j) = 1 - P(D_i > d_ij) P(D_j > d_ij),   D_i ~ N(mean and variance of the distances of point i)

    Args:
        distances: `(n, n)`, of n >= 3 points, such as from `pairwise_distances`.

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
    check(equal == 0, "distances", "differ within each row", f"{equal} rows of equal distances")
    z = (distances - others.mean(axis=1)[:, None]) / others.std(axis=1)[:, None]
    # P(D_i < d_ij), small for neighbours: erfc keeps its digits where 1 - P would lose them.
    nearer = ops.convert_to_numpy(0.5 * ops.erfc(ops.convert_to_tensor(-z / np.sqrt(2), "float32"))).astype("float64")
    reduced = nearer + nearer.T - nearer * nearer.T
    np.fill_diagonal(reduced, 0)
    return reduced


@keras_gen_export("keras_gen.ops.dis_sim_local")
def dis_sim_local(x: Any, k: int = 10) -> np.ndarray:
    """Reduces hubness by DisSim Local: subtracts squared distances to local centroids, close to which hubs lie.

        d'(i, j) = |x_i - x_j|^2 - |x_i - c_i|^2 - |x_j - c_j|^2,   c_i = mean of the k neighbours of x_i

    Args:
        x: `(n, dim)`, array or tensor.
        k: int >= 1, less than n. Defaults to `10`.

    Returns:
        float64 array `(n, n)`, smaller for nearer points, also negative, for `k_occurrence(..., metric="precomputed")`.

    Raises:
        ValueError: if `x` is not two-dimensional or not finite, or `k` is outside its range.

    Reference: Hara et al. 2016, "Flattening the Density Gradient for Eliminating Spatial Centrality to Reduce Hubness".
    """
    check_integer("k", k)
    x = as_points("x", x).astype("float64")
    _, neighbors = nearest_neighbors(x, k=k)
    from_center = ((x - x[neighbors].mean(axis=1)) ** 2).sum(axis=1)
    return pairwise_distances(x) ** 2 - from_center[:, None] - from_center
