from typing import Any

import numpy as np

from keras_gen.core.checks import check, check_flag, check_integer
from keras_gen.export import keras_gen_export
from keras_gen.hubness.neighbors import as_points, nearest_neighbors, unit_rows


@keras_gen_export("keras_gen.ops.k_occurrence")
def k_occurrence(
    x: Any,
    k: int = 5,
    include_self: bool = False,
    block_size: int = 1024,
    metric: str = "euclidean",
    verbose: str | int = 0,
) -> np.ndarray:
    """Counts how often each point is among the k nearest neighbours of other points.

        N_k(x_i) = #{j != i: x_i is one of the k nearest neighbours of x_j},   sum_i N_k(x_i) = n k

    The mean is k in any dimension. In high dimensions a few points, the hubs, have most of the counts, and many, the
    anti-hubs, have none.

    Args:
        x: `(n, dim)`, array or tensor; for `"precomputed"` a distance matrix `(n, n)`.
        k: int >= 1, less than n. Defaults to `5`.
        include_self: bool. Whether a point is one of its own k neighbours. Defaults to `False`.
        block_size: int >= 1. Number of points processed at a time, see `nearest_neighbors`. Defaults to `1024`.
        metric: `"euclidean"`, `"cosine"` or `"precomputed"`. Defaults to `"euclidean"`.
        verbose: `"auto"`, 0 or 1: whether to show progress. Defaults to `0`.

    Returns:
        int32 array `(n,)`.

    Raises:
        ValueError: if there are fewer than k + 1 points, `x` is not two-dimensional or not finite, or an argument is
            outside its range.

    Example:

    >>> counts = keras_gen.ops.k_occurrence(np.random.default_rng(0).normal(size=(10_000, 512)))
    >>> counts.mean(), counts.max()           # 5.0, 500 or so: a hub

    Reference: https://kexue.fm/archives/9147; Radovanovic et al. 2010, "Hubs in Space", JMLR 11.
    """
    check_integer("k", k)
    check_flag("include_self", include_self)
    x = as_points("x", x)
    n, columns = x.shape
    check(k < n, "x", f"have at least k + 1 = {k + 1} rows", f"shape {x.shape}")
    check(metric != "precomputed" or columns == n, "x", "be a square distance matrix", f"shape {x.shape}")
    if metric == "cosine":
        x, metric = unit_rows("x", x), "euclidean"  # unit vectors have the same nearest neighbours
    # A point that is its own nearest neighbour has k - 1 neighbours among the other points.
    neighbors = k - 1 if include_self and k != 1 else k
    _, indices = nearest_neighbors(x, None, neighbors, block_size, metric, verbose)
    if include_self:
        itself = np.arange(n, dtype="int32")[:, None]
        indices = itself if k == 1 else np.concatenate([indices, itself], axis=1)
    return np.bincount(indices.ravel(), minlength=n).astype("int32")
