"""Averages of a model's weights, kept by its optimizer (`use_ema=True`), and when they take the weights' place."""

import contextlib
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

CHECKSUM = "averages_checksum"  # the attribute of a model, and its name in files


class Averages(keras.callbacks.Callback):
    """Callback that keeps a model's averages in its weights, except during the steps of training.

    The averages and the raw weights, which are those of training, are swapped: while the model's weights are the
    averages, the optimizer holds the raw weights. Thus nothing is stored twice, and training continues exactly where it
    was. The callback comes before all others, so that these evaluate, save and sample the averages.
    """

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        take_out(self.model)

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        put_in(self.model)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        put_in(self.model)


def put_in(model: Any) -> None:
    """Swaps the averages into the weights, unless they are there already or the optimizer keeps none."""
    pairs = _pairs(model.optimizer)
    if pairs and model.averages_checksum is None:
        _exchange(pairs)
        model.averages_checksum = _checksum(pairs)


def take_out(model: Any) -> None:
    """Swaps the raw weights back into the weights, unless they are there already.

    If weights other than the averages have been assigned in the meantime, training and averages continue from those.
    """
    if model.averages_checksum is None:
        return
    pairs = _pairs(model.optimizer)
    if _checksum(pairs) == model.averages_checksum:
        _exchange(pairs)
    else:
        for weight, average in pairs:
            average.assign(ops.copy(weight))  # a copy: JAX cannot donate one buffer twice
    model.averages_checksum = None


def without_swaps(callbacks: Iterable[Any]) -> list[Any]:
    """Returns callbacks without Keras's `SwapEMAWeights`, which would undo the swaps of `Averages` for evaluation."""
    return [each for each in callbacks if not isinstance(each, keras.callbacks.SwapEMAWeights)]


@contextlib.contextmanager
def keeping_raw_weights(optimizer: Any) -> Iterator[None]:
    """Keeps Keras from overwriting the raw weights with the averages when `fit` ends."""
    optimizer.finalize_variable_values = lambda variables: None
    try:
        yield
    finally:
        del optimizer.finalize_variable_values


def keeps_averages(optimizer: Any) -> bool:
    """Returns whether an optimizer, or one of those that it consists of, is made with `use_ema=True`."""
    return any(getattr(part, "use_ema", False) for part in optimizers_in(optimizer))


def optimizers_in(optimizer: Any) -> list[Any]:
    """Returns the optimizers of which an optimizer consists: in the simplest case, itself."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    return list(getattr(optimizer, "optimizers", [optimizer]))


def _pairs(optimizer: Any) -> list[tuple[keras.Variable, keras.Variable]]:
    """Returns each weight with its average; none before the first step, when the averages are still zero."""
    return [
        (weight, average)
        for part in optimizers_in(optimizer)
        if getattr(part, "use_ema", False) and part.built and int(ops.convert_to_numpy(part.iterations)) > 0
        for weight, average in zip(part._trainable_variables, part._model_variables_moving_average, strict=True)
        if average is not None
    ]


def _exchange(pairs: list[tuple[keras.Variable, keras.Variable]]) -> None:
    for weight, average in pairs:
        value = ops.copy(weight)
        weight.assign(average)
        average.assign(value)


def _checksum(pairs: list[tuple[keras.Variable, keras.Variable]]) -> int:
    result = 0
    for weight, _ in pairs:
        result = zlib.crc32(np.ascontiguousarray(ops.convert_to_numpy(weight)).tobytes(), result)
    return result
