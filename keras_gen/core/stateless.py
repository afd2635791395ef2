"""Calls of a layer that leave it as it is."""

import keras
from keras import ops


def stateless(layer: keras.Layer, frozen: bool = False) -> keras.StatelessScope:
    """Returns a scope within which calls of `layer` change no state: what it assigns, and draws, is forgotten.

    No other layer may be called in it: on JAX it would not find its weights.

    Args:
        layer: a built layer or model.
        frozen: bool. Whether its weights are constants, too, which no gradient reaches. Gradients still pass through
            the layer to its inputs. Defaults to `False`.

    Returns:
        A context manager.
    """
    values = [(variable, ops.convert_to_tensor(variable.value)) for variable in layer.variables]
    return keras.StatelessScope(
        state_mapping=[(variable, ops.stop_gradient(value) if frozen else value) for variable, value in values]
    )
