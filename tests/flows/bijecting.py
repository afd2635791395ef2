"""Bijectors on arrays."""

import numpy as np
from keras import ops

from keras_gen.core.fixtures import randomize_weights, to_numpy


def run(bijector, x, **options):
    """Calls a bijector on an array, and returns arrays."""
    return tuple(to_numpy(part) for part in bijector(ops.convert_to_tensor(x), **options))


def randomized(bijector, x, scale=0.3):
    bijector(ops.convert_to_tensor(x))
    randomize_weights(bijector, scale=scale)
    return bijector


def vectors(n, features, seed=0):
    return np.random.default_rng(seed).normal(size=(n, features)).astype("float32")


def images(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def levels_of(k, levels):
    """Pixels in [-1, 1] of integer levels k."""
    return (2 * np.asarray(k, "float64") / (levels - 1) - 1).astype("float32")
