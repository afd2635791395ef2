"""Elementwise bijectors."""

import math
from typing import Any

from keras import ops

from keras_gen.core.arrays import broadcast_to_batch, clip, sum_per_sample
from keras_gen.core.checks import check, check_positive, is_number
from keras_gen.core.replicas import whole_batch
from keras_gen.export import keras_gen_export
from keras_gen.flows.bijector import Bijector, num_positions


@keras_gen_export("keras_gen.layers.Scale", also=("keras_gen.bijectors.Scale",))
class Scale(Bijector):
    """Learned scaling of each feature or channel: the last layer of NICE.

        y = x exp(s),   s = rate w,   log_det = num_positions sum(s)

    with one weight w, initially 0, for each feature or channel; `num_positions` is height x width for images, else 1.

    Args:
        rate: float > 0. Learning rate multiplier of `s` under optimizers such as Adam. A scale has to move far (NICE on
            MNIST: from 0 to 6), network weights do not. Defaults to `1.0`.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        x: `(batch, ..., features)`.
        condition: ignored. Defaults to `None`.
        inverse: bool. Defaults to `False`.
        training: bool. Defaults to `False`.

    Returns:
        y: a float32 tensor like `x`.
        log_det: float32 `(batch,)`.

    Raises:
        ValueError: if `rate` is not positive, or the size of an axis is unknown.

    Example:

    >>> y, log_det = keras_gen.layers.Scale(rate=20.0)(x)

    Reference: https://kexue.fm/archives/5776; Dinh et al. 2014, arXiv:1410.8516, section 3.3.
    """

    def __init__(self, rate: float = 1.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.rate = check_positive("rate", rate)

    def build(self, x_shape: Any, condition_shape: Any = None) -> None:
        self.num_positions = num_positions(x_shape)
        self.log_scale = self.add_weight(name="log_scale", shape=(x_shape[-1],), initializer="zeros")

    def forward_and_log_det(self, x: Any, condition: Any = None, training: bool = False) -> tuple[Any, Any]:
        s = self._s()
        return x * ops.exp(s), broadcast_to_batch(self.num_positions * ops.sum(s), x)

    def inverse_and_log_det(self, y: Any, condition: Any = None, training: bool = False) -> tuple[Any, Any]:
        s = self._s()
        return y * ops.exp(-s), broadcast_to_batch(-self.num_positions * ops.sum(s), y)

    def _s(self) -> Any:
        return self.rate * ops.cast(self.log_scale, self.bijection_dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate}


LEAST_SPREAD = 1e-6  # relative to 1 + |mean|: below it, a deviation may be that of rounding


@keras_gen_export("keras_gen.layers.ActNorm", also=("keras_gen.bijectors.ActNorm",))
class ActNorm(Bijector):
    """Activation normalization of Glow: the first training batch is normalized to mean 0 and standard deviation 1.

        y = (x - mean) exp(s - log std) + b,   log_det = num_positions sum(s - log std)

    for each feature or channel; `num_positions` is height x width for images, else 1. `mean` and `std` are those of the
    first training batch, stored as non-trainable weights; `s` and `b`, initially 0, are trained. Before that batch the
    layer is the identity. A loaded layer is not initialized again.

    A feature without spread in that batch (a deviation below 1e-6 (1 + |mean|)) keeps its scale: its `std` is 1. So do
    all features of a first batch of one vector.

    Args:
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        x: `(batch, ..., features)`.
        condition: ignored. Defaults to `None`.
        inverse: bool. Defaults to `False`.
        training: bool. Whether to initialize from the batch, unless already initialized. Defaults to `False`.

    Returns:
        y: a float32 tensor like `x`.
        log_det: float32 `(batch,)`.

    Raises:
        ValueError: if the size of an axis is unknown.

    Example:

    >>> y, log_det = keras_gen.layers.ActNorm()(x, training=True)

    Reference: Kingma and Dhariwal 2018, arXiv:1807.03039, section 3.1.
    """

    def build(self, x_shape: Any, condition_shape: Any = None) -> None:
        self.num_positions = num_positions(x_shape)
        # Statistics have their own weights: on JAX, assignments to trainable weights within `fit` are lost.
        self.mean, self.log_std, self.log_scale, self.bias = (
            self.add_weight(name=name, shape=(x_shape[-1],), initializer="zeros", trainable=trainable)
            for name, trainable in (("mean", False), ("log_std", False), ("log_scale", True), ("bias", True))
        )
        self.initialized = self.add_weight(name="initialized", shape=(), dtype="bool", trainable=False)

    def forward_and_log_det(self, x: Any, condition: Any = None, training: bool = False) -> tuple[Any, Any]:
        mean, log_std = self._start(x) if training else self._statistics()
        s = self._read(self.log_scale) - log_std
        return (x - mean) * ops.exp(s) + self._read(self.bias), broadcast_to_batch(self.num_positions * ops.sum(s), x)

    def inverse_and_log_det(self, y: Any, condition: Any = None, training: bool = False) -> tuple[Any, Any]:
        mean, log_std = self._statistics()
        s = self._read(self.log_scale) - log_std
        x = (y - self._read(self.bias)) * ops.exp(-s) + mean
        return x, broadcast_to_batch(-self.num_positions * ops.sum(s), y)

    def _start(self, x: Any) -> tuple[Any, Any]:
        started = ops.convert_to_tensor(self.initialized)
        pairs = zip(self._statistics(), self._statistics_of(x), strict=True)
        mean, log_std = (ops.where(started, stored, new) for stored, new in pairs)
        self.mean.assign(mean)
        self.log_std.assign(log_std)
        self.initialized.assign(True)
        return mean, log_std

    def _statistics(self) -> tuple[Any, Any]:
        # `+ 0` copies: on some backends the tensor of a variable would change with the variable.
        return self._read(self.mean) + 0, self._read(self.log_std) + 0

    def _statistics_of(self, x: Any) -> tuple[Any, Any]:
        axes = tuple(range(len(x.shape) - 1))
        x = ops.stop_gradient(x)
        # An origin among the data, so that sums of features without spread are exactly 0.
        origin = whole_batch.mean(x[(slice(1), *(0,) * (len(axes) - 1))], 0)
        x = x - origin
        mean = whole_batch.mean(x, axes)
        variance = whole_batch.mean((x - mean) ** 2, axes)  # on torch, `ops.moments` computes E[x^2] - E[x]^2
        mean, std = origin + mean, ops.sqrt(variance)
        return mean, ops.log(ops.where(std > LEAST_SPREAD * (1 + abs(mean)), std, 1.0))

    def _read(self, weight: Any) -> Any:
        return ops.cast(weight, self.bijection_dtype)


@keras_gen_export("keras_gen.layers.LogitTransform", also=("keras_gen.bijectors.LogitTransform",))
class LogitTransform(Bijector):
    """Logit transform: maps [0, 1] to the real line.

        p = alpha + (1 - 2 alpha) x,   y = log p - log(1 - p)
        log_det = sum [softplus(y) + softplus(-y) + log(1 - 2 alpha)]

    Outside [0, 1] the density is zero: `log_det` is minus infinity. With `alpha=0`, uniform data become standard
    logistic.

    Args:
        alpha: float in [0, 0.5). Keeps the logits of 0 and 1 finite. Defaults to `0.05`.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        x: `(batch, ...)`, in [0, 1].
        condition: ignored. Defaults to `None`.
        inverse: bool. Defaults to `False`.
        training: bool. Defaults to `False`.

    Returns:
        y: a float32 tensor like `x`.
        log_det: float32 `(batch,)`.

    Raises:
        ValueError: if `alpha` is out of range.

    Example:

    >>> y, log_det = keras_gen.layers.LogitTransform()(x)

    Reference: Dinh et al. 2016, arXiv:1605.08803, section 4.1.
    """

    def __init__(self, alpha: float = 0.05, **kwargs: Any):
        super().__init__(**kwargs)
        check(is_number(alpha) and 0 <= alpha < 0.5, "alpha", "be in [0, 0.5)", repr(alpha))
        self.alpha = float(alpha)

    def forward_and_log_det(self, x: Any, condition: Any = None, training: bool = False) -> tuple[Any, Any]:
        smallest = 1e-15 if self.bijection_dtype == "float64" else 1e-7
        p = clip(self.alpha + (1 - 2 * self.alpha) * x, smallest, 1 - smallest)
        y = ops.log(p) - ops.log1p(-p)
        within = (x >= 0) & (x <= 1)
        return y, sum_per_sample(ops.where(within, self._log_derivative(y), -float("inf")))

    def inverse_and_log_det(self, y: Any, condition: Any = None, training: bool = False) -> tuple[Any, Any]:
        x = (ops.sigmoid(y) - self.alpha) / (1 - 2 * self.alpha)
        return x, -sum_per_sample(self._log_derivative(y))

    def _log_derivative(self, y: Any) -> Any:
        return ops.softplus(y) + ops.softplus(-y) + math.log(1 - 2 * self.alpha)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "alpha": self.alpha}
