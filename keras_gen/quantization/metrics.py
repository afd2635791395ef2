"""Metrics of code usage."""

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.checks import check, check_integer
from keras_gen.core.torch.kernels import segment_sum
from keras_gen.export import keras_gen_export


class LayerStatistic(keras.metrics.Metric):
    """A metric computed from statistics that a layer accumulates in its own weights.

    The metric's own variables do not work: on JAX, Keras passes them to a model's loss, but not to its layers. It
    passes weights to layers, but not to metrics; on JAX the value is therefore NaN during an epoch, and correct at its
    end.

    Args:
        name: str.
        weights: function that returns the layer's weights, which are reset to 0 at the start of each epoch.
        statistic: function from the values of these weights to the value of the metric.
    """

    def __init__(self, name: str, weights: Callable[[], list[keras.Variable]], statistic: Callable[[list[Any]], Any]):
        super().__init__(name=name)
        self.layer_weights = weights
        self.statistic = statistic

    def update_state(self, *args: Any, **kwargs: Any) -> None:
        """Does nothing: the layer accumulates the statistics."""

    def reset_state(self) -> None:
        for weight in self.layer_weights():
            weight.assign(ops.zeros(weight.shape))

    def result(self) -> Any:
        with keras.StatelessScope() as scope:
            outer = scope.original_scope
        weights = self.layer_weights()
        is_hidden = keras.backend.backend() == "jax" and outer is not None
        if is_hidden and any(outer.get_current_value(weight) is None for weight in weights):
            return ops.convert_to_tensor(_hidden_value())
        return self.statistic([ops.convert_to_tensor(weight) for weight in weights])


def _hidden_value() -> float:
    """Returns NaN, for a value that is not known, or 0 where JAX is told to stop at any NaN (`jax_debug_nans`)."""
    import jax

    stops: bool = jax.config.jax_debug_nans  # type: ignore[attr-defined]  # JAX adds its options at run time
    return 0.0 if stops else math.nan


def count_codes(indices: Any, weights: Any, sizes: tuple[int, ...]) -> Any:
    """Counts how often each code is used, float32 `(sum(sizes),)`, concatenated over the codebooks.

    Args:
        indices: int32 `(...)`, or `(..., len(sizes))` if there are several codebooks.
        weights: float32, of the shape of `indices`.
        sizes: the number of codes of each codebook.
    """
    if len(sizes) > 1:
        indices = ops.add(indices, np.cumsum([0, *sizes[:-1]]).astype("int32"))
    return segment_sum(ops.reshape(weights, (-1,)), ops.reshape(indices, (-1,)), sum(sizes))


def split_counts(counts: Any, sizes: tuple[int, ...]) -> list[Any]:
    """Splits the counts of all codes into those of each codebook."""
    ends = np.cumsum(sizes).tolist()
    return [counts[end - size : end] for size, end in zip(sizes, ends, strict=True)]


class CodeCounts(keras.metrics.Metric):
    """Base class of metrics of code usage: counts the codes since the last `reset_state`."""

    def __init__(self, num_codes: int | tuple[int, ...], name: str | None = None, dtype: Any = None):
        super().__init__(name=name, dtype=dtype)
        sizes = num_codes if isinstance(num_codes, tuple | list) else (num_codes,)
        check(len(sizes) > 0, "num_codes", "hold at least one number", num_codes)
        self.num_codes = tuple(check_integer("num_codes", size) for size in sizes)
        self.counts = self.add_variable((sum(self.num_codes),), "zeros", dtype="float32", name="counts")

    def update_state(self, indices: Any, sample_weight: Any = None) -> None:
        """Counts indices, weighted by `sample_weight` (1 by default, else of the shape of `indices`)."""
        indices = ops.cast(indices, "int32")
        weights = (
            ops.ones(ops.shape(indices), "float32") if sample_weight is None else ops.cast(sample_weight, "float32")
        )
        self.counts.assign_add(count_codes(indices, weights, self.num_codes))

    def counts_by_codebook(self) -> list[Any]:
        """Returns the counts of each codebook."""
        return split_counts(ops.convert_to_tensor(self.counts), self.num_codes)

    def get_config(self) -> dict[str, Any]:
        own = {"num_codes": self.num_codes, "name": self.name, "dtype": keras.saving.serialize_keras_object(self.dtype)}
        return {**super().get_config(), **own}


@keras_gen_export("keras_gen.metrics.CodePerplexity")
class CodePerplexity(CodeCounts):
    """Perplexity of the codes, their effective number: `exp(-sum_k p_k log p_k)`, between 1 and `num_codes`.

    `p` are the code frequencies since the last `reset_state`, such as over an epoch; a mean over batches would be
    smaller. With several codebooks, the mean over them.

    Args:
        num_codes: int >= 1, or a tuple with one int for each entry along the last axis of the indices.
        name: str or `None`. Defaults to `None`.

    Raises:
        ValueError: if a number of codes is less than 1.

    Example:

    >>> metric = keras_gen.metrics.CodePerplexity(4)
    >>> metric.update_state([0, 1, 0, 1]); metric.result()      # 2.0

    Reference: van den Oord et al. 2017, arXiv:1711.00937.
    """

    def result(self) -> Any:
        return perplexity(self.counts_by_codebook())


def perplexity(counts: list[Any]) -> Any:
    """Returns the perplexity, averaged over the codebooks."""
    return sum(_perplexity(part) for part in counts) / len(counts)


def _perplexity(counts: Any) -> Any:
    p = counts / ops.maximum(ops.sum(counts), 1.0)
    return ops.exp(-ops.sum(p * ops.log(ops.maximum(p, 1e-30))))


@keras_gen_export("keras_gen.metrics.CodeUsage")
class CodeUsage(CodeCounts):
    """Fraction of codes that are used at least once: `mean_k [count_k > 0]`, in [0, 1].

    Counts all codes since the last `reset_state`, such as over an epoch. With several codebooks, the mean over them.

    Args:
        num_codes: int >= 1, or a tuple with one int for each entry along the last axis of the indices.
        name: str or `None`. Defaults to `None`.

    Raises:
        ValueError: if a number of codes is less than 1.

    Reference: van den Oord et al. 2017, arXiv:1711.00937.
    """

    def result(self) -> Any:
        return usage(self.counts_by_codebook())


def usage(counts: list[Any]) -> Any:
    """Returns the fraction of codes in use, averaged over the codebooks."""
    return sum(ops.mean(ops.cast(part > 0, "float32")) for part in counts) / len(counts)
