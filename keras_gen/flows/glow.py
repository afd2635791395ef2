from collections.abc import Sequence
from typing import Any

from keras_gen.core.checks import check_depth, check_flag, check_units
from keras_gen.core.random import check_seed
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
    """Glow: multi-scale flow of activation normalization, invertible 1 x 1 convolutions and affine couplings.

    After each scale but the last, half of the channels are factored out: Gaussian, with mean and scale predicted from
    the other half by a convolution (learned prior).

    Args:
        scales: int >= 1. Number of scales, each with one `Squeeze`. Defaults to `2`.
        steps: int >= 1. Number of steps per scale. Defaults to `4`.
        units: numbers of hidden filters of each coupling network. Defaults to `(64, 64)`.
        levels: int, number of possible pixel values of images in [-1, 1]; or `None` for continuous data. Defaults to
            `256`.
        seed: int or `None`. Seeds the model's random draws and the initial rotations. Defaults to `None`, seeds from
            Keras's global one.
        remat: bool. Whether to recompute the coupling networks in the backward pass to save memory (gradient
            checkpointing). Defaults to `False`.
        **kwargs: `name`, `dtype`, `trainable`, as for any Keras model.

    Call arguments:
        x: images `(batch, height, width, channels)`, in [-1, 1] unless `levels` is `None`.

    Returns:
        The data unchanged; see `fit`, `log_prob`, `sample`, `encode` and `decode`.

    Raises:
        ValueError: if an argument is out of range, or height or width is not divisible by 2^scales.

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
        remat: bool = False,
        **kwargs: Any,
    ):
        check_depth("scales", scales)
        check_depth("steps", steps)
        seed, remat = check_seed(seed), check_flag("remat", remat)
        dtype: dict[str, Any] = {"dtype": kwargs.get("dtype")}

        def step(i: int) -> list[Bijector]:
            rotation = Invertible1x1Conv(seed=None if seed is None else seed + i, **dtype)
            return [ActNorm(**dtype), rotation, AffineCoupling(units=units, split="channel", remat=remat, **dtype)]

        def scale(i: int) -> Chain:
            bijectors = [bijector for k in range(steps) for bijector in step(i * steps + k)]
            prior = [AffineCoupling(units=[], split="channel", flip=True, **dtype)] if i < scales - 1 else []
            return Chain([Squeeze(**dtype), *bijectors, *prior], **dtype)

        front = [] if levels is None else [Dequantize(levels, seed=seed, **dtype)]
        bijectors = [*front, MultiScale([scale(i) for i in range(scales)], **dtype)]
        super().__init__(Chain(bijectors, **dtype), "normal", seed, **kwargs)
        self.preset = {
            "scales": scales,
            "steps": steps,
            "units": check_units(units),
            "levels": levels,
            "remat": remat,
        }

    def get_config(self) -> dict[str, Any]:
        return {**super(Flow, self).get_config(), **self.preset}
