from typing import Any

from keras_gen.core.checks import check, check_integer, is_number
from keras_gen.export import keras_gen_export
from keras_gen.hubness.counts import as_counts


@keras_gen_export("keras_gen.ops.hub_occurrence")
def hub_occurrence(counts: Any, k: int, hub_size: float = 2.0) -> float:
    """Computes the share of all places in lists of neighbours that hubs take.

        sum {N_k(x_i): N_k(x_i) >= hub_size k} / sum_i N_k(x_i)

    Args:
        counts: `(n,)`, from `k_occurrence`.
        k: int >= 1. The k of the counts.
        hub_size: float > 0. How many times k makes a hub. Defaults to `2.0`.

    Returns:
        A float in [0, 1].

    Raises:
        ValueError: if an argument is outside its range.

    Reference: Feldbauer et al. 2018, "Fast approximate hubness reduction for large high-dimensional data".
    """
    counts = as_counts(counts)
    check_integer("k", k)
    check(is_number(hub_size) and hub_size > 0, "hub_size", "be > 0", repr(hub_size))
    return float(counts[counts >= hub_size * k].sum() / counts.sum())
