"""Logits as tensors, and warnings about networks that end in an activation where logits are expected."""

import warnings
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.checks import check, check_real, is_numpy

BOUNDED = ("hard_sigmoid", "sigmoid", "softmax", "tanh")
SHAPES_ONLY = (keras.layers.Flatten, keras.layers.Permute, keras.layers.Reshape)
LOWEST = -1e30  # stands for a logit of -inf: as improbable, and its gradient is finite


def logits_tensor(name: str, logits: Any) -> Any:
    """Converts logits `(..., classes)` to float32, with `LOWEST` for -inf; refuses arrays with NaN or +inf."""
    check_real(name, logits)
    if is_numpy(logits):
        is_valid = bool((np.asarray(logits) < np.inf).all())  # false for NaN
        check(is_valid, name, "be logits below infinity", "NaN or infinite values")
    logits = ops.maximum(ops.cast(logits, "float32"), LOWEST)
    has_classes = len(logits.shape) > 0 and bool(logits.shape[-1])
    check(has_classes, name, "have shape (..., classes)", f"shape {tuple(logits.shape)}")
    return logits


def warn_of_activation(name: str, layer: keras.Layer) -> None:
    """Warns if `layer`, whose outputs are used as logits, ends in an activation that bounds them."""
    activation = last_activation(layer)
    if activation in BOUNDED:
        warnings.warn(
            f"`{name}` ends in the activation {activation!r}, but its outputs are used as logits: leave it out.",
            stacklevel=4,
        )


def last_activation(layer: Any) -> str | None:
    """Returns the name of the activation that a layer, a model or an operation ends in, if it can be determined."""
    if isinstance(layer, keras.Sequential):
        parts = [part for part in layer.layers if not isinstance(part, SHAPES_ONLY)]
        return last_activation(parts[-1]) if parts else None
    outputs = getattr(layer, "outputs", None)  # of a functional model
    if outputs:
        return _activation_before(outputs[0])
    activation = getattr(layer, "activation", None)
    return type(layer).__name__.lower() if activation is None else getattr(activation, "__name__", None)


def _activation_before(tensor: Any) -> str | None:
    operation, node, _ = tensor._keras_history
    if isinstance(operation, SHAPES_ONLY):
        return _activation_before(operation._inbound_nodes[node].input_tensors[0])
    return last_activation(operation)
