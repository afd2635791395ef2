"""Checks of the arrays that models and measures are given."""

from typing import Any

import numpy as np
from keras import ops

from keras_gen.core.checks import check


def finite_floats(name: str, x: Any) -> np.ndarray:
    """Returns data as a float32 array; refuses an empty array, integers, and values that are not finite."""
    x = x if isinstance(x, np.ndarray) else np.asarray(ops.convert_to_numpy(x))  # which copies arrays, too
    check(x.ndim > 0 and len(x) > 0, name, "hold at least one sample", f"shape {x.shape}")
    check(x.dtype.kind == "f", name, "be floating-point", f"dtype {x.dtype}")
    finite = np.isfinite(x).reshape(len(x), -1).all(axis=1)
    check(bool(finite.all()), name, "be finite", f"NaN or infinite values in {(~finite).sum()} of {len(x)} samples")
    return x.astype("float32", copy=False)
