"""Measures of hubness, of the k-occurrences of all points."""

from typing import Any

import numpy as np

from keras_gen.core.checks import check, check_integer, is_number
from keras_gen.export import keras_gen_export


def as_counts(counts: Any) -> np.ndarray:
    """Returns counts as a float64 array `(n,)`; refuses what cannot be counts."""
    counts = np.asarray(counts)
    valid = counts.ndim == 1 and counts.size > 0 and counts.dtype.kind in "iuf"
    check(valid, "counts", "be numbers of shape (n,)", f"{counts.dtype} of shape {counts.shape}")
    valid = bool(np.isfinite(counts).all()) and counts.min() >= 0 and counts.max() > 0
    check(valid, "counts", "be finite and >= 0, not all of them 0", f"a minimum of {counts.min()}")
    return counts.astype("float64")


@keras_gen_export("keras_gen.ops.hubness_skewness")
def hubness_skewness(counts: Any) -> float:
    """Computes the skewness of k-occurrences: 0 where they are symmetric about k, above 1 where there are hubs.

        mean((N - mean N)^3) / mean((N - mean N)^2)^(3/2)

    It has no upper bound, and a few points decide it: of two equal distributions one may have twice the other's.

    Args:
        counts: `(n,)`, from `k_occurrence`.

    Returns:
        A float; 0 where all counts are equal.

    Raises:
        ValueError: if `counts` is not a vector of numbers >= 0.

    Reference: Radovanovic et al. 2010, "Hubs in Space", JMLR 11, equation 1.
    """
    counts = as_counts(counts)
    if counts.min() == counts.max():  # the mean of equal numbers may be off by a rounding, and so be no deviation of 0
        return 0.0
    deviation = counts - counts.mean()
    return float((deviation**3).mean() / (deviation**2).mean() ** 1.5)


@keras_gen_export("keras_gen.ops.robin_hood_index")
def robin_hood_index(counts: Any) -> float:
    """Computes the share of all k-occurrences that would have to change hands for all points to have the same.

        sum |N - mean N| / (2 sum N)

    Args:
        counts: `(n,)`, from `k_occurrence`.

    Returns:
        A float in [0, 1): 0 without hubness, towards 1 where few points have all.

    Raises:
        ValueError: if `counts` is not a vector of numbers >= 0.

    Reference: Feldbauer et al. 2018, "Fast approximate hubness reduction for large high-dimensional data".
    """
    counts = as_counts(counts)
    return float(np.abs(counts - counts.mean()).sum() / (2 * counts.sum()))


@keras_gen_export("keras_gen.ops.gini_index")
def gini_index(counts: Any) -> float:
    """Computes the Gini index of k-occurrences: their mean difference, over all pairs, as a share of twice the mean.

        sum_ij |N_i - N_j| / (2 n sum_i N_i) = sum_i (2 i - n - 1) N_(i) / (n sum_i N_i),   N_(1) <= N_(2) <= ...

    Args:
        counts: `(n,)`, from `k_occurrence`.

    Returns:
        A float in [0, 1): 0 without hubness, towards 1 where few points have all.

    Raises:
        ValueError: if `counts` is not a vector of numbers >= 0.

    Reference: Feldbauer et al. 2018, "Fast approximate hubness reduction for large high-dimensional data".
    """
    counts = np.sort(as_counts(counts))
    n = len(counts)
    return float((2 * np.arange(1, n + 1) - n - 1) @ counts / (n * counts.sum()))


@keras_gen_export("keras_gen.ops.antihub_rate")
def antihub_rate(counts: Any) -> float:
    """Computes the share of points that are nobody's neighbour.

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
    """Computes the share of all places in lists of neighbours that hubs take.

        sum {N_k(x_i): N_k(x_i) >= hub_size k} / sum_i N_k(x_i)

    Args:
        counts: `(n,)`, from `k_occurrence`.
        k: int >= 1. The k of the counts.
        hub_size: float > 0. How many times k makes a hub. Defaults to `2.0`.

    Returns:
        A float in [0, 1].

    Raises:
        ValueError: if an argument is outside its range.

    Reference: Feldbauer et al. 2018, "Fast approximate hubness reduction for large high-dimensional data".
    """
    counts = as_counts(counts)
    check_integer("k", k)
    check(is_number(hub_size) and hub_size > 0, "hub_size", "be > 0", repr(hub_size))
    return float(counts[counts >= hub_size * k].sum() / counts.sum())
