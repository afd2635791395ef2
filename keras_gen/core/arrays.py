"""Formulas that are written once for NumPy's float64 and for tensors inside a compiled function."""

from typing import Any

import numpy as np
from keras import ops

NUMPY = np.ndarray | np.generic | int | float | list | tuple | range


def namespace(x: Any) -> Any:
    """Returns the module with `exp`, `sqrt`, ... for `x`: `numpy` for numbers, lists and arrays, else `keras.ops`."""
    return np if isinstance(x, NUMPY) else ops


def real(x: Any) -> Any:
    """Returns numbers, lists and arrays as float64 NumPy, tensors as they are."""
    return np.asarray(x, "float64") if isinstance(x, NUMPY) else x
