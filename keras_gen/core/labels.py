"""Integer labels."""

from typing import Any

import numpy as np
from keras import ops

from keras_gen.core.checks import check


def as_labels(name: str, labels: Any, n: int, num_classes: int | None) -> np.ndarray:
    """Returns labels as an int32 array `(n,)`; one int stands for all. Refuses others than 0 .. num_classes - 1."""
    labels = np.asarray(ops.convert_to_numpy(labels))
    labels = np.full(n, labels) if labels.ndim == 0 else labels
    valid = labels.dtype.kind in "iu" and labels.shape == (n,)
    check(valid, name, f"be integer labels of shape ({n},)", f"{labels.dtype} of shape {labels.shape}")
    highest = np.inf if num_classes is None else num_classes - 1
    outside = np.unique(labels[(labels < 0) | (labels > highest)])
    check(outside.size == 0, name, f"be labels in 0 .. {highest}", outside)
    return labels.astype("int32")
