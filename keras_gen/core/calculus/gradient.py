"""Derivatives by automatic differentiation."""

import contextlib
import importlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.arrays import array_module
from keras_gen.core.checks import check, check_floats, real_tensor
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.ops.gradient")
def gradient(function: Callable[[Any], Any], x: Any) -> Any:
    """Computes `d/dx sum(function(x))`, also inside a compiled function or a loss.

    Where each entry of the output depends on one sample only, this is the per-sample gradient. The result can be
    differentiated again, with respect to `x` and to the weights that `function` reads.

    Args:
        function: takes a tensor like `x`, returns a tensor. It must not change any state, such as a random generator's,
            nor add a loss.
        x: float tensor.

    Returns:
        A tensor like `x`; zeros where `function` does not depend on it.

    Raises:
        ValueError: if `function` is not callable, or `x` is not floating-point.

    Reference: https://kexue.fm/archives/6705.
    """
    check(callable(function), "function", "be a function", repr(function))
    x = real_tensor("x", x)
    check_floats("x", x)
    match keras.backend.backend():
        case "jax":
            import jax

            return jax.grad(lambda x: ops.sum(function(x)))(x)
        case "tensorflow":
            import tensorflow as tf

            x = tf.convert_to_tensor(x)  # a Keras variable would stay one
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = function(x)
            return tape.gradient(y, x, unconnected_gradients="zero")
        case "torch":
            import torch

            differentiable = torch.is_grad_enabled()
            with torch.enable_grad():
                x = x if x.requires_grad else x.detach().requires_grad_()
                y = function(x).sum()
                if not y.requires_grad:
                    return torch.zeros_like(x)
                (result,) = torch.autograd.grad(y, x, create_graph=differentiable, materialize_grads=True)
            return result
        case backend:
            raise NotImplementedError(f"`gradient` needs TensorFlow, JAX or PyTorch, not {backend}")


def derivative(function: Callable[[Any], Any], t: Any) -> Any:
    """Computes the derivative of an elementwise `function` at `t`: float64 NumPy for numbers and arrays, else a tensor.

    `function` must accept both, by computing with `array_module(t)`.
    """
    if array_module(t) is not np:
        return gradient(function, t)
    with double_precision():
        t = ops.convert_to_tensor(np.asarray(t, "float64"))
        return ops.convert_to_numpy(gradient(function, t))


def double_precision() -> contextlib.AbstractContextManager[Any]:
    """Returns a scope in which 64-bit numbers are enabled, also on JAX."""
    if keras.backend.backend() != "jax":
        return contextlib.nullcontext()
    import jax

    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    return importlib.import_module("jax.experimental").enable_x64()  # before JAX 0.8
