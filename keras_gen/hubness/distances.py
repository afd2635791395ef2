"""Checks of matrices of distances, and what their rows hold."""

from typing import Any

import numpy as np

from keras_gen.core.checks import check, check_integer
from keras_gen.hubness.points import as_points


def as_matrix(name: str, matrix: Any, k: int = 1) -> np.ndarray:
    """Returns a finite square matrix as float64, after a check that each row has k entries beside the diagonal's."""
    matrix = as_points(name, matrix).astype("float64", copy=False)
    check(matrix.shape[0] == matrix.shape[1], name, "be square, (n, n)", f"shape {matrix.shape}")
    check_integer("k", k)
    check(k < len(matrix), "k", f"be at most the number of other points, {len(matrix) - 1}", k)
    return matrix


def as_distances(distances: Any, k: int = 1) -> np.ndarray:
    """Returns a matrix of distances as float64; refuses negative ones."""
    distances = as_matrix("distances", distances, k)
    check(bool((distances >= 0).all()), "distances", "be >= 0", f"a minimum of {distances.min()}")
    return distances


def smallest_others(matrix: np.ndarray, k: int) -> np.ndarray:
    """Returns the k smallest entries of each row beside the diagonal's, in rising order: `(n, k)`."""
    matrix = matrix.copy()
    np.fill_diagonal(matrix, np.inf)
    return np.sort(np.partition(matrix, k - 1, axis=1)[:, :k], axis=1)
