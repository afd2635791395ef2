"""Autoregressive models of binary vectors: FVSBN and NADE."""

import abc
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.autoregressive.autoregressive_model import AutoregressiveModel
from keras_gen.core.arrays import reordered
from keras_gen.core.checks import check, check_integer, is_integer
from keras_gen.export import keras_gen_export


class BinaryModel(AutoregressiveModel):
    """Base class of autoregressive models of binary arrays, flattened and permuted by an ordering.

        log p(x) = sum_i x_i l_i - log(1 + exp(l_i)),   l_i = logit of p(x_i = 1 | x_1 .. x_{i-1})

    Subclasses define `logits` of ordered vectors, and for sampling `next_logit`. `self.length` is their dimension.
    """

    def __init__(self, ordering: Sequence[int] | None = None, seed: int | None = None, **kwargs: Any):
        super().__init__(2, seed=seed, **kwargs)
        self.ordering = None if ordering is None else check_ordering("ordering", ordering)

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.order = np.arange(self.length) if self.ordering is None else np.array(self.ordering)
        rule = f"have {self.length} entries, the number of dimensions of x"
        check(len(self.order) == self.length, "ordering", rule, self.ordering)

    @abc.abstractmethod
    def logits(self, x: Any) -> Any:
        """Returns the logits `(batch, length)` of ordered vectors `(batch, length)`, the i-th from `x_1 .. x_{i-1}`."""

    @abc.abstractmethod
    def next_logit(self, i: Any, before: Any, cache: Any) -> tuple[Any, Any]:
        """Returns the logit `(batch,)` of `x_i`, and the cache, from `before` = `x_{i-1}` `(batch,)`, initially 0."""

    def log_density(self, x: Any, condition: Any = None, training: bool = False) -> Any:
        x = ops.reshape(ops.cast(x, "float32"), (-1, self.length))
        x = x if self.ordering is None else reordered(x, self.order)
        return bernoulli_log_prob(x, ops.cast(self.logits(x), "float32"))

    def next_logits(self, i: Any, codes: Any, cache: Any, inputs: dict[str, Any]) -> tuple[Any, Any]:
        before = ops.take(codes, self.position(ops.maximum(i - 1, 0), inputs), axis=1)
        dtype = self.variable_dtype
        logit, cache = self.next_logit(i, ops.cast(before, dtype) * ops.cast(i > 0, dtype), cache)
        return two_logits(logit), cache

    def position(self, i: Any, inputs: dict[str, Any]) -> Any:
        return ops.take(ops.convert_to_tensor(self.order, "int32"), i)

    def check_values(self, name: str, x: np.ndarray) -> None:
        check(x.dtype.kind in "biuf", name, "be numbers", f"dtype {x.dtype}")
        binary = (x == 0) | (x == 1)
        check(bool(binary.all()), name, "be binary, 0 or 1", f"values such as {x[~binary].flat[:1].tolist()}")

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["num_codes"]
        return config


def bernoulli_log_prob(x: Any, logits: Any) -> Any:
    """Returns the log-probability `(batch,)` of independent binary variables `(batch, length)`, given their logits."""
    return ops.sum(x * logits - ops.softplus(logits), axis=1)


def two_logits(logit: Any) -> Any:
    """Converts the logit of 1, `(batch,)`, to the logits of 0 and 1, `(batch, 2)`."""
    logit = ops.cast(logit, "float32")
    return ops.stack([ops.zeros_like(logit), logit], axis=1)


def check_ordering(name: str, ordering: Any) -> list[int]:
    """Returns `ordering` as a list, after checking that it is a permutation of 0 .. length - 1."""
    is_integers = isinstance(ordering, list | tuple | range | np.ndarray) and all(is_integer(i) for i in ordering)
    ordering = [int(i) for i in ordering] if is_integers else ordering
    is_permutation = is_integers and sorted(ordering) == list(range(len(ordering)))
    check(is_permutation, name, "be a permutation of 0 .. length - 1", ordering)
    return ordering


