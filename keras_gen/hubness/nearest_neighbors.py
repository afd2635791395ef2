from typing import Any

import numpy as np

from keras_gen.core.batches import even_batches
from keras_gen.core.checks import check, check_choice, check_integer
from keras_gen.export import keras_gen_export
from keras_gen.hubness.points import METRICS, as_points, unit_rows
from keras_gen.hubness.search import Index, nearest_program, precise_search

SPARE = 4  # candidates beyond k, of which the ranking by products may have the order wrong


@keras_gen_export("keras_gen.ops.nearest_neighbors")
def nearest_neighbors(
    queries: Any,
    points: Any = None,
    k: int = 5,
    block_size: int = 1024,
    metric: str = "euclidean",
    verbose: str | int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the k nearest points of each query, exactly.

    A block of queries at a time: one matrix product ranks all points, after the mean is taken from the data, and the
    distances of the best are then computed from differences. Memory is that of a float32 copy of the points and of
    `block_size x n` products, 128 MB at most, never of `n x n`.

    Args:
        queries: `(m, dim)`, arrays or tensors.
        points: `(n, dim)`, or `None`: the queries themselves, and then no point is a neighbour of its own. It is left
            out by its index, so that of two equal points each finds the other. Defaults to `None`.
        k: int >= 1, and at most as many as there are other points. Defaults to `5`.
        block_size: int >= 1. How many queries are worked on together; fewer, where there are more than 32,768 points.
            Defaults to `1024`.
        metric: `"euclidean"`, `"cosine"`, or `"precomputed"`: then the queries are a matrix of distances `(m, n)`, and
            `points` is `None`; the point itself is left out if the matrix is square. Defaults to `"euclidean"`.
        verbose: `"auto"`, 0 or 1: whether to show progress. Defaults to `0`.

    Returns:
        distances: array `(m, k)`, nearest first: squared ones for `"euclidean"`, `1 - cos` for `"cosine"`, those of the
            matrix for `"precomputed"`.
        indices: int32 array `(m, k)`.

    Raises:
        ValueError: if there are fewer points than are asked for, an array is not two-dimensional or not finite, or an
            argument is outside its range.

    Example:

    >>> distances, indices = keras_gen.ops.nearest_neighbors(np.random.normal(size=(1000, 64)), k=3)

    Reference: https://kexue.fm/archives/9147.
    """
    check_choice("metric", metric, METRICS)
    check_integer("k", k)
    check_integer("block_size", block_size)
    itself = points is None
    queries = as_points("queries", queries)
    if metric == "precomputed":
        check(itself, "points", "be None, for a matrix of distances", "a value")
        return _nearest_in_matrix(queries, k, block_size)
    points = queries if itself else as_points("points", points)
    fits = points.shape[1] == queries.shape[1]
    check(fits, "points", f"have shape (n, {queries.shape[1]}), as the queries", f"shape {points.shape}")
    _check_number(k, len(points) - itself)
    if metric == "cosine":
        queries = unit_rows("queries", queries)
        points = queries if itself else unit_rows("points", points)

    candidates = min(k + itself + SPARE, len(points))
    blocks = Index(points).search(nearest_program(candidates), queries, block_size, verbose)
    distances, indices, beyond = (np.concatenate(parts)[: len(queries)] for parts in zip(*blocks, strict=True))
    distances, indices = _nearest_of(distances, indices, k, itself)
    # Far from the mean, products round more than neighbours differ: what may be wrong is done again.
    unsure = np.flatnonzero((distances[:, -1] > beyond) & (candidates < len(points)))
    for rows, squares in precise_search(queries, points, unsure, block_size):
        if itself:
            squares[np.arange(len(rows)), rows] = np.inf
        found = np.argpartition(squares, k - 1)[:, :k].astype("int32")
        offsets = queries[rows][:, None].astype("float64") - points[found]
        distances[rows], indices[rows] = _nearest_of(np.square(offsets).sum(axis=-1), found, k, False)
    if metric == "cosine":
        distances /= 2  # |a - b|^2 = 2 - 2 cos of unit vectors
    return distances, indices


def _nearest_in_matrix(matrix: np.ndarray, k: int, block_size: int) -> tuple[np.ndarray, np.ndarray]:
    itself = matrix.shape[0] == matrix.shape[1]
    _check_number(k, matrix.shape[1] - itself)
    candidates = min(k + itself, matrix.shape[1])
    blocks = even_batches(len(matrix), block_size)
    # Copied, for a slice would keep its whole block.
    parts = [np.argpartition(matrix[rows], candidates - 1)[:, :candidates].astype("int32") for rows in blocks]
    indices = np.concatenate(parts)[: len(matrix)]
    return _nearest_of(np.take_along_axis(matrix, indices, axis=1), indices, k, itself)


def _check_number(k: int, others: int) -> None:
    check(k <= others, "k", f"be at most the number of other points, {others}", k)


def _nearest_of(distances: np.ndarray, indices: np.ndarray, k: int, itself: bool) -> tuple[np.ndarray, np.ndarray]:
    """Sorts candidates by distance, equal ones by index, without the point itself, and keeps k."""
    own = (indices == np.arange(len(indices))[:, None]) & itself
    order = np.lexsort((indices, distances, own))[:, :k]
    return np.take_along_axis(distances, order, axis=1), np.take_along_axis(indices, order, axis=1)
