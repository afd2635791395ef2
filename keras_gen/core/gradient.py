from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.ops.gradient")
def gradient(function: Callable[[Any], Any], x: Any) -> Any:
    """Computes `d/dx sum(function(x))`, also inside a compiled function or a loss.

    Where each entry of the output depends on one sample alone, that is the gradient of each sample. The result can be
    differentiated once more, with respect to `x` and to whatever weights `function` reads.

    Args:
        function: takes a tensor like `x`, returns a tensor. It must not change any state, such as a random generator's,
            nor add a loss.
        x: float tensor.

    Returns:
        A tensor like `x`; zeros where `function` does not depend on it.

    Reference: https://kexue.fm/archives/6705.
    """
    match keras.backend.backend():
        case "jax":
            import jax

            return jax.grad(lambda x: ops.sum(function(x)))(x)
        case "tensorflow":
            import tensorflow as tf

            x = tf.convert_to_tensor(x)
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = function(x)
            return tape.gradient(y, x, unconnected_gradients="zero")
        case "torch":
            import torch

            differentiable = torch.is_grad_enabled()
            x = torch.as_tensor(x)
            with torch.enable_grad():
                x = x if x.requires_grad else x.detach().requires_grad_()
                y = function(x).sum()
                if not y.requires_grad:
                    return torch.zeros_like(x)
                (result,) = torch.autograd.grad(y, x, create_graph=differentiable, materialize_grads=True)
            return result
        case backend:
            raise NotImplementedError(f"`gradient` needs TensorFlow, JAX or PyTorch, not {backend}")
