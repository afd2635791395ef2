from typing import Any

from keras import ops

from keras_gen.core.per_sample import for_each_sample
from keras_gen.export import keras_gen_export
from keras_gen.flows.bijector import Bijector
from keras_gen.flows.places import places

LEAST_STD = 1e-6


@keras_gen_export("keras_gen.layers.ActNorm")
class ActNorm(Bijector):
    """Activation normalization of Glow: the first training batch comes out with mean 0 and deviation 1.

        y = (x - mean) exp(s - log std) + b,   log_det = places sum(s - log std)

    for each feature or channel; `places` is the number of places of an image, 1 for vectors. `mean` and `std` are those
    of the first batch seen in training, kept as weights that are not trained; `s` and `b`, at first 0, are trained.
    Until then the layer is the identity. A loaded layer does not start again.

    Args:
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        x: `(batch, ..., features)`.
        condition: is ignored. Defaults to `None`.
        inverse: bool. Defaults to `False`.
        training: bool. Whether the batch may be the one to start from. Defaults to `False`.

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
        self.places = places(x_shape)
        # Statistics have their own weights: on JAX, what a layer assigns to a trained weight within `fit` is lost.
        self.mean, self.log_std, self.log_scale, self.bias = (
            self.add_weight(name=name, shape=(x_shape[-1],), initializer="zeros", trainable=trainable)
            for name, trainable in (("mean", False), ("log_std", False), ("log_scale", True), ("bias", True))
        )
        self.initialized = self.add_weight(name="initialized", shape=(), dtype="bool", trainable=False)

    def forward_and_log_det(self, x: Any, condition: Any = None, training: bool = False) -> tuple[Any, Any]:
        mean, log_std = self._start(x) if training else self._statistics()
        s = self._read(self.log_scale) - log_std
        return (x - mean) * ops.exp(s) + self._read(self.bias), for_each_sample(self.places * ops.sum(s), x)

    def inverse_and_log_det(self, y: Any, condition: Any = None, training: bool = False) -> tuple[Any, Any]:
        mean, log_std = self._statistics()
        s = self._read(self.log_scale) - log_std
        x = (y - self._read(self.bias)) * ops.exp(-s) + mean
        return x, for_each_sample(-self.places * ops.sum(s), y)

    def _start(self, x: Any) -> tuple[Any, Any]:
        started = ops.convert_to_tensor(self.initialized)
        pairs = zip(self._statistics(), self._statistics_of(x), strict=True)
        mean, log_std = (ops.where(started, stored, new) for stored, new in pairs)
        self.mean.assign(mean)
        self.log_std.assign(log_std)
        self.initialized.assign(True)
        return mean, log_std

    def _statistics(self) -> tuple[Any, Any]:
        # `+ 0`: on some backends the tensor of a variable would change with it.
        return self._read(self.mean) + 0, self._read(self.log_std) + 0

    def _statistics_of(self, x: Any) -> tuple[Any, Any]:
        axes = tuple(range(len(x.shape) - 1))
        x = ops.stop_gradient(x)
        mean = ops.mean(x, axes)
        variance = ops.mean((x - mean) ** 2, axes)  # on torch, `ops.moments` subtracts squares
        return mean, ops.log(ops.maximum(ops.sqrt(variance), LEAST_STD))

    def _read(self, weight: Any) -> Any:
        return ops.cast(weight, self.bijection_dtype)
