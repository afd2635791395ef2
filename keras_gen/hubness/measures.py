"""Hubness measures, computed from the k-occurrences of all points."""

from typing import Any

import numpy as np

from keras_gen.core.checks import check, check_integer, check_positive, real_array
from keras_gen.export import keras_gen_export


def as_counts(counts: Any) -> np.ndarray:
    """Returns counts as a float64 array `(n,)`, after checking that they are valid."""
    counts = real_array("counts", counts)
    is_vector = counts.ndim == 1 and counts.size > 0 and counts.dtype.kind in "iuf"
    check(is_vector, "counts", "be numbers of shape (n,)", f"{counts.dtype} of shape {counts.shape}")
    is_nonnegative = bool(np.isfinite(counts).all()) and counts.min() >= 0 and counts.max() > 0
    check(is_nonnegative, "counts", "be finite and >= 0, and not all 0", f"a minimum of {counts.min()}")
    return counts.astype("float64")


@keras_gen_export("keras_gen.ops.hubness_skewness")
def hubness_skewness(counts: Any) -> float:
    """Computes the skewness of k-occurrences: 0 if they are symmetric about k, above 1 if there are hubs.

        mean((N - mean N)^3) / mean((N - mean N)^2)^(3/2)

    It has no upper bound and is dominated by a few points: two samples of one distribution may differ by a factor of 2.

    Args:
        counts: `(n,)`, from `k_occurrence`.

    Returns:
        A float; 0 if all counts are equal.

    Raises:
        ValueError: if `counts` is not a vector of numbers >= 0.

    Reference: Radovanovic et al. 2010, "Hubs in Space", JMLR 11, equation 1.
    """
    counts = as_counts(counts)
    if counts.min() == counts.max():  # rounding errors of the mean would give nonzero deviations
        return 0.0
    deviation = counts - counts.mean()
    return float((deviation**3).mean() / (deviation**2).mean() ** 1.5)


@keras_gen_export("keras_gen.ops.robin_hood_index")
def robin_hood_index(counts: Any) -> float:
    """Computes the fraction of all k-occurrences to redistribute so that all points have the same count.

        sum |N - mean N| / (2 sum N)

    Args:
        counts: `(n,)`, from `k_occurrence`.

    Returns:
        A float in [0, 1): 0 without hubness, towards 1 if few points have all counts.

    Raises:
        ValueError: if `counts` is not a vector of numbers >= 0.

    Reference: Feldbauer et al. 2018, "Fast approximate hubness reduction for large high-dimensional data".
    """
    counts = as_counts(counts)
    return float(np.abs(counts - counts.mean()).sum() / (2 * counts.sum()))


@keras_gen_export("keras_gen.ops.gini_index")
def gini_index(counts: Any) -> float:
    """Computes the Gini index of k-occurrences: their mean difference over all pairs, relative to twice the mean.

        sum_ij |N_i - N_j| / (2 n sum_i N_i) = sum_i (2 i - n - 1) N_(i) / (n sum_i N_i),   N_(1) <= N_(2) <= ...

    Args:
        counts: `(n,)`, from `k_occurrence`.

    Returns:
        A float in [0, 1): 0 without hubness, towards 1 if few points have all counts.

    Raises:
        ValueError: if `counts` is not a vector of numbers >= 0.

    Reference: Feldbauer et al. 2018, "Fast approximate hubness reduction for large high-dimensional data".
    """
    counts = np.sort(as_counts(counts))
    n = len(counts)
    return float((2 * np.arange(1, n + 1) - n - 1) @ counts / (n * counts.sum()))


@keras_gen_export("keras_gen.ops.antihub_rate")
def antihub_rate(counts: Any) -> float:
    """Computes the fraction of anti-hubs, points that are not a neighbour of any other point.

        #{i: N_k(x_i) = 0} / n

    Args:
        counts: `(n,)`, from `k_occurrence`.

    Returns:
        A float in [0, 1).

    Raises:
        ValueError: if `counts` is not a vector of numbers >= 0.

    Reference: Radovanovic et al. 2010, "Hubs in Space", JMLR 11.
    """
    return float((as_counts(counts) == 0).mean())


@keras_gen_export("keras_gen.ops.hub_occurrence")
def hub_occurrence(counts: Any, k: int, hub_size: float = 2.0) -> float:
    """Computes the fraction of all neighbour list entries that are hubs.

        sum {N_k(x_i): N_k(x_i) >= hub_size k} / sum_i N_k(x_i)

    Args:
        counts: `(n,)`, from `k_occurrence`.
        k: int >= 1. The k of the counts.
        hub_size: float > 0. Minimum count of a hub, as a multiple of k. Defaults to `2.0`.

    Returns:
        A float in [0, 1].

    Raises:
        ValueError: if an argument is outside its range.

    Reference: Feldbauer et al. 2018, "Fast approximate hubness reduction for large high-dimensional data".
    """
    counts = as_counts(counts)
    check_integer("k", k)
    check_positive("hub_size", hub_size)
    return float(counts[counts >= hub_size * k].sum() / counts.sum())
