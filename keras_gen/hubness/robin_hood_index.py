from typing import Any

import numpy as np

from keras_gen.export import keras_gen_export
from keras_gen.hubness.counts import as_counts


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
