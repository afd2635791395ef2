from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_gen.core.per_sample import per_sample
from keras_gen.export import keras_gen_export
from keras_gen.flows.coupling import Coupling
from keras_gen.flows.scale_maps import get_scale_map


@keras_gen_export("keras_gen.layers.AffineCoupling")
class AffineCoupling(Coupling):
    """Affine coupling of RealNVP: scales and shifts one half by what a network makes of the other.

        t, s = conditioner(x_a);   y_a = x_a,   y_b = x_b exp(g(s)) + t,   log_det = sum g(s)

    The scale map `g` bounds the scale, so that neither direction overflows: `"tanh"`, 2 tanh(s / 2), or `"softclip"`,
    s / (1 + |s| / log 1000). `"sigmoid"`, log sigmoid(s + 2), bounds it from above alone, and `"exp"`, s itself, not at
    all.

    Args:
        conditioner: a Keras layer or model. It is called with the half `x_a`, or with a list of it and the condition.
            The last axis of its output is twice that of `x_b`: shift and `s` of the first number, of the second, ...
            Defaults to `None`, a `Conditioner` with `units`.
        units: sizes of the hidden layers of the default conditioner. Defaults to `None`.
        split: `"half"`, `"interleave"`, of the last axis; for images also `"channel"`, `"checkerboard"`. Defaults to
            `"half"`.
        flip: bool. Whether the second half is the unchanged one. Defaults to `False`.
        scale_map: name of the scale map `g`, or a serializable function. Defaults to `"tanh"`.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        x: `(batch, features)` or `(batch, height, width, channels)`.
        condition: `(batch, ...)` or `None`. Goes to the conditioner. Defaults to `None`.
        inverse: bool. Defaults to `False`.
        training: bool. Defaults to `False`.

    Returns:
        y: a float32 tensor like `x`.
        log_det: float32 `(batch,)`.

    Raises:
        ValueError: if not exactly one of `conditioner` and `units` is given, the data cannot be halved, the
            conditioner's output does not fit, or the scale map is unknown.

    Example:

    >>> y, log_det = keras_gen.layers.AffineCoupling(units=[64, 64])(x)

    Reference: https://kexue.fm/archives/5807; Dinh et al. 2016, arXiv:1605.08803, section 3.2.
    """

    parameters_per_number = 2

    def __init__(
        self,
        conditioner: keras.Layer | None = None,
        units: Sequence[int] | None = None,
        split: str = "half",
        flip: bool = False,
        scale_map: Any = "tanh",
        **kwargs: Any,
    ):
        super().__init__(conditioner, units, split, flip, **kwargs)
        self.scale_map = scale_map
        self.log_scale = get_scale_map(scale_map)

    def transform(self, x: Any, parameters: Any, inverse: bool) -> tuple[Any, Any]:
        shift, log_scale = parameters[..., 0], self.log_scale(parameters[..., 1])
        if inverse:
            return (x - shift) * ops.exp(-log_scale), -per_sample(log_scale)
        return x * ops.exp(log_scale) + shift, per_sample(log_scale)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "scale_map": keras.saving.serialize_keras_object(self.scale_map)}