@keras_gen_export("keras_gen.models.FVSBN")
class FVSBN(BinaryModel):
    """Fully visible sigmoid belief network (FVSBN): logistic regression of each binary variable on the preceding ones.

        p(x_i = 1 | x_1 .. x_{i-1}) = sigmoid(b_i + sum_{j<i} W_{ji} x_j)

    Train with `fit(x)`; no `loss` is given to `compile`. The loss is the exact negative log-likelihood, in nats per
    sample.

    Args:
        ordering: permutation of 0 .. length - 1, positions of the flattened array in the order of the chain rule, or
            `None`, row-major order. Defaults to `None`.
        seed: int or `None`. Seeds `sample`. Defaults to `None`, a seed from Keras's global one.
        **kwargs: `name`, `dtype`, `trainable`, as for any Keras model.

    Call arguments:
        x: binary data `(batch, ...)`, 0 or 1 in any dtype.

    Returns:
        The data unchanged; use `fit`, `log_prob` and `sample`.

    Raises:
        ValueError: if `ordering` is not a permutation of the positions of the data, or arrays of data are not binary.

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
        return ops.zeros((batch, length), self.variable_dtype) + ops.convert_to_tensor(self.bias)

    def next_logit(self, i: Any, before: Any, cache: Any) -> tuple[Any, Any]:
        # The row of x_{i-1}; its contribution to positions before i is no longer used.
        row = ops.take(ops.convert_to_tensor(self.kernel), ops.maximum(i - 1, 0), axis=0)
        cache = cache + before[:, None] * row
        return ops.take(cache, i, axis=1), cache

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "ordering": self.ordering}


BLOCK = 16  # dimensions whose hidden units are computed together: a larger block exceeds the CPU cache


@keras_gen_export("keras_gen.models.NADE")
class NADE(BinaryModel):
    """Neural autoregressive distribution estimator (NADE): one hidden layer for each variable, with shared weights.

        a_1 = c,   a_{i+1} = a_i + W_i x_i
        p(x_i = 1 | x_1 .. x_{i-1}) = sigmoid(b_i + V_i . g(a_i))

    Since `a_{i+1}` adds one row of W to `a_i`, all hidden layers together cost O(length x units). Train with `fit(x)`;
    no `loss` is given to `compile`. The loss is the exact negative log-likelihood, in nats per sample.

    Args:
        units: int >= 1. Size of the hidden layers. Defaults to `500`.
        activation: the function g, as for `keras.layers.Activation`. Defaults to `"sigmoid"`.
        ordering: permutation of 0 .. length - 1, positions of the flattened array in the order of the chain rule, or
            `None`, row-major order. Defaults to `None`.
        seed: int or `None`. Seeds `sample`. Defaults to `None`, a seed from Keras's global one.
        **kwargs: `name`, `dtype`, `trainable`, as for any Keras model.

    Call arguments:
        x: binary data `(batch, ...)`, 0 or 1 in any dtype.

    Returns:
        The data unchanged; use `fit`, `log_prob` and `sample`.

    Raises:
        ValueError: if `units` is not a positive integer, `ordering` is not a permutation of the data's positions, or
            arrays of data are not binary.

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
        return ops.zeros((batch, self.units), self.variable_dtype) + ops.convert_to_tensor(self.hidden_bias)

    def next_logit(self, i: Any, before: Any, cache: Any) -> tuple[Any, Any]:
        row = ops.take(ops.convert_to_tensor(self.kernel), ops.maximum(i - 1, 0), axis=0)
        a = cache + before[:, None] * row
        output = ops.take(ops.convert_to_tensor(self.output_kernel), i, axis=0)
        bias = ops.take(ops.convert_to_tensor(self.bias), i)
        return ops.sum(self.activation(a) * output, axis=-1) + bias, a

    def get_config(self) -> dict[str, Any]:
        activation = keras.activations.serialize(self.activation)
        return {**super().get_config(), "units": self.units, "activation": activation, "ordering": self.ordering}
