from collections.abc import Sequence
from typing import Any

from keras_gen.core.checks import check_integer, check_units
from keras_gen.export import keras_gen_export
from keras_gen.flows.bijector import Bijector
from keras_gen.flows.compose import Chain, MultiScale
from keras_gen.flows.coupling import AffineCoupling
from keras_gen.flows.dequantize import Dequantize
from keras_gen.flows.elementwise import ActNorm
from keras_gen.flows.flow import Flow
from keras_gen.flows.invertible_1x1_conv import Invertible1x1Conv
from keras_gen.flows.shape import Squeeze


@keras_gen_export("keras_gen.models.Glow")
class Glow(Flow):
    """Glow: at several scales, steps of activation normalization, 1 x 1 convolution and affine coupling of channels.

    After each scale but the last, half of the channels are done: normal, with moments that a convolution makes of the
    other half.

    Args:
        scales: int >= 1. How often the images are squeezed. Defaults to `2`.
        steps: int >= 1. Steps of each scale. Defaults to `4`.
        units: numbers of filters of the hidden layers of each network. Defaults to `(64, 64)`.
        levels: int, how many values a pixel of images in [-1, 1] has; or `None` for continuous data. Defaults to
            `256`.
        seed: int or `None`. Seeds the draws of the model and the first rotations. Defaults to `None`, seeds from
            Keras's global one.
        **kwargs: `name`, `dtype`, `trainable`, as for any Keras model.

    Call arguments:
        x: images `(batch, height, width, channels)`, in [-1, 1] if there are `levels`.

    Returns:
        The data unchanged: the work is in `fit`, `log_prob`, `sample`, `encode` and `decode`.

    Raises:
        ValueError: if an argument is out of range, or the images cannot be halved so often.

    Example:

    >>> model = keras_gen.models.Glow()
    >>> model.compile(keras.optimizers.Adam(1e-3, clipnorm=50.0))
    >>> model.fit(images)                                   # float32 (n, 28, 28, 1) in [-1, 1]
    >>> new = model.sample(16, temperature=0.7, seed=0)     # float32 (16, 28, 28, 1)

    Reference: https://kexue.fm/archives/5807; Kingma and Dhariwal 2018, arXiv:1807.03039.
    """

    def __init__(
        self,
        scales: int = 2,
        steps: int = 4,
        units: Sequence[int] = (64, 64),
        levels: int | None = 256,
        seed: int | None = None,
        **kwargs: Any,
    ):
        check_integer("scales", scales)
        check_integer("steps", steps)
        dtype = {"dtype": kwargs.get("dtype")}

        def step(i: int) -> list[Bijector]:
            rotation = Invertible1x1Conv(seed=None if seed is None else seed + i, **dtype)
            return [ActNorm(**dtype), rotation, AffineCoupling(units=units, split="channel", **dtype)]

        def scale(i: int) -> Chain:
            bijectors = [bijector for k in range(steps) for bijector in step(i * steps + k)]
            prior = [AffineCoupling(units=[], split="channel", flip=True, **dtype)] if i < scales - 1 else []
            return Chain([Squeeze(**dtype), *bijectors, *prior], **dtype)

        front = [] if levels is None else [Dequantize(levels, seed=seed, **dtype)]
        bijectors = [*front, MultiScale([scale(i) for i in range(scales)], **dtype)]
        super().__init__(Chain(bijectors, **dtype), "normal", seed, **kwargs)
        self.own = {"scales": scales, "steps": steps, "units": check_units(units), "levels": levels}

    def get_config(self) -> dict[str, Any]:
        return {**super(Flow, self).get_config(), **self.own}
