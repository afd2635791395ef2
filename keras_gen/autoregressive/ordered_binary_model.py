"""The base class of models of binary arrays whose numbers come in one ordering."""

import abc
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_gen.autoregressive.binary_model import BinaryModel, bernoulli_log_prob, two_logits
from keras_gen.core.checks import check, is_integer


class OrderedBinaryModel(BinaryModel):
    """A distribution over binary arrays, flattened and taken in an ordering.

    To write another: define `logits` of ordered vectors, and for sampling `next_logit`. `self.length` is their size.
    """

    def __init__(self, ordering: Sequence[int] | None = None, seed: int | None = None, **kwargs: Any):
        super().__init__(seed=seed, **kwargs)
        self.ordering = None if ordering is None else check_ordering("ordering", ordering)

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.order = np.arange(self.length) if self.ordering is None else np.array(self.ordering)
        rule = f"have as many entries as x has numbers, {self.length}"
        check(len(self.order) == self.length, "ordering", rule, self.ordering)

    @abc.abstractmethod
    def logits(self, x: Any) -> Any:
        """Returns the logits `(batch, length)` of ordered vectors `(batch, length)`, the i-th from `x_1 .. x_{i-1}`."""

    @abc.abstractmethod
    def next_logit(self, i: Any, before: Any, cache: Any) -> tuple[Any, Any]:
        """Returns the logit `(batch,)` of `x_i`, and the cache, from `before` = `x_{i-1}` `(batch,)`, 0 at first."""

    def log_density(self, x: Any, condition: Any = None, training: bool = False) -> Any:
        x = ops.reshape(ops.cast(x, "float32"), (-1, self.length))
        x = x if self.ordering is None else ops.take(x, self.order, axis=1)
        return bernoulli_log_prob(x, ops.cast(self.logits(x), "float32"))

    def next_logits(self, i: Any, codes: Any, cache: Any, inputs: dict[str, Any]) -> tuple[Any, Any]:
        before = ops.take(codes, self.position(ops.maximum(i - 1, 0), inputs), axis=1)
        logit, cache = self.next_logit(i, ops.cast(before, "float32") * ops.cast(i > 0, "float32"), cache)
        return two_logits(logit), cache

    def position(self, i: Any, inputs: dict[str, Any]) -> Any:
        return ops.take(ops.convert_to_tensor(self.order, "int32"), i)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "ordering": self.ordering}


def check_ordering(name: str, ordering: Any) -> list[int]:
    """Returns a permutation of 0 .. length - 1 as a list."""
    whole = isinstance(ordering, list | tuple | range | np.ndarray) and all(is_integer(i) for i in ordering)
    ordering = [int(i) for i in ordering] if whole else ordering
    permutation = whole and sorted(ordering) == list(range(len(ordering)))
    check(permutation, name, "be a permutation of 0 .. length - 1", ordering)
    return ordering
