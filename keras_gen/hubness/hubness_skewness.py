from typing import Any

from keras_gen.export import keras_gen_export
from keras_gen.hubness.counts import as_counts


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
