"""Recomputation in the backward pass, also called gradient checkpointing: less memory, a third more time."""

from collections.abc import Callable
from typing import Any

import keras


def recomputed(function: Callable[..., Any], remat: bool = True) -> Callable[..., Any]:
    """Returns `function`, of which, if `remat`, only the arguments are stored for the backward pass.

    There it is computed again. So it must neither draw random numbers, which would be others the second time, nor
    change any state: masks of dropout are drawn before. What needs a gradient is an argument, or a weight of a layer
    that is called; a mask may be read from outside. TensorFlow has no second derivative of it.

    Wrap a function in each call: on JAX, one that is wrapped once and called twice keeps the weights of the first call.
    """
    return keras.remat(function) if remat else function
