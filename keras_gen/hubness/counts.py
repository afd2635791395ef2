"""Checks of k-occurrence counts."""

from typing import Any

import numpy as np

from keras_gen.core.checks import check


def as_counts(counts: Any) -> np.ndarray:
    """Returns counts as a float64 array `(n,)`; refuses what cannot be counts."""
    counts = np.asarray(counts)
    valid = counts.ndim == 1 and counts.size > 0 and counts.dtype.kind in "iuf"
    check(valid, "counts", "be numbers of shape (n,)", f"{counts.dtype} of shape {counts.shape}")
    valid = bool(np.isfinite(counts).all()) and counts.min() >= 0 and counts.max() > 0
    check(valid, "counts", "be finite and >= 0, not all of them 0", f"a minimum of {counts.min()}")
    return counts.astype("float64")
