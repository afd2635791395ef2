"""Standard Gumbel noise."""

from typing import Any

import keras
from keras import ops

SMALLEST, LARGEST = 1.1754944e-38, 0.99999994  # the float32 numbers next to 0 and 1


def uniform_noise(shape: Any, seed: Any) -> Any:
    """Draws from U(0, 1) in float32; never 0 or 1, which `keras.random.uniform` may give, in half precision often."""
    return ops.clip(keras.random.uniform(shape, dtype="float32", seed=seed), SMALLEST, LARGEST)


def gumbel_noise(shape: Any, seed: Any) -> Any:
    """Draws `g = -log(-log u)`, `u ~ U(0, 1)`, in float32. Always finite, in [-4.5, 16.7]."""
    return -ops.log(-ops.log(uniform_noise(shape, seed)))
