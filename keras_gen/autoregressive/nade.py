from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.autoregressive.ordered_binary_model import OrderedBinaryModel
from keras_gen.core.checks import check_integer
from keras_gen.export import keras_gen_export

BLOCK = 16  # numbers whose hidden units are computed together: more would leave the processor's cache


@keras_gen_export("keras_gen.models.NADE")
class NADE(OrderedBinaryModel):
    """Neural autoregressive distribution estimator: a hidden layer for each binary number, all with shared weights.

        a_1 = c,   a_{i+1} = a_i + W_i x_i
        p(x_i = 1 | x_1 .. x_{i-1}) = sigmoid(b_i + V_i . g(a_i))

    Since `a_{i+1}` takes one row of W more than `a_i`, all hidden layers together cost O(length x units). Train with
    `fit(x)`; no `loss` is given to `compile`. The loss is in nats for each sample, exact.

    Args:
        units: int >= 1. Size of the hidden layers. Defaults to `500`.
        activation: the function g, as for `keras.layers.Activation`. Defaults to `"sigmoid"`.
        ordering: permutation of 0 .. length - 1, the places of the flattened array in the order of the chain rule, or
            `None`, row by row. Defaults to `None`.
        seed: int or `None`. Seeds `sample`. Defaults to `None`, a seed from Keras's global one.
        **kwargs: `name`, `dtype`, `trainable`, as for any Keras model.

    Call arguments:
        x: binary data `(batch, ...)`, 0 or 1 in any dtype.

    Returns:
        The data unchanged: the work is in `fit`, `log_prob` and `sample`.

    Raises:
        ValueError: if `units` is no positive integer, `ordering` is not a permutation of as many places as the data
            have, or arrays of data are not
            binary.

    Example:

    >>> model = keras_gen.models.NADE(100)
    >>> model.compile(keras.optimizers.Adam(1e-3))
    >>> model.fit(x, epochs=20)               # 0 or 1, (n, 8, 8, 1)
    >>> new = model.sample(16, seed=0)        # int32 (16, 8, 8, 1)
    >>> log_p = model.log_prob(new)           # nats, (16,)

    Reference: https://kexue.fm/archives/9152 (the chain rule); Larochelle and Murray 2011, "The Neural Autoregressive
    Distribution Estimator", AISTATS.
    """

    def __init__(
        self,
        units: int = 500,
        activation: Any = "sigmoid",
        ordering: Sequence[int] | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(ordering=ordering, seed=seed, **kwargs)
        self.units = check_integer("units", units)
        self.activation = keras.activations.get(activation)

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        shape = (self.length, self.units)
        self.kernel = self.add_weight(name="kernel", shape=shape, initializer="glorot_uniform")
        self.hidden_bias = self.add_weight(name="hidden_bias", shape=(self.units,), initializer="zeros")
        self.output_kernel = self.add_weight(name="output_kernel", shape=shape, initializer="glorot_uniform")
        self.bias = self.add_weight(name="bias", shape=(self.length,), initializer="zeros")

    def logits(self, x: Any) -> Any:
        w, v = ops.convert_to_tensor(self.kernel), ops.convert_to_tensor(self.output_kernel)
        a = ops.convert_to_tensor(self.hidden_bias)[None]
        logits = []
        for start in range(0, self.length, BLOCK):
            block = slice(start, min(start + BLOCK, self.length))
            size = block.stop - block.start
            earlier = np.tril(np.ones((size, size), "float32"), -1)
            within = ops.matmul(x[:, None, block] * ops.convert_to_tensor(earlier, x.dtype), w[block])
            hidden = self.activation(a[:, None] + within)
            logits.append(ops.sum(hidden * v[block], axis=-1))
            a = a + ops.matmul(x[:, block], w[block])
        return ops.concatenate(logits, axis=1) + self.bias

    def empty_cache(self, batch: int, length: int) -> Any:
        return ops.zeros((batch, self.units)) + ops.convert_to_tensor(self.hidden_bias)

    def next_logit(self, i: Any, before: Any, cache: Any) -> tuple[Any, Any]:
        row = ops.take(ops.convert_to_tensor(self.kernel), ops.maximum(i - 1, 0), axis=0)
        a = cache + before[:, None] * row
        output = ops.take(ops.convert_to_tensor(self.output_kernel), i, axis=0)
        bias = ops.take(ops.convert_to_tensor(self.bias), i)
        return ops.sum(self.activation(a) * output, axis=-1) + bias, a

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units, "activation": keras.activations.serialize(self.activation)}
