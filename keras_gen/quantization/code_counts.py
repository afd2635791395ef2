from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.checks import check, check_integer


def count_codes(indices: Any, weights: Any, sizes: tuple[int, ...]) -> Any:
    """Returns how often each code is used, float32 `(sum(sizes),)`, one codebook after the other.

    Args:
        indices: int32 `(...)`, or `(..., len(sizes))` if there are several codebooks.
        weights: float32, of the shape of `indices`; how many times each counts.
        sizes: the number of codes of each codebook.
    """
    if len(sizes) > 1:
        indices = ops.add(indices, np.cumsum([0, *sizes[:-1]]).astype("int32"))
    return ops.segment_sum(ops.reshape(weights, (-1,)), ops.reshape(indices, (-1,)), sum(sizes))


def split_counts(counts: Any, sizes: tuple[int, ...]) -> list[Any]:
    """Returns the counts of each codebook."""
    ends = np.cumsum(sizes).tolist()
    return [counts[end - size : end] for size, end in zip(sizes, ends, strict=True)]


class CodeCounts(keras.metrics.Metric):
    """Base class of metrics of how often codes are used: counts them since the last `reset_state`."""

    def __init__(self, num_codes: int | tuple[int, ...], name: str | None = None, dtype: Any = None):
        super().__init__(name=name, dtype=dtype)
        sizes = num_codes if isinstance(num_codes, tuple | list) else (num_codes,)
        check(len(sizes) > 0, "num_codes", "hold at least one number", num_codes)
        self.num_codes = tuple(check_integer("num_codes", size) for size in sizes)
        self.counts = self.add_variable((sum(self.num_codes),), "zeros", dtype="float32", name="counts")

    def update_state(self, indices: Any, sample_weight: Any = None) -> None:
        """Counts indices, each `sample_weight` (1 by default, else of the shape of `indices`) times."""
        indices = ops.cast(indices, "int32")
        weights = ops.ones(ops.shape(indices)) if sample_weight is None else ops.cast(sample_weight, "float32")
        self.counts.assign_add(count_codes(indices, weights, self.num_codes))

    def counts_by_codebook(self) -> list[Any]:
        """Returns the counts of each codebook."""
        return split_counts(ops.convert_to_tensor(self.counts), self.num_codes)

    def get_config(self) -> dict[str, Any]:
        own = {"num_codes": self.num_codes, "name": self.name, "dtype": keras.saving.serialize_keras_object(self.dtype)}
        return {**super().get_config(), **own}
