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
    if not remat:
        return function
    return _without_early_stop(keras.remat(function)) if keras.backend.backend() == "torch" else keras.remat(function)


def _without_early_stop(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns `function` with recomputations that run to their end.

    PyTorch leaves them by an exception as soon as it has all that it needs. The layers of Keras that the exception
    passes keep it, and with it what was computed, until Python collects garbage: more than was saved.
    """
    from torch.utils.checkpoint import set_checkpoint_early_stop

    def call(*arguments: Any) -> Any:
        with set_checkpoint_early_stop(False):
            return function(*arguments)

    return call
