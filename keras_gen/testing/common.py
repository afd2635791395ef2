"""Assertions that name the violated law."""

import json
from typing import Any

import keras
import numpy as np


def require(holds: bool, law: str) -> None:
    if not holds:
        raise AssertionError(law)


def same(expected: Any, actual: Any, rtol: float, atol: float, law: str) -> None:
    for a, b in zip(expected, actual, strict=True):
        np.testing.assert_allclose(b, a, rtol=rtol, atol=atol, err_msg=law)


def check_frozen(model: keras.Model) -> None:
    """Freezes every second layer of a model, and checks that its configuration restores which ones are frozen."""
    for part in [part for part in model._flatten_layers() if part.weights and not part._layers][::2]:
        part.trainable = False
    restored = keras.saving.deserialize_keras_object(json.loads(json.dumps(keras.saving.serialize_keras_object(model))))
    pairs = zip(model.weights, restored.weights, strict=True)
    thawed = [weight.path for weight, other in pairs if weight.trainable != other.trainable]
    require(not thawed, f"what is frozen must stay frozen in a file: {', '.join(thawed)}")
