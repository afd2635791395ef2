"""Compilation of a function that reads a model's weights."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops


def compiled(
    model: keras.Layer | None, function: Callable[..., Any], others: Sequence[keras.Layer] = ()
) -> Callable[..., Any]:
    """Compiles `function` as its backend can: `jax.jit`, `tf.function`, or (torch) a call that records no gradient.

    The weights of `model` are arguments of the compiled function, so that it sees their current values. The function
    must be pure otherwise: whatever it assigns is lost on JAX. It is compiled again for each new shape of an argument.

    Args:
        model: the model or layer whose variables `function` reads, or `None`.
        function: takes and returns (nested structures of) tensors.
        others: further layers whose variables it reads. Defaults to `()`.

    Returns:
        A function of the same arguments.
    """
    match keras.backend.backend():
        case "jax":
            import jax

            variables = [variable for layer in (model, *others) for variable in getattr(layer, "variables", [])]

            @jax.jit
            def stateless(values: list[Any], *args: Any) -> Any:
                with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
                    return function(*args)

            return lambda *args: stateless([variable.value for variable in variables], *args)
        case "tensorflow":
            import tensorflow as tf

            # Loops and branches are those of `keras.ops`: AutoGraph has nothing to convert, and fails at `match`.
            traced = tf.function(function, jit_compile=getattr(model, "jit_compile", False), autograph=False)
            # Through `get_concrete_function`: a plain call warns of too many traces, which here are one for each shape.
            return lambda *args: traced.get_concrete_function(*args)(*args)
        case "torch":
            import torch

            return torch.no_grad()(function)
        case _:
            return function


def as_tensor(array: np.ndarray, float_dtype: Any = "float32") -> Any:
    """Returns an argument of a compiled function: floats as `float_dtype`, seeds as they are, int64 as int32."""
    if array.dtype.kind == "f":
        return ops.convert_to_tensor(array, str(float_dtype))
    return ops.convert_to_tensor(array, "int32" if array.dtype == "int64" else None)
