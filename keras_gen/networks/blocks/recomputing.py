"""Recomputation in the backward pass, also called gradient checkpointing: less memory, a third more time."""

from collections.abc import Callable
from typing import Any

import keras


def recomputed(function: Callable[..., Any], remat: bool = True) -> Callable[..., Any]:
    """Returns `function`; if `remat`, only its arguments are stored, and the backward pass computes it again.

    It must therefore neither draw random numbers, which would differ the second time, nor change any state: dropout
    masks are drawn beforehand. Gradients reach its arguments and the weights of layers that it calls; a mask may be
    read from outside. On TensorFlow there are no second derivatives.

    Wrap a function anew for each call: on JAX, one that is wrapped once and called twice keeps the weights of the first
    call.
    """
    if not remat:
        return function
    return _without_early_stop(keras.remat(function)) if keras.backend.backend() == "torch" else keras.remat(function)


def _without_early_stop(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns `function` with recomputations that run to their end.

    PyTorch leaves a recomputation by an exception as soon as it has all that it needs. Keras's layers keep a reference
    to this exception, and thus to the recomputed tensors, until Python collects garbage: more memory than was saved.
    """
    from torch.utils.checkpoint import set_checkpoint_early_stop

    def call(*arguments: Any) -> Any:
        with set_checkpoint_early_stop(False):
            return function(*arguments)

    return call
