"""Checks and preparation of sets of points."""

from typing import Any

import numpy as np
from keras import ops

from keras_gen.core.checks import check

METRICS = ("euclidean", "cosine", "precomputed")


def as_points(name: str, x: Any) -> np.ndarray:
    """Returns points as an array `(n, dim)`; refuses other shapes, and values that are not finite."""
    x = x if isinstance(x, np.ndarray) else np.asarray(ops.convert_to_numpy(x))  # which copies arrays, too
    check(x.ndim == 2 and x.size > 0, name, "have shape (n, dim)", f"shape {x.shape}")
    check(x.dtype.kind in "fiu", name, "be real numbers", f"dtype {x.dtype}")
    # A sum is finite only if its terms are: no mask of the size of the data.
    broken = int((~np.isfinite(x.sum(axis=1, dtype="float64"))).sum())
    check(broken == 0, name, "be finite", f"NaN or infinite values in {broken} of {len(x)} rows")
    return x


def unit_rows(name: str, x: np.ndarray) -> np.ndarray:
    """Returns points scaled to length 1; refuses those at the origin, which have no direction."""
    norms = np.sqrt(np.einsum("ij,ij->i", x, x, dtype="float64"))
    zeros = int((norms == 0).sum())
    check(zeros == 0, name, "have no rows of zeros, for cosine distances", f"{zeros} of {len(x)}")
    return x / norms[:, None].astype(np.result_type(x.dtype, "float32"))
