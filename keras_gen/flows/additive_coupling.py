from typing import Any

from keras_gen.core.per_sample import for_each_sample
from keras_gen.export import keras_gen_export
from keras_gen.flows.coupling import Coupling


@keras_gen_export("keras_gen.layers.AdditiveCoupling")
class AdditiveCoupling(Coupling):
    """Additive coupling of NICE: adds to one half what a network makes of the other.

        y_a = x_a,   y_b = x_b + m(x_a),   log_det = 0

    Args:
        conditioner: a Keras layer or model `m`. It is called with the half `x_a`, or with a list of it and the
            condition, and its output is added to `x_b`. Defaults to `None`, a `Conditioner` with `units`.
        units: sizes of the hidden layers of the default conditioner. Defaults to `None`.
        split: `"half"`, `"interleave"`, of the last axis; for images also `"channel"`, `"checkerboard"`. Defaults to
            `"half"`.
        flip: bool. Whether the second half is the unchanged one. Defaults to `False`.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        x: `(batch, features)` or `(batch, height, width, channels)`.
        condition: `(batch, ...)` or `None`. Goes to the conditioner. Defaults to `None`.
        inverse: bool. Defaults to `False`.
        training: bool. Defaults to `False`.

    Returns:
        y: a float32 tensor like `x`.
        log_det: float32 `(batch,)`, zeros.

    Raises:
        ValueError: if not exactly one of `conditioner` and `units` is given, the data cannot be halved, or the
            conditioner's output has not the shape of a half.

    Example:

    >>> y, log_det = keras_gen.layers.AdditiveCoupling(units=[64, 64], split="interleave")(x)

    Reference: https://kexue.fm/archives/5776; Dinh et al. 2014, arXiv:1410.8516, section 3.2.
    """

    parameters_per_number = 1

    def transform(self, x: Any, parameters: Any, inverse: bool) -> tuple[Any, Any]:
        shift = parameters[..., 0]
        return (x - shift if inverse else x + shift), for_each_sample(0, x)
