from typing import Any

import numpy as np

from keras_gen.export import keras_gen_export
from keras_gen.hubness.counts import as_counts


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
