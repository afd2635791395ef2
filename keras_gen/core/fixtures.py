"""Helpers for testing layers and models."""

import pathlib
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops, tree


def randomize_weights(layer: keras.Layer, seed: int = 0, scale: float = 0.3) -> None:
    """Sets the weights to fixed random values, the same on every backend: zero initialization would hide errors.

    Args:
        layer: a built layer or model.
        seed: int. Defaults to `0`.
        scale: float. Standard deviation of vectors; for kernels it is divided by sqrt(fan_in). Defaults to `0.3`.
    """
    generator = np.random.default_rng(seed)
    for weight in layer.weights:
        if keras.backend.is_float_dtype(weight.dtype):
            fan_in = np.prod(weight.shape[:-1]) if len(weight.shape) > 1 else 1
            noise = scale * generator.standard_normal(tuple(weight.shape)) / np.sqrt(fan_in)
            starts_at_one = np.all(to_numpy(weight) == 1)
            weight.assign((noise + starts_at_one).astype(weight.dtype))


def functional(layer: keras.Layer, *arrays: Any) -> keras.Model:
    """Wraps one layer in a functional model with unknown batch size, whose inputs are a flat list.

    Args:
        layer: the layer.
        *arrays: the layer's inputs, arrays or dicts of arrays.
    """
    inputs = tree.map_structure(lambda array: keras.Input(array.shape[1:], dtype=array.dtype.name), list(arrays))
    return keras.Model(tree.flatten(inputs), layer(inputs if len(inputs) > 1 else inputs[0]))


def as_inputs(arrays: Sequence[Any]) -> Any:
    """Converts arrays, or dicts of arrays, to the inputs of a functional model: one tensor, or a flat list."""
    tensors = [ops.convert_to_tensor(array) for array in tree.flatten(list(arrays))]
    return tensors if len(tensors) > 1 else tensors[0]


def save_and_load(model: keras.Model) -> keras.Model:
    """Saves the model to a `.keras` file and loads it again, in safe mode."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.keras"
        model.save(path)
        return keras.models.load_model(path, safe_mode=True)


def made_alike(make: Callable[[], keras.Model]) -> keras.Model:
    """Returns a new model with reproducible initial weights."""
    keras.utils.set_random_seed(0)
    return make()


def to_numpy(tensor: Any) -> np.ndarray:
    """Converts a tensor to NumPy, half precision to float32."""
    if keras.backend.is_float_dtype(keras.backend.standardize_dtype(tensor.dtype)):
        tensor = ops.cast(tensor, "float64" if "64" in str(tensor.dtype) else "float32")
    return ops.convert_to_numpy(tensor)


def flat_numpy(outputs: Any) -> list[np.ndarray]:
    """Returns the tensors of a nested structure as a flat list of arrays."""
    return [to_numpy(output) for output in tree.flatten(outputs)]
