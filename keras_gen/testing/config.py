"""Law of configurations: every constructor argument is restored, and the copy has equal attributes."""

import json
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_gen.core.configured import Configured, arguments_of
from keras_gen.testing.common import require

# Arguments that some constructors pass on to Keras, which has them in its own configuration.
OF_KERAS = {"name", "dtype", "trainable"}


def check_config(make: Callable[[], Any]) -> None:
    """Checks that `from_config` and Keras's serialization both restore an object, through JSON.

    Each argument of the constructor is in `get_config`, and the copy has equal attributes.

    Args:
        make: returns a new object.

    Raises:
        AssertionError: with the violated law.
    """
    original = make()
    missing = sorted(arguments_of(type(original)) - OF_KERAS - set(original.get_config()))
    name = type(original).__name__
    require(not missing, f"`get_config` must return every argument of {name}, and lacks {', '.join(missing)}")
    serialized = json.loads(json.dumps(keras.saving.serialize_keras_object(original)))
    key = serialized["registered_name"]
    require(key == f"keras_gen>{name}" or not key.startswith("keras_gen>"), f"wrong key {key}")
    restored = keras.saving.deserialize_keras_object(serialized)
    config, other = (keras.saving.serialize_keras_object(thing)["config"] for thing in (original, restored))
    require(json.dumps(config) == json.dumps(other), f"the configuration must survive: {config} became {other}")
    # A functional model takes these two from the automatic names of its layers.
    of_keras = {*vars(keras.Layer()), "input_names", "output_names"}
    for attribute, value in vars(original).items():
        equal = attribute in of_keras or _equal(value, vars(restored).get(attribute))
        require(equal, f"the copy of {name} must have equal attributes: {attribute} was {value!r}")


def _equal(a: Any, b: Any) -> bool:
    """Returns whether two attributes are equal, if they are plain values; layers and tensors have other laws."""
    if isinstance(a, str | bool | int | float | None | Configured):
        return type(a) is type(b) and (a == b or a != a)
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and np.array_equal(a, b)
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(map(_equal, a, b))
    return type(a) is type(b)
