from typing import Any

from keras_gen.export import keras_gen_export
from keras_gen.hubness.counts import as_counts


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
