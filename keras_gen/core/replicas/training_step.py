"""The parts of a training step that differ with several replicas."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
from keras import ops

from keras_gen.core.replicas.processes import of_processes, processes, replicas, totals
from keras_gen.core.replicas.whole_batch import total

SEEDS_APART = 1_000_003  # between the random states of two replicas


def weighted(loss: Any, rows: Any, training: bool) -> Any:
    """Returns the loss of this replica, a mean over its rows, as TensorFlow sums it over the replicas.

    Its gradient is weighted by the rows, so that the step is that of the mean over all rows. Its value is not: it is
    only logged, and Keras weights what it logs. On PyTorch the gradients are weighted, see `averaging_gradients`.
    """
    number = replicas()[1]
    if number == 1 or keras.backend.backend() != "tensorflow":
        return loss
    logged = loss / number
    if not training:
        return logged
    rows = ops.cast(rows, loss.dtype)
    share = loss * rows / total(rows)
    return ops.stop_gradient(logged) + (share - ops.stop_gradient(share))


@contextlib.contextmanager
def shifted(find_states: Callable[[], Sequence[keras.Variable]]) -> Iterator[None]:
    """Context in which random states are others in each replica. Draws advance them equally, so they end equal."""
    index, number = replicas()
    states = find_states() if number > 1 else []
    for state in states:
        state.assign(state.value + ops.cast(index * SEEDS_APART, state.dtype))
    try:
        yield
    finally:
        for state in states:
            state.assign(state.value - ops.cast(index * SEEDS_APART, state.dtype))


@contextlib.contextmanager
def averaging_gradients(optimizer: Any, data: Any) -> Iterator[None]:
    """Context in which `optimizer.apply` applies the means of all processes' gradients, by their rows, on PyTorch."""
    if keras.backend.backend() != "torch" or processes()[1] == 1 or optimizer is None:
        yield
        return
    counts = of_processes(len(keras.tree.flatten(data)[0]))
    share, apply = counts[processes()[0]] / sum(counts), optimizer.apply
    optimizer.apply = lambda gradients, *args: apply(totals(gradients, share), *args)
    try:
        yield
    finally:
        del optimizer.apply


def average_statistics(model: keras.Model) -> None:
    """Averages what Keras's batch normalization has learned from the rows of each replica."""
    number = replicas()[1]
    if number == 1:
        return
    norms = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    for weight in [weight for norm in norms for weight in norm.non_trainable_weights]:
        weight.assign(total(ops.convert_to_tensor(weight)) / number)


@contextlib.contextmanager
def summed(metrics: Sequence[keras.Variable]) -> Iterator[None]:
    """Context in which the variables of metrics are their sums over all processes, on PyTorch."""
    if keras.backend.backend() != "torch" or processes()[1] == 1:
        yield
        return
    own = [ops.copy(variable.value) for variable in metrics]
    for variable, value in zip(metrics, totals(own, 1), strict=True):
        variable.assign(value)
    try:
        yield
    finally:
        for variable, value in zip(metrics, own, strict=True):
            variable.assign(value)


def reducible(logs: Any) -> Any:
    """Returns the logs of a step as Keras reduces them: between workers of TensorFlow, along a first axis."""
    if keras.backend.backend() != "tensorflow" or processes()[1] == 1:
        return logs
    return keras.tree.map_structure(lambda value: ops.reshape(value, (1,)), logs)
