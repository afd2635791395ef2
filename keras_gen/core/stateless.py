"""Calls of a layer without side effects on it."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
from keras import ops


def stateless(layer: keras.Layer, frozen: bool = False) -> contextlib.AbstractContextManager[None]:
    """Returns a scope in which calls of `layer` leave it unchanged: assignments, draws, added losses are discarded.

    No other layer may be called in this scope: on JAX its weights would not be found.

    Args:
        layer: a built layer or model.
        frozen: bool. Whether its weights are treated as constants, without gradients. Gradients still pass through the
            layer to its inputs. Defaults to `False`.

    Returns:
        A context manager.
    """
    values = [(variable, ops.convert_to_tensor(variable.value)) for variable in layer.variables]
    return in_state(layer, [(variable, ops.stop_gradient(value) if frozen else value) for variable, value in values])


@contextlib.contextmanager
def in_state(layer: keras.Layer, state: Sequence[tuple[keras.Variable, Any]]) -> Iterator[None]:
    """Opens the same scope, with given values for the layer's variables."""
    # A call clears the losses that the previous call added, in any scope.
    added = [(part, list(part._losses)) for part in layer._flatten_layers()]
    try:
        with keras.StatelessScope(state_mapping=state):
            yield
    finally:
        for part, losses in added:
            part._losses[:] = losses


def in_random_state(
    layer: keras.Layer, states: Sequence[keras.Variable], function: Callable[..., Any]
) -> Callable[..., Any]:
    """Returns `function` with a first argument: the values that random states of `layer` have during the call."""

    def run(values: Sequence[Any], *args: Any) -> Any:
        if not states:
            return function(*args)
        state = list(zip(states, values, strict=True))
        if keras.backend.backend() == "jax":  # a scope hides the one around it, which holds the other variables
            drawn = set(map(id, states))
            state += [(variable, variable.value) for variable in layer.variables if id(variable) not in drawn]
        with keras.StatelessScope(state_mapping=state):
            return function(*args)

    return run
