from typing import Any

import numpy as np
from keras import ops

from keras_gen.autoregressive.ordered_binary_model import OrderedBinaryModel
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.models.FVSBN")
class FVSBN(OrderedBinaryModel):
    """Fully visible sigmoid belief network: each binary number by a logistic regression on those before it.

        p(x_i = 1 | x_1 .. x_{i-1}) = sigmoid(b_i + sum_{j<i} W_{ji} x_j)

    Train with `fit(x)`; no `loss` is given to `compile`. The loss is in nats for each sample, exact.

    Args:
        ordering: permutation of 0 .. length - 1, the places of the flattened array in the order of the chain rule, or
            `None`, row by row. Defaults to `None`.
        seed: int or `None`. Seeds `sample`. Defaults to `None`, a seed from Keras's global one.
        **kwargs: `name`, `dtype`, `trainable`, as for any Keras model.

    Call arguments:
        x: binary data `(batch, ...)`, 0 or 1 in any dtype.

    Returns:
        The data unchanged: the work is in `fit`, `log_prob` and `sample`.

    Raises:
        ValueError: if `ordering` is not a permutation of as many places as the data have, or arrays of data are not
            binary.

    Example:

    >>> model = keras_gen.models.FVSBN()
    >>> model.compile(keras.optimizers.Adam(1e-2))
    >>> model.fit(x, epochs=20)               # 0 or 1, (n, 8, 8, 1)
    >>> new = model.sample(16, seed=0)        # int32 (16, 8, 8, 1)
    >>> log_p = model.log_prob(new)           # nats, (16,)

    Reference: https://kexue.fm/archives/9152 (the chain rule); Frey 1998, "Graphical Models for Machine Learning and
    Digital Communication"; Gan et al. 2015, AISTATS.
    """

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.kernel = self.add_weight(name="kernel", shape=(self.length, self.length), initializer="zeros")
        self.bias = self.add_weight(name="bias", shape=(self.length,), initializer="zeros")
        self.earlier = np.triu(np.ones((self.length, self.length), "float32"), 1)

    def logits(self, x: Any) -> Any:
        return ops.matmul(x, ops.multiply(self.kernel, self.earlier)) + self.bias

    def empty_cache(self, batch: int, length: int) -> Any:
        return ops.zeros((batch, length)) + ops.convert_to_tensor(self.bias)

    def next_logit(self, i: Any, before: Any, cache: Any) -> tuple[Any, Any]:
        # The row of x_{i-1}; what it adds to places before i is not looked at any more.
        row = ops.take(ops.convert_to_tensor(self.kernel), ops.maximum(i - 1, 0), axis=0)
        cache = cache + before[:, None] * row
        return ops.take(cache, i, axis=1), cache
