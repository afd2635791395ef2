from collections.abc import Sequence
from typing import Any

import keras

from keras_gen.core.checks import check_depth, check_units
from keras_gen.export import keras_gen_export
from keras_gen.flows.compose import Chain
from keras_gen.flows.coupling import AdditiveCoupling
from keras_gen.flows.dequantize import Dequantize
from keras_gen.flows.distributions import Base
from keras_gen.flows.elementwise import ActNorm, Scale
from keras_gen.flows.flow import Flow
from keras_gen.flows.shape import Reshape


@keras_gen_export("keras_gen.models.NICE")
class NICE(Flow):
    """NICE: additive couplings of alternating halves, the even and the odd dimensions, then a learned scaling.

        y_a = x_a,   y_b = x_b + m(x_a),   log_det = 0          each coupling, with a network m
        z = exp(s) y,   log p(x) = sum_i log p(z_i) + sum_i s_i     with a learned scale s

    Images are flattened. Unlike in the paper, the scaling is initialized from the first batch, by an `ActNorm`, and
    learns 20 times as fast as the networks: otherwise it would take most of the training to reach its values.

    Args:
        num_couplings: int >= 1. Defaults to `4`.
        units: sizes of the hidden layers of each network. Defaults to `(1000, 1000, 1000, 1000, 1000)`.
        levels: int, number of possible pixel values of images in [-1, 1]; or `None` for continuous data. Defaults to
            `256`.
        base: as for `Flow`. Defaults to `"logistic"`.
        seed: int or `None`. Seeds the model's random draws. Defaults to `None`, a seed from Keras's global one.
        **kwargs: `name`, `dtype`, `trainable`, as for any Keras model.

    Call arguments:
        x: data `(batch, ...)`.

    Returns:
        The data unchanged; see `fit`, `log_prob`, `sample`, `encode` and `decode`.

    Raises:
        ValueError: if an argument is out of range, or the size of an axis is unknown.

    Example:

    >>> model = keras_gen.models.NICE(units=(256, 256))
    >>> model.compile(keras.optimizers.AdamW(1e-3))
    >>> model.fit(images)                           # float32 (n, 28, 28, 1) in [-1, 1]
    >>> new = model.sample(16, seed=0)              # float32 (16, 28, 28, 1)
    >>> density = model.log_prob(images) + 784 * np.log(256)    # of pixels in [0, 1], as in the paper

    Reference: https://kexue.fm/archives/5776; Dinh et al. 2014, arXiv:1410.8516.
    """

    def __init__(
        self,
        num_couplings: int = 4,
        units: Sequence[int] = (1000, 1000, 1000, 1000, 1000),
        levels: int | None = 256,
        base: str | Base = "logistic",
        seed: int | None = None,
        **kwargs: Any,
    ):
        check_depth("num_couplings", num_couplings)
        dtype: dict[str, Any] = {"dtype": kwargs.get("dtype")}
        couplings = [
            AdditiveCoupling(units=units, split="interleave", flip=i % 2 == 1, **dtype) for i in range(num_couplings)
        ]
        front = [] if levels is None else [Dequantize(levels, seed=seed, **dtype)]
        bijectors = [*front, Reshape(**dtype), *couplings, ActNorm(**dtype), Scale(rate=20.0, **dtype)]
        super().__init__(Chain(bijectors, **dtype), base, seed, **kwargs)
        self.preset = {"num_couplings": num_couplings, "units": check_units(units), "levels": levels}

    def get_config(self) -> dict[str, Any]:
        return {**super(Flow, self).get_config(), **self.preset, "base": keras.saving.serialize_keras_object(self.base)}
