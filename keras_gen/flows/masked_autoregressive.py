from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.arrays import sum_per_sample
from keras_gen.core.checks import check, check_units
from keras_gen.core.compiled import sequential_loop
from keras_gen.export import keras_gen_export
from keras_gen.flows.bijector import Bijector
from keras_gen.flows.conditioner import Dense
from keras_gen.flows.coupling import get_scale_map
from keras_gen.networks.blocks.masked import MaskedDense, spread_degrees


@keras_gen_export("keras_gen.layers.MaskedAutoregressive", also=("keras_gen.bijectors.MaskedAutoregressive",))
class MaskedAutoregressive(Bijector):
    """Masked autoregressive flow (MAF): each dimension is scaled and shifted by a function of the preceding ones.

        t_i, s_i = MADE(x_1 .. x_{i-1});   y_i = x_i exp(g(s_i)) + t_i,   log_det = sum g(s_i)

    A single feature is scaled and shifted by a function of the condition, or by constants that are learned.

    The forward direction takes one network pass, the inverse one pass per dimension, in a compiled loop. Put a
    `Permutation("reverse")` between two such layers.

    Args:
        units: sequence of ints >= 1, sizes of MADE's hidden layers.
        activation: as for `keras.layers.Activation`. Defaults to `"relu"`.
        scale_map: the scale map g, see `AffineCoupling`. Defaults to `"tanh"`.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        x: `(batch, features)`.
        condition: `(batch, any)` or `None`. All dimensions depend on it. Defaults to `None`.
        inverse: bool. Defaults to `False`.
        training: bool. Defaults to `False`.

    Returns:
        y: a float32 tensor like `x`.
        log_det: float32 `(batch,)`.

    Raises:
        ValueError: if an argument is out of range, or x is not a batch of vectors.

    Example:

    >>> y, log_det = keras_gen.layers.MaskedAutoregressive(units=[64, 64])(x)

    Reference: Papamakarios et al. 2017, arXiv:1705.07057; Germain et al. 2015, arXiv:1502.03509.
    """

    def __init__(self, units: Sequence[int], activation: Any = "relu", scale_map: Any = "tanh", **kwargs: Any):
        super().__init__(**kwargs)
        self.units = check_units(units)
        check(len(self.units) > 0, "units", "hold at least one size", units)
        self.activation = keras.activations.get(activation)
        self.scale_map = scale_map
        self.log_scale = get_scale_map(scale_map)

    def build(self, x_shape: Any, condition_shape: Any = None) -> None:
        check(len(x_shape) == 2, "x", "be vectors (batch, features)", f"shape {tuple(x_shape)}")
        size = x_shape[-1]
        check(size is not None and size > 0, "x", "have at least 1 feature", f"shape {tuple(x_shape)}")
        degrees = np.arange(1, size + 1)
        # A single feature has none before it: the network sees a constant in its place, of a degree less.
        outputs = np.repeat(degrees + (size == 1), 2)
        self.hidden = []
        for units in self.units:
            wider = spread_degrees(units, max(1, size - 1))
            self.hidden.append(MaskedDense(degrees, wider, kernel_initializer="he_normal", dtype=self.dtype_policy))
            self.hidden[-1].build((None, len(degrees)))
            degrees = wider
        options = {"strict": True, "kernel_initializer": "zeros", "dtype": self.dtype_policy}
        self.last = MaskedDense(degrees, outputs, **options)
        self.last.build((None, len(degrees)))
        if condition_shape is not None:
            self.from_condition = Dense(self.units[0], dtype=self.dtype_policy)
            self.from_condition.build(condition_shape if len(condition_shape) > 1 else (*condition_shape, 1))

    def forward_and_log_det(self, x: Any, condition: Any = None, training: bool = False) -> tuple[Any, Any]:
        shift, log_scale = self._conditioned(x, condition)
        return x * ops.exp(log_scale) + shift, sum_per_sample(log_scale)

    def inverse_and_log_det(self, y: Any, condition: Any = None, training: bool = False) -> tuple[Any, Any]:
        size = y.shape[-1]

        def solve_next(i: Any, x: Any) -> Any:
            shift, log_scale = self._conditioned(x, condition)
            return ops.where(ops.arange(size, dtype="int32") == i, (y - shift) * ops.exp(-log_scale), x)

        x = sequential_loop(0, size, solve_next, ops.zeros_like(y))
        return x, -sum_per_sample(self._conditioned(x, condition)[1])

    def _conditioned(self, x: Any, condition: Any) -> tuple[Any, Any]:
        h = self.hidden[0](x if x.shape[-1] > 1 else ops.ones_like(x))
        if condition is not None:
            h = h + self.from_condition(condition if len(condition.shape) > 1 else condition[:, None])
        for layer in self.hidden[1:]:
            h = layer(self.activation(h))
        output = ops.cast(self.last(self.activation(h)), self.bijection_dtype)
        output = ops.reshape(output, (*ops.shape(x), 2))
        return output[..., 0], self.log_scale(output[..., 1])

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "units": self.units,
            "activation": keras.activations.serialize(self.activation),
            "scale_map": keras.saving.serialize_keras_object(self.scale_map),
        }
