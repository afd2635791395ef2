"""The base class of models of binary vectors."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_gen.autoregressive.autoregressive_model import AutoregressiveModel
from keras_gen.core.checks import check, is_integer


class BinaryModel(AutoregressiveModel):
    """A distribution over binary arrays, flattened and taken in an ordering.

        log p(x) = sum_i x_i l_i - log(1 + exp(l_i)),   l_i = logit of p(x_i = 1 | x_1 .. x_{i-1})

    To write another: define `logits` of ordered vectors, and for sampling `next_logit`. `self.length` is their size.
    """

    def __init__(self, ordering: Sequence[int] | None = None, seed: int | None = None, **kwargs: Any):
        super().__init__(2, seed=seed, **kwargs)
        self.ordering = None if ordering is None else check_ordering("ordering", ordering)

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.order = np.arange(self.length) if self.ordering is None else np.array(self.ordering)
        rule = f"have as many entries as x has numbers, {self.length}"
        check(len(self.order) == self.length, "ordering", rule, self.ordering)

    def logits(self, x: Any) -> Any:
        """Returns the logits `(batch, length)` of ordered vectors `(batch, length)`, the i-th from `x_1 .. x_{i-1}`."""
        raise NotImplementedError

    def next_logit(self, i: Any, before: Any, cache: Any) -> tuple[Any, Any]:
        """Returns the logit `(batch,)` of `x_i`, and the cache, from `before` = `x_{i-1}` `(batch,)`, 0 at first."""
        raise NotImplementedError

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

    def check_values(self, name: str, x: np.ndarray) -> None:
        check(x.dtype.kind in "biuf", name, "be numbers", f"dtype {x.dtype}")
        binary = (x == 0) | (x == 1)
        check(bool(binary.all()), name, "be binary, 0 or 1", f"values such as {x[~binary].flat[:1].tolist()}")

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["num_codes"]
        return {**config, "ordering": self.ordering}


def bernoulli_log_prob(x: Any, logits: Any) -> Any:
    """Returns the log-probability `(batch,)` of independent binary numbers `(batch, length)`, given their logits."""
    return ops.sum(x * logits - ops.softplus(logits), axis=1)


def two_logits(logit: Any) -> Any:
    """Returns the logits `(batch, 2)` of 0 and 1 from that of 1, `(batch,)`."""
    logit = ops.cast(logit, "float32")
    return ops.stack([ops.zeros_like(logit), logit], axis=1)


def check_ordering(name: str, ordering: Any) -> list[int]:
    """Returns a permutation of 0 .. length - 1 as a list."""
    whole = isinstance(ordering, list | tuple | range | np.ndarray) and all(is_integer(i) for i in ordering)
    ordering = [int(i) for i in ordering] if whole else ordering
    permutation = whole and sorted(ordering) == list(range(len(ordering)))
    check(permutation, name, "be a permutation of 0 .. length - 1", ordering)
    return ordering
