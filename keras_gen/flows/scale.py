from typing import Any

from keras import ops

from keras_gen.core.checks import check, is_number
from keras_gen.core.per_sample import for_each_sample
from keras_gen.export import keras_gen_export
from keras_gen.flows.bijector import Bijector
from keras_gen.flows.places import places


@keras_gen_export("keras_gen.layers.Scale")
class Scale(Bijector):
    """Scales each feature, or each channel: the last layer of NICE.

        y = x exp(s),   s = rate w,   log_det = places sum(s)

    with one weight w, at first 0, for each entry of the last axis; `places` is how many such entries a sample has.

    Args:
        rate: float > 0. With Adam and its kin, `s` learns `rate` times as fast as other weights. A scale has far to go
            (NICE on MNIST: from 0 to 6), weights of networks have not. Defaults to `1.0`.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        x: `(batch, ..., features)`.
        condition: is ignored. Defaults to `None`.
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
        check(is_number(rate) and 0 < rate < float("inf"), "rate", "be > 0 and finite", repr(rate))
        self.rate = float(rate)

    def build(self, x_shape: Any, condition_shape: Any = None) -> None:
        self.places = places(x_shape)
        self.log_scale = self.add_weight(name="log_scale", shape=(x_shape[-1],), initializer="zeros")

    def forward_and_log_det(self, x: Any, condition: Any = None, training: bool = False) -> tuple[Any, Any]:
        s = self._s()
        return x * ops.exp(s), for_each_sample(self.places * ops.sum(s), x)

    def inverse_and_log_det(self, y: Any, condition: Any = None, training: bool = False) -> tuple[Any, Any]:
        s = self._s()
        return y * ops.exp(-s), for_each_sample(-self.places * ops.sum(s), y)

    def _s(self) -> Any:
        return self.rate * ops.cast(self.log_scale, self.bijection_dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate}
