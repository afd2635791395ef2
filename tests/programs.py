"""Evaluation of many operations on shapes that no other test has."""

import keras

from keras_gen.core.compiled import compiled


def one_program(model, function):
    """Compiles on JAX, which else compiles each operation by itself; the others are sooner done without."""
    return compiled(model, function) if keras.backend.backend() == "jax" else function
