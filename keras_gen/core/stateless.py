"""Calls of a layer that leave it as it is."""

import contextlib
from collections.abc import Iterator

import keras
from keras import ops


@contextlib.contextmanager
def stateless(layer: keras.Layer, frozen: bool = False) -> Iterator[keras.StatelessScope]:
    """A scope in which calls of `layer` leave it unchanged: assignments, draws and added losses are discarded.

    No other layer may be called in it: on JAX it would not find its weights.

    Args:
        layer: a built layer or model.
        frozen: bool. Whether its weights are constants, too, which no gradient reaches. Gradients still pass through
            the layer to its inputs. Defaults to `False`.

    Yields:
        The scope.
    """
    values = [(variable, ops.convert_to_tensor(variable.value)) for variable in layer.variables]
    mapping = [(variable, ops.stop_gradient(value) if frozen else value) for variable, value in values]
    # Each call clears the losses of the one before, in any scope.
    added = [(part, list(part._losses)) for part in layer._flatten_layers()]
    with keras.StatelessScope(state_mapping=mapping) as scope:
        yield scope
    for part, losses in added:
        part._losses[:] = losses
