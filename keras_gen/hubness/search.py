"""The search for neighbours, one block of queries at a time."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.batches import even_batches
from keras_gen.core.compiled import compiled
from keras_gen.core.loop import progress_bar
from keras_gen.core.torch.product import product

CELLS = 2**25  # products held at a time, 128 MB
KEPT_CELLS = 2**23  # 32 MB: glibc gives larger buffers back at once, and gets each anew, page by page
CHUNK = 16  # columns of which only the largest is ranked at first
EPSILON = 2.0**-24  # the relative rounding of float32


class Index:
    """Points laid out so that one matrix product ranks them: row `i` is `(x_i, -|x_i|^2 / 2)`.

    For a query `q`, the product of `(q, 1)` with row `i` is `q . x_i - |x_i|^2 / 2`, largest for the nearest point.
    The mean is taken from points and queries before anything is rounded to float32: far from the origin the products
    would have no digits left for the differences.

    Args:
        points: array `(n, dim)`.
        reach: array `(n,)` or `None`. Squared distances to take off each point's: then the product is largest for the
            point whose ball is the nearest. Defaults to `None`.
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
        self, program: Callable[[Any, Any], Any], queries: np.ndarray, block_size: int, verbose: str | int
    ) -> Iterator[list[np.ndarray]]:
        """Yields what `program(block of queries, rows)` gives; the last block is filled up with the last query."""
        block_size = min(block_size, max(1, CELLS // len(self.rows)))
        blocks = list(even_batches(len(queries), block_size))
        bar = progress_bar(len(blocks), verbose)
        for rows in blocks:
            block = (queries[rows] - self.mean).astype("float32")
            results = program(ops.convert_to_tensor(block), self.rows)
            yield [np.array(ops.convert_to_numpy(result)) for result in results]
            bar.add(1)


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
    return product(ops.concatenate([queries, ones], axis=1), ops.transpose(rows))


def largest(values: Any, count: int) -> tuple[Any, Any]:
    """Finds the largest values of each row: indices and values, both `(rows, count)`, in falling order.

    They lie in the `count` chunks of columns that have the largest maxima. A chunk is every m-th column: its maximum is
    one of whole vectors, faster than ranking all columns.
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
    # The values of `top_k` are not used: on JAX (0.10, CPU) it then sorts whole rows, 100 times slower.
    return ops.cast(ops.top_k(values, count)[1], "int32")


def _best_rows(queries: Any, rows: Any, count: int) -> Any:
    """Returns the indices of the rows of the largest scores, `(queries, count)`, in falling order."""
    n, size = rows.shape[0], _tile(queries.shape[0], rows.shape[0])
    tiles = [
        (start, *largest(scores(queries, rows[start : start + size]), min(count, size, n - start)))
        for start in range(0, n, size)
    ]
    indices = ops.concatenate([start + indices for start, indices, _ in tiles], axis=1)
    places = _ranked(ops.concatenate([values for *_, values in tiles], axis=1), count)
    return ops.take_along_axis(indices, places, axis=1)


def _tile(queries: int, n: int) -> int:
    """Returns how many points are ranked together: all, but on PyTorch those whose products are kept in memory."""
    return max(CHUNK, KEPT_CELLS // queries // CHUNK * CHUNK) if keras.backend.backend() == "torch" else n


@functools.cache
def nearest_program(candidates: int) -> Callable[[Any, Any], Any]:
    """Returns the compiled search for the nearest points: squared distances and indices, both `(queries, candidates)`.

    The candidates are ranked by products; their distances are then taken from differences, which keeps all digits. The
    third result `(queries,)` is what the squared distances of all other points are not below, whatever the rounding.
    """

    def nearest(queries: Any, rows: Any) -> tuple[Any, Any, Any]:
        indices = _best_rows(queries, rows, candidates)
        found = ops.take(rows, indices, axis=0)
        distances = ops.sum(ops.square(found[..., :-1] - ops.expand_dims(queries, 1)), axis=-1)
        last = ops.sum(queries * found[:, -1, :-1], axis=1) + found[:, -1, -1]
        norms, longest = ops.sum(ops.square(queries), axis=1), ops.max(ops.abs(rows[:, -1]))
        rounding = 2 * EPSILON * (rows.shape[1] + 3) * (norms + 4 * longest)
        return distances, indices, norms - 2 * last - rounding

    return compiled(None, nearest)
