from typing import Any

import numpy as np
from keras import ops

from keras_gen.core.checks import check
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.ops.unpack_sequences")
def unpack_sequences(values: Any, segments: Any) -> list[np.ndarray]:
    """Takes packed rows apart, in the order in which `pack_sequences` was given the sequences.

    Where each row counts its segments from 1, the first ones of all rows come first, then the second ones, and so on.

    Args:
        values: `(rows, length, ...)`, the packed codes, or what was computed of each.
        segments: integers `(rows, length)`, as `pack_sequences` gave them.

    Returns:
        list of arrays `(length of the sequence, ...)`.

    Raises:
        ValueError: if `values` and `segments` have different shapes.

    Example:

    >>> keras_gen.ops.unpack_sequences(packed["codes"], packed["segments"])

    Reference: Krell et al. 2021, arXiv:2107.02027.
    """
    values, segments = (np.asarray(ops.convert_to_numpy(array)) for array in (values, segments))
    fits = segments.ndim == 2 and values.shape[:2] == segments.shape
    check(fits, "values", f"have shape {segments.shape} or more, as segments", f"shape {values.shape}")
    # By segment, then by row: rows of others than `pack_sequences` may count their segments anew.
    owner = (segments.astype("int64") * len(segments) + np.arange(len(segments))[:, None]).reshape(-1)
    order = np.argsort(owner, kind="stable")  # stable: within a segment, the order of the row
    order = order[segments.reshape(-1)[order] > 0]
    if len(order) == 0:
        return []
    values = values.reshape(-1, *values.shape[2:])[order]
    return np.split(values, np.flatnonzero(np.diff(owner[order])) + 1)
