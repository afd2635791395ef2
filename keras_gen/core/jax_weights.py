"""The weights of a model that JAX trains: Keras takes their values out of the variables while it runs."""

import threading
from typing import Any

import keras
from keras import ops


def fetch(model: Any) -> None:
    """Puts the values of the last step into the variables, if they are elsewhere, so that a callback sees them.

    Raises:
        RuntimeError: if another thread trains the model.
    """
    if keras.backend.backend() != "jax" or model.training_thread is None:
        return
    if model.training_thread != threading.get_ident():
        raise RuntimeError(f"{model.name} is being trained in another thread: on JAX, wait for the end of `fit`")
    model.jax_state_sync()


def remember(model: Any) -> None:
    """Notes the values before the first step: Keras takes them out of the variables, and loses them if it fails."""
    if keras.backend.backend() == "jax":
        kinds = ("trainable_variables", "non_trainable_variables", "metrics_variables")
        state = {kind: [variable.value for variable in getattr(model, kind)] for kind in kinds}
        optimizer = getattr(model, "optimizer", None)
        state["optimizer_variables"] = [variable.value for variable in getattr(optimizer, "variables", [])]
        model._jax_state = state


def recover(model: Any) -> None:
    """After a step that failed, gives the variables the values of the last finished one."""
    if keras.backend.backend() == "jax":
        model.jax_state_sync()


def copy(model: Any) -> None:
    """Gives each weight a buffer of its own.

    A `fit` with `use_ema=True` leaves weights and averages in the same buffers, and the next `fit`, `evaluate` or
    `predict` of Keras 3.15 donates the buffers of the weights. All weights: those frozen here may be averaged by the
    optimizer of a submodel.
    """
    if keras.backend.backend() == "jax":
        for variable in model.weights:
            variable.assign(ops.copy(variable))
