from collections.abc import Sequence
from typing import Any

from keras_gen.core.checks import check_depth, check_units
from keras_gen.export import keras_gen_export
from keras_gen.flows.bijector import Bijector
from keras_gen.flows.compose import Chain, MultiScale
from keras_gen.flows.coupling import AffineCoupling
from keras_gen.flows.dequantize import Dequantize
from keras_gen.flows.elementwise import ActNorm, LogitTransform
from keras_gen.flows.flow import Flow
from keras_gen.flows.shape import Squeeze


@keras_gen_export("keras_gen.models.RealNVP")
class RealNVP(Flow):
    """RealNVP: affine couplings of alternating halves, for vectors or, in a multi-scale architecture, for images.

    An `ActNorm` precedes each coupling, in place of the paper's batch normalization. For images, each scale has
    `num_couplings` checkerboard couplings, a `Squeeze`, and `num_couplings` channel couplings; then half of the
    channels are factored out. The last scale has only checkerboard couplings.

    Args:
        num_couplings: int >= 1. In total for vectors; of each kind per scale for images. Defaults to `8`.
        units: sizes of the hidden layers of each network. Defaults to `(64, 64)`.
        scales: int >= 0. Number of squeezes of images; 0 for vectors. Defaults to `0`.
        levels: int, number of possible pixel values of images in [-1, 1]; or `None` for continuous data. Defaults to
            `None`.
        seed: int or `None`. Seeds the model's random draws. Defaults to `None`, a seed from Keras's global one.
        **kwargs: `name`, `dtype`, `trainable`, as for any Keras model.

    Call arguments:
        x: data `(batch, ...)`.

    Returns:
        The data unchanged; see `fit`, `log_prob`, `sample`, `encode` and `decode`.

    Raises:
        ValueError: if an argument is out of range, or images cannot be halved at every scale.

    Example:

    >>> model = keras_gen.models.RealNVP()          # or RealNVP(3, scales=2, levels=256) for images
    >>> model.compile(keras.optimizers.Adam(1e-3))
    >>> model.fit(points)                           # float32 (n, 2)
    >>> new = model.sample(500, seed=0)             # float32 (500, 2)

    Reference: https://kexue.fm/archives/5807; Dinh et al. 2016, arXiv:1605.08803.
    """

    def __init__(
        self,
        num_couplings: int = 8,
        units: Sequence[int] = (64, 64),
        scales: int = 0,
        levels: int | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ):
        check_depth("num_couplings", num_couplings)
        check_depth("scales", scales, at_least=0)
        dtype: dict[str, Any] = {"dtype": kwargs.get("dtype")}

        def couplings(split: str, first: int = 0) -> list[Bijector]:
            pairs = (
                (ActNorm(**dtype), AffineCoupling(units=units, split=split, flip=i % 2 == 1, **dtype))
                for i in range(first, first + num_couplings)
            )
            return [bijector for pair in pairs for bijector in pair]

        front = [] if levels is None else [Dequantize(levels, seed=seed, **dtype), LogitTransform(**dtype)]
        if scales == 0:
            bijectors = couplings("half")
        else:
            scale = (
                Chain([*couplings("checkerboard"), Squeeze(**dtype), *couplings("channel")], **dtype)
                for _ in range(scales)
            )
            bijectors = [MultiScale([*scale, Chain(couplings("checkerboard"), **dtype)], **dtype)]
        super().__init__(Chain([*front, *bijectors], **dtype), "normal", seed, **kwargs)
        self.preset = {"num_couplings": num_couplings, "units": check_units(units), "scales": scales, "levels": levels}

    def get_config(self) -> dict[str, Any]:
        return {**super(Flow, self).get_config(), **self.preset}
