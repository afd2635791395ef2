"""k-means in a compiled function, for the first codes of a codebook."""

from typing import Any

import keras
from keras import ops

from keras_gen.core.compiled import sequential_loop
from keras_gen.quantization.nearest_code import nearest_code


def random_rows(x: Any, weights: Any, num_rows: int, seed: Any) -> Any:
    """Picks rows of `x` whose weight is 1, one at random from each of `num_rows` equal stretches of them.

    So no row comes twice unless there are fewer than `num_rows`, and no permutation of all of them is needed.

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
    place = ops.arange(num_rows, dtype="float32") + keras.random.uniform((num_rows,), dtype="float32", seed=seed)
    rank = ops.cast(ops.floor(place / num_rows * ops.cast(total, "float32")), "int32")
    rank = ops.minimum(rank, total - 1)
    rows = ops.searchsorted(running, rank, side="right")
    return ops.take(x, ops.minimum(ops.cast(rows, "int32"), ops.shape(x)[0] - 1), axis=0)


def distant_rows(x: Any, weights: Any, draws: Any) -> Any:
    """Picks rows of `x` with probability `weight |x - nearest row picked before|^2`, one after the other (k-means++).

    So groups of rows that lie far apart get a row each. If all have been picked, some come again.

    Args:
        x: float32 `(n, dim)`.
        weights: float32 `(n,)`, 0 or 1.
        draws: float32 `(num_rows,)`, from U(0, 1). Not a generator: that must not advance inside a `cond`.

    Returns:
        `(num_rows, dim)`.

    Reference: Arthur and Vassilvitskii 2007, SODA.
    """
    num_rows = draws.shape[0]

    def step(i: Any, state: tuple[Any, Any]) -> tuple[Any, Any]:
        rows, distances = state
        mass = weights * distances
        running = ops.cumsum(ops.where(ops.sum(mass) > 0, mass, weights))
        # Less than 1 by more than a rounding, so that no row without mass is picked.
        place = ops.expand_dims(0.999999 * draws[i] * running[-1], 0)
        picked = ops.cast(ops.searchsorted(running, place, side="right"), "int32")
        row = ops.take(x, ops.minimum(picked, ops.shape(x)[0] - 1), axis=0)
        rows = ops.where(ops.expand_dims(ops.arange(num_rows) == i, -1), row, rows)
        distance = ops.sum(ops.square(x - row), axis=-1)
        return rows, ops.where(i == 0, distance, ops.minimum(distances, distance))

    rows = ops.zeros((num_rows, x.shape[-1]))
    return sequential_loop(0, num_rows, step, (rows, ops.ones_like(weights)))[0]


def cluster_sums(x: Any, weights: Any, indices: Any, num_codes: int) -> tuple[Any, Any]:
    """Returns how many rows each code has, and their sums: float32 `(num_codes,)` and `(num_codes, dim)`."""
    counts = ops.segment_sum(weights, indices, num_codes)
    return counts, ops.segment_sum(x * ops.expand_dims(weights, -1), indices, num_codes)


def kmeans(x: Any, weights: Any, centers: Any, iterations: int) -> Any:
    """Moves each of the `centers` to the mean of the rows nearest to it, `iterations` times (Lloyd's algorithm).

    A center without rows stays where it is.

    Args:
        x: float32 `(n, dim)`.
        weights: float32 `(n,)`, 0 for rows that do not count, else 1.
        centers: float32 `(num_codes, dim)`, the first ones.
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
