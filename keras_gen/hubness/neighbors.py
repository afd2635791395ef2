"""Exact nearest neighbour search, in blocks."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from keras import ops

from keras_gen.core.checks import check, check_choice, check_integer, check_verbose, real_array
from keras_gen.core.compiled import compiled, even_batches, progress_bar
from keras_gen.core.devices.blocks import cells_at_once, halved_until_it_fits, on_cpu
from keras_gen.core.devices.products import precise_product
from keras_gen.core.torch.kernels import tile_size
from keras_gen.export import keras_gen_export

METRICS = ("euclidean", "cosine", "precomputed")


def as_points(name: str, x: Any) -> np.ndarray:
    """Returns points as an array `(n, dim)`, after checking shape and dtype, and that all values are finite."""
    x = real_array(name, x)
    check(x.ndim == 2 and x.size > 0, name, "have shape (n, dim)", f"shape {x.shape}")
    check(x.dtype.kind in "fiu", name, "be real numbers", f"dtype {x.dtype}")
    # A sum is finite only if its terms are: this needs no mask of the size of the data.
    broken = int((~np.isfinite(x.sum(axis=1, dtype="float64"))).sum())
    check(broken == 0, name, "be finite", f"NaN or infinite values in {broken} of {len(x)} rows")
    return x


RANGE = 40  # exponents of 2 whose squares, and sums of squares, float32 can hold


def in_range(*arrays: np.ndarray) -> tuple[int, list[np.ndarray]]:
    """Divides arrays by a power of 2, if their squares might overflow or underflow; returns its exponent, too."""
    largest = max(max(float(x.max()), -float(x.min())) for x in arrays)
    exponent = int(np.frexp(largest)[1])
    if abs(exponent) <= RANGE:
        return 0, list(arrays)
    return exponent, [np.ldexp(x, -exponent) for x in arrays]


def unit_rows(name: str, x: np.ndarray) -> np.ndarray:
    """Returns points normalized to unit length, after checking that none is at the origin."""
    _, [x] = in_range(x)
    norms = np.sqrt(np.einsum("ij,ij->i", x, x, dtype="float64"))
    zeros = int((norms == 0).sum())
    check(zeros == 0, name, "have no rows of zeros, for cosine distances", f"{zeros} of {len(x)}")
    return x / norms[:, None].astype(np.result_type(x.dtype, "float32"))


def as_matrix(name: str, matrix: Any, k: int = 1) -> np.ndarray:
    """Returns a finite square matrix as float64, after checking that each row has k off-diagonal entries."""
    matrix = as_points(name, matrix).astype("float64", copy=False)
    check(matrix.shape[0] == matrix.shape[1], name, "be square, (n, n)", f"shape {matrix.shape}")
    check_integer("k", k)
    check(k < len(matrix), "k", f"be at most the number of other points, {len(matrix) - 1}", k)
    return matrix


def as_distances(distances: Any, k: int = 1) -> np.ndarray:
    """Returns a distance matrix as float64, after checking that it is nonnegative."""
    distances = as_matrix("distances", distances, k)
    check(bool((distances >= 0).all()), "distances", "be >= 0", f"a minimum of {distances.min()}")
    return distances


def smallest_others(matrix: np.ndarray, k: int) -> np.ndarray:
    """Returns the k smallest off-diagonal entries of each row, in increasing order: `(n, k)`."""
    matrix = matrix.copy()
    np.fill_diagonal(matrix, np.inf)
    return np.sort(np.partition(matrix, k - 1, axis=1)[:, :k], axis=1)


CELLS = 2**25  # products in memory at a time on a CPU, 128 MB
CHUNK = 16  # columns per chunk; only their maximum is ranked at first
EPSILON = 2.0**-24  # unit roundoff of float32
TRUNCATION = 4  # rounding errors of an accelerator, in those of a CPU: not all of them round sums to nearest


class Index:
    """Search index that ranks points by one matrix product: row `i` is `(x_i, -|x_i|^2 / 2)`.

    For a query `q`, the product of `(q, 1)` with row `i` is `q . x_i - |x_i|^2 / 2`, largest for the nearest point.
    The mean is subtracted from points and queries before they are rounded to float32: far from the origin the products
    would have no digits left for the differences.

    Args:
        points: array `(n, dim)`.
        reach: array `(n,)` or `None`. Squared radii, subtracted from the squared distances: then the product is
            largest for the point with the nearest ball. Defaults to `None`.
    """

    def __init__(self, points: np.ndarray, reach: np.ndarray | None = None):
        n, dim = points.shape
        self.mean = points.mean(axis=0, dtype="float64").astype(np.result_type(points.dtype, "float32"))
        rows = np.empty((n, dim + 1), "float32")
        np.subtract(points, self.mean, out=rows[:, :dim], casting="same_kind")
        rows[:, dim] = np.einsum("ij,ij->i", rows[:, :dim], rows[:, :dim])
        if reach is not None:
            rows[:, dim] -= reach
        rows[:, dim] *= -0.5
        self.rows = ops.convert_to_tensor(rows)

    def search(
        self, program: Callable[[Any, Any], Any], queries: np.ndarray | None, block_size: int, verbose: str | int
    ) -> list[np.ndarray]:
        """Returns the results of `program(block of queries, rows)` for all queries, or all points if there are none.

        Blocks for which the memory does not suffice are halved.
        """
        n = len(self.rows) if queries is None else len(queries)
        whole = 1 << (n - 1).bit_length()
        block_size = min(block_size, whole, max(1, cells_at_once(self.rows, CELLS) // len(self.rows)))
        return halved_until_it_fits(lambda size: self._search(program, queries, size, verbose), block_size)

    def _search(
        self, program: Callable[[Any, Any], Any], queries: np.ndarray | None, block_size: int, verbose: str | int
    ) -> list[np.ndarray]:
        n = len(self.rows) if queries is None else len(queries)
        blocks = list(even_batches(n, block_size))
        bar = progress_bar(len(blocks), verbose)
        results = []
        for rows in blocks:
            found = program(self._centered(queries, rows), self.rows)
            # An accelerator works on the next block while the host does not wait for this one.
            is_fetched = bar.verbose or on_cpu(self.rows)
            results.append([ops.convert_to_numpy(part) for part in found] if is_fetched else found)
            bar.add(1)
        return [np.concatenate([*map(ops.convert_to_numpy, parts)])[:n] for parts in zip(*results, strict=True)]

    def _centered(self, queries: np.ndarray | None, rows: np.ndarray) -> Any:
        if queries is None:
            return ops.take(self.rows, ops.convert_to_tensor(rows, "int32"), axis=0)[:, :-1]
        return ops.convert_to_tensor((queries[rows] - self.mean).astype("float32"))


def precise_search(
    queries: np.ndarray, points: np.ndarray, rows: np.ndarray, block_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields blocks of `rows` and the squared distances of these queries to all points, in float64."""
    if len(rows) == 0:
        return
    mean = points.mean(axis=0, dtype="float64")
    points = points - mean
    norms = np.einsum("ij,ij->i", points, points)
    block_size = min(block_size, max(1, CELLS // len(points)))
    for block in np.array_split(rows, -(-len(rows) // block_size)):
        q = queries[block] - mean
        squares = norms - 2 * q @ points.T + np.einsum("ij,ij->i", q, q)[:, None]
        yield block, np.maximum(squares, 0)


def scores(queries: Any, rows: Any) -> Any:
    """Computes `q . x_i - |x_i|^2 / 2` for all queries and points, `(queries, n)`."""
    ones = ops.ones((ops.shape(queries)[0], 1), dtype="float32")
    return precise_product(ops.concatenate([queries, ones], axis=1), ops.transpose(rows))


def largest(values: Any, count: int) -> tuple[Any, Any]:
    """Finds the largest values of each row: indices and values, both `(rows, count)`, in decreasing order.

    They lie in the `count` chunks of columns with the largest maxima. A chunk is every m-th column: the maxima are
    those of whole vectors, faster than ranking all columns.
    """
    n, columns = values.shape
    m = columns // CHUNK
    if m < 4 * count:
        indices = _ranked(values, count)
        return indices, ops.take_along_axis(values, indices, axis=1)
    chunks = _ranked(ops.max(ops.reshape(values[:, : m * CHUNK], (n, CHUNK, m)), axis=1), count)
    inside = ops.expand_dims(chunks, 1) + m * ops.reshape(ops.arange(CHUNK, dtype="int32"), (1, CHUNK, 1))
    rest = ops.broadcast_to(ops.arange(m * CHUNK, columns, dtype="int32"), (n, columns - m * CHUNK))
    indices = ops.concatenate([ops.reshape(inside, (n, CHUNK * count)), rest], axis=1)
    indices = ops.take_along_axis(indices, _ranked(ops.take_along_axis(values, indices, axis=1), count), axis=1)
    return indices, ops.take_along_axis(values, indices, axis=1)


def _ranked(values: Any, count: int) -> Any:
    # The values of `top_k` are not used: with them, JAX (0.10, CPU) sorts whole rows, 100 times slower.
    return ops.cast(ops.top_k(values, count)[1], "int32")


def _best_rows(queries: Any, rows: Any, count: int) -> Any:
    """Returns the indices of the rows with the largest scores, `(queries, count)`, in decreasing order."""
    n = rows.shape[0]
    size = tile_size(queries.shape[0], n, CHUNK) if on_cpu(rows) else n
    tiles = [
        (start, *largest(scores(queries, rows[start : start + size]), min(count, size, n - start)))
        for start in range(0, n, size)
    ]
    indices = ops.concatenate([start + indices for start, indices, _ in tiles], axis=1)
    positions = _ranked(ops.concatenate([values for *_, values in tiles], axis=1), count)
    return ops.take_along_axis(indices, positions, axis=1)


@functools.cache
def nearest_program(candidates: int) -> Callable[[Any, Any], Any]:
    """Returns the compiled search for the nearest points: squared distances and indices, both `(queries, candidates)`.

    The candidates are ranked by products; their distances are then computed from differences, which keeps all digits.
    The third result `(queries,)` is a lower bound of the squared distances to all other points, for any rounding.
    """

    def nearest(queries: Any, rows: Any) -> tuple[Any, Any, Any]:
        indices = _best_rows(queries, rows, candidates)
        found = ops.take(rows, indices, axis=0)
        distances = ops.sum(ops.square(found[..., :-1] - ops.expand_dims(queries, 1)), axis=-1)
        last = ops.sum(queries * found[:, -1, :-1], axis=1) + found[:, -1, -1]
        norms, longest = ops.sum(ops.square(queries), axis=1), ops.max(ops.abs(rows[:, -1]))
        epsilon = EPSILON if on_cpu(rows) else TRUNCATION * EPSILON
        rounding = 2 * epsilon * (rows.shape[1] + 3) * (norms + 4 * longest)
        return distances, indices, norms - 2 * last - rounding

    return compiled(None, nearest)


SPARE = 4  # candidates beyond k, since the ranking by products may get the order wrong


@keras_gen_export("keras_gen.ops.nearest_neighbors")
def nearest_neighbors(
    queries: Any,
    points: Any = None,
    k: int = 5,
    block_size: int = 1024,
    metric: str = "euclidean",
    verbose: str | int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the exact k nearest neighbours of each query.

    For each block of queries, one matrix product ranks all points, after the mean is subtracted from the data, and the
    distances of the candidates are then computed from differences. Memory holds a float32 copy of the points and
    `block_size x n` products, on a CPU 128 MB at most, elsewhere 1 GB and a share of what is free, never `n x n`.

    Args:
        queries: `(m, dim)`, arrays or tensors.
        points: `(n, dim)`, or `None`: the queries themselves, and then no point is its own neighbour. It is excluded by
            its index, so that two equal points find each other. Defaults to `None`.
        k: int >= 1, at most the number of other points. Defaults to `5`.
        block_size: int >= 1. Number of queries processed at a time; fewer if their products with all points would take
            more memory than that, on a CPU with more than 32,768 points. Defaults to `1024`.
        metric: `"euclidean"`, `"cosine"`, or `"precomputed"`: then the queries are a distance matrix `(m, n)`, and
            `points` is `None`; the point itself is excluded if the matrix is square. Defaults to `"euclidean"`.
        verbose: `"auto"`, 0 or 1: whether to show progress. Defaults to `0`.

    Returns:
        distances: array `(m, k)`, nearest first: squared for `"euclidean"`, `1 - cos` for `"cosine"`, matrix entries
            for `"precomputed"`. Float64 for points of a magnitude whose squares float32 cannot hold, else float32.
        indices: int32 array `(m, k)`.

    Raises:
        ValueError: if there are fewer than k other points, an array is not two-dimensional or not finite, or an
            argument is outside its range.

    Example:

    >>> distances, indices = keras_gen.ops.nearest_neighbors(np.random.normal(size=(1000, 64)), k=3)

    Reference: https://kexue.fm/archives/9147.
    """
    check_choice("metric", metric, METRICS)
    check_integer("k", k)
    check_integer("block_size", block_size)
    check_verbose(verbose)
    itself = points is None
    queries = as_points("queries", queries)
    if metric == "precomputed":
        check(itself, "points", "be None for a distance matrix", "a value")
        return _nearest_in_matrix(queries, k, block_size)
    points = queries if itself else as_points("points", points)
    dim = queries.shape[1]
    check(points.shape[1] == dim, "points", f"have shape (n, {dim}), like the queries", f"shape {points.shape}")
    _check_number(k, len(points) - itself)
    if metric == "cosine":
        queries = unit_rows("queries", queries)
        points = queries if itself else unit_rows("points", points)
    exponent, [queries, points] = in_range(queries, points)

    candidates = min(k + itself + SPARE, len(points))
    own = None if itself else queries
    distances, indices, beyond = Index(points).search(nearest_program(candidates), own, block_size, verbose)
    distances, indices = _nearest_of(distances, indices, k, itself)
    # Far from the mean, rounding errors of products may exceed distances: uncertain queries are recomputed.
    unsure = np.flatnonzero((distances[:, -1] > beyond) & (candidates < len(points)))
    for rows, squares in precise_search(queries, points, unsure, block_size):
        if itself:
            squares[np.arange(len(rows)), rows] = np.inf
        found = np.argpartition(squares, k - 1)[:, :k].astype("int32")
        offsets = queries[rows][:, None].astype("float64") - points[found]
        distances[rows], indices[rows] = _nearest_of(np.square(offsets).sum(axis=-1), found, k, False)
    if metric == "cosine":
        distances /= 2  # |a - b|^2 = 2 - 2 cos for unit vectors
    if exponent:
        distances = np.ldexp(distances.astype("float64"), 2 * exponent)
    return distances, indices


def _nearest_in_matrix(matrix: np.ndarray, k: int, block_size: int) -> tuple[np.ndarray, np.ndarray]:
    itself = matrix.shape[0] == matrix.shape[1]
    _check_number(k, matrix.shape[1] - itself)
    candidates = min(k + itself, matrix.shape[1])
    blocks = even_batches(len(matrix), block_size)
    # Copied, since a slice would keep its whole block in memory.
    parts = [np.argpartition(matrix[rows], candidates - 1)[:, :candidates].astype("int32") for rows in blocks]
    indices = np.concatenate(parts)[: len(matrix)]
    return _nearest_of(np.take_along_axis(matrix, indices, axis=1), indices, k, itself)


def _check_number(k: int, others: int) -> None:
    check(k <= others, "k", f"be at most the number of other points, {others}", k)


def _nearest_of(distances: np.ndarray, indices: np.ndarray, k: int, itself: bool) -> tuple[np.ndarray, np.ndarray]:
    """Sorts candidates by distance, ties by index, without the point itself, and keeps k."""
    own = (indices == np.arange(len(indices))[:, None]) & itself
    order = np.lexsort((indices, distances, own))[:, :k]
    return np.take_along_axis(distances, order, axis=1), np.take_along_axis(indices, order, axis=1)


CLOSE = 1e-6  # squared distance over squared norms below which products are not precise enough


@keras_gen_export("keras_gen.ops.pairwise_distances")
def pairwise_distances(x: Any, metric: str = "euclidean") -> np.ndarray:
    """Computes the pairwise distances of a set of points in float64, for the hubness reduction methods.

        |x_i - x_j|   or   1 - cos(x_i, x_j)

    The full matrix is held in memory; `nearest_neighbors` and `k_occurrence` do not need it.

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
    exponent, [x] = in_range(x)
    x = unit_rows("x", x) if metric == "cosine" else x - x.mean(axis=0)
    norms = np.einsum("ij,ij->i", x, x)
    sums = norms[:, None] + norms
    squares = sums - 2 * x @ x.T
    squares = (squares + squares.T) / 2
    # Products lose the digits of small distances, and separate equal points: these are computed from differences.
    near = squares < CLOSE * sums
    for row in np.flatnonzero(near.any(axis=1)):
        squares[row, near[row]] = np.square(x[near[row]] - x[row]).sum(axis=1)
    return squares / 2 if metric == "cosine" else np.ldexp(np.sqrt(squares), exponent)
