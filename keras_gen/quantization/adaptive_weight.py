"""The weight of an adversarial loss by which it pulls at a decoder as hard as the rest of the loss does."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_gen.core.checks import check
from keras_gen.core.gradient import gradient

HIGHEST = 1e4


class LastKernel:
    """Gradients of losses of a layer's output with respect to the layer's last kernel.

    Make one before the layer is called: it remembers the layer's weights and states, so that it can repeat that call,
    with the same random draws, as a function of the kernel. (What the outer gradient recorded is out of reach on JAX.)
    Nothing that it returns has a gradient.

    Args:
        layer: a built layer or model.
    """

    def __init__(self, layer: keras.Layer):
        self.layer = layer
        self.kernel = last_kernel(layer)
        # Copies: on torch and TensorFlow, the tensors are the weights themselves, and would change with them.
        self.state = [(variable, ops.stop_gradient(ops.copy(variable.value))) for variable in layer.variables]

    def gradient_norm(self, loss: Callable[[Any], Any], inputs: Any, output: Any, training: bool) -> Any:
        """Returns the norm of the gradient of `loss(output)` with respect to the kernel.

        Args:
            loss: takes a float32 tensor like `output`, returns a scalar.
            inputs: what the layer was called with.
            output: what it returned then.
            training: bool, as in that call.
        """
        inputs = ops.stop_gradient(inputs)
        slope = ops.stop_gradient(gradient(loss, ops.stop_gradient(ops.cast(output, "float32"))))

        def along_slope(kernel: Any) -> Any:
            state = [(variable, kernel if variable is self.kernel else value) for variable, value in self.state]
            with keras.StatelessScope(state_mapping=state):
                return ops.cast(self.layer(inputs, training=training), "float32") * slope

        (value,) = (value for variable, value in self.state if variable is self.kernel)
        of_kernel = ops.cast(ops.stop_gradient(gradient(along_slope, value)), "float32")
        return ops.sqrt(ops.sum(ops.square(of_kernel)))


def last_kernel(layer: keras.Layer) -> keras.Variable:
    """Returns the last trainable weight with two axes or more: biases and scales of normalization have one."""
    kernels = [weight for weight in layer.trainable_weights if len(weight.shape) >= 2]
    check(len(kernels) > 0, "decoder", "have a trainable kernel, a weight with two axes or more", layer)
    return kernels[-1]


def balance(norm: Any, adversarial_norm: Any) -> Any:
    """Returns `norm / (adversarial_norm + 1e-4)`, in [0, 1e4]."""
    return ops.clip(norm / (adversarial_norm + 1e-4), 0.0, HIGHEST)
