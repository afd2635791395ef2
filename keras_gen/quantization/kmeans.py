"""k-means in compiled functions, for the initialization of a codebook."""

from typing import Any

import keras
from keras import ops

from keras_gen.core.compiled import sequential_loop
from keras_gen.core.torch.kernels import segment_sum
from keras_gen.quantization.nearest_code import nearest_code


def stratified_rows(x: Any, weights: Any, num_rows: int, seed: Any) -> Any:
    """Draws rows of `x` with weight 1 by stratified sampling, one from each of `num_rows` equal intervals.

    No row is drawn twice unless there are fewer than `num_rows`, and no permutation of all rows is needed.

    Args:
        x: `(n, dim)`.
        weights: `(n,)`, 0 or 1.
        num_rows: int.
        seed: int or `keras.random.SeedGenerator`.

    Returns:
        `(num_rows, dim)`.
    """
    running = ops.cumsum(ops.cast(weights, "int32"))
    total = ops.maximum(running[-1], 1)
    position = ops.arange(num_rows, dtype="float32") + keras.random.uniform((num_rows,), dtype="float32", seed=seed)
    rank = ops.cast(ops.floor(position / num_rows * ops.cast(total, "float32")), "int32")
    rank = ops.minimum(rank, total - 1)
    rows = ops.searchsorted(running, rank, side="right")
    return ops.take(x, ops.minimum(ops.cast(rows, "int32"), ops.shape(x)[0] - 1), axis=0)


def kmeans_plus_plus(x: Any, weights: Any, draws: Any) -> Any:
    """Draws rows of `x` one by one, with probability proportional to `weight |x - nearest drawn row|^2` (k-means++).

    Clusters that lie far apart thus receive a row each. Once all rows have been drawn, some are repeated.

    Args:
        x: float32 `(n, dim)`.
        weights: float32 `(n,)`, 0 or 1.
        draws: float32 `(num_rows,)`, from U(0, 1). Not a seed generator: its state must not change inside a `cond`.

    Returns:
        `(num_rows, dim)`.

    Reference: Arthur and Vassilvitskii 2007, SODA.
    """
    num_rows = draws.shape[0]

    def step(i: Any, state: tuple[Any, Any]) -> tuple[Any, Any]:
        rows, distances = state
        mass = weights * distances
        running = ops.cumsum(ops.where(ops.sum(mass) > 0, mass, weights))
        # The factor is below 1 by more than a rounding error, so that no row of zero mass is drawn.
        position = ops.expand_dims(0.999999 * draws[i] * running[-1], 0)
        drawn = ops.cast(ops.searchsorted(running, position, side="right"), "int32")
        row = ops.take(x, ops.minimum(drawn, ops.shape(x)[0] - 1), axis=0)
        rows = ops.where(ops.expand_dims(ops.arange(num_rows, dtype="int32") == i, -1), row, rows)
        distance = ops.sum(ops.square(x - row), axis=-1)
        return rows, ops.where(i == 0, distance, ops.minimum(distances, distance))

    rows = ops.zeros((num_rows, x.shape[-1]), x.dtype)
    return sequential_loop(0, num_rows, step, (rows, ops.ones_like(weights)))[0]


def cluster_sums(x: Any, weights: Any, indices: Any, num_codes: int) -> tuple[Any, Any]:
    """Returns the number of rows of each code and their sums, float32 `(num_codes,)` and `(num_codes, dim)`."""
    counts = segment_sum(weights, indices, num_codes)
    return counts, segment_sum(x * ops.expand_dims(weights, -1), indices, num_codes)


def kmeans(x: Any, weights: Any, centers: Any, iterations: int) -> Any:
    """Runs `iterations` steps of Lloyd's algorithm: each center moves to the mean of the rows nearest to it.

    A center without rows does not move.

    Args:
        x: float32 `(n, dim)`.
        weights: float32 `(n,)`, 0 for ignored rows, else 1.
        centers: float32 `(num_codes, dim)`, the initial centers.
        iterations: int.

    Returns:
        float32 `(num_codes, dim)`.
    """
    num_codes = centers.shape[0]

    def step(_: Any, centers: Any) -> Any:
        counts, sums = cluster_sums(x, weights, nearest_code(x, centers), num_codes)
        counts = ops.expand_dims(counts, -1)
        return ops.where(counts > 0, sums / ops.maximum(counts, 1.0), centers)

    return sequential_loop(0, iterations, step, centers)
