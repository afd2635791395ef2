"""The autoencoder of latent diffusion, as in Stable Diffusion."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_gen.core.checks import (
    check,
    check_flag,
    check_image_shape,
    check_integer,
    check_positive,
    is_number,
    known_shape,
    known_size,
)
from keras_gen.core.foreign.weights import Entry, ForeignWeights
from keras_gen.core.frozen import freeze_layers, frozen_layers
from keras_gen.export import keras_gen_export
from keras_gen.latent.latent_model import GaussianLatentModel
from keras_gen.latent.likelihoods import Likelihood
from keras_gen.latent.tiles import in_tiles
from keras_gen.networks.backbones.autoencoder_kl import AutoencoderNetworks
from keras_gen.networks.backbones.autoencoder_kl_weights import (
    LAYERS,
    SIZES,
    autoencoder_arguments,
    autoencoder_config,
    autoencoder_table,
)
from keras_gen.networks.backbones.image_network import check_levels, downsampling_multiple


@keras_gen_export("keras_gen.models.AutoencoderKL")
class AutoencoderKL(ForeignWeights, GaussianLatentModel):
    """Convolutional variational autoencoder of latent diffusion, as in Stable Diffusion: images to small latents.

        q(z | x) = N(mean(x), exp(log_var(x))),   p(z) = N(0, I)
        loss = E_q[-log p(x | z)] + kl_weight KL(q(z | x) || p(z))

    The networks are those of `AutoencoderKL` of the library diffusers: residual blocks on levels of halved height and
    width, one head of self-attention on the coarsest one. All methods take images of any size that is a multiple of
    `2^(levels - 1)`. Train with `fit(images)`, or read trained weights with `from_diffusers`, then train a diffusion
    model on the latents: `LatentDiffusion(autoencoder, diffusion)`. With so small a `kl_weight` the latents are far
    from N(0, I), and without a diffusion model `sample` draws no proper images.

    Args:
        image_shape: `(height, width, channels)`. Height and width, multiples of `2^(levels - 1)`, are those of the
            images that `sample` draws, or `None`: then it needs `noise`, whose size they take.
        latent_channels: int >= 1. Defaults to `4`.
        widths: ints >= 1, channels of each level from fine to coarse. Defaults to `(128, 256, 512, 512)`.
        blocks_per_level: int >= 1. Residual blocks per encoder level; the decoder has one more. Defaults to `2`.
        groups: int >= 1. Groups of all normalizations. Must divide all widths. Defaults to `32`.
        latent_convolutions: bool. Whether the encoder ends, and the decoder begins, with a 1 x 1 convolution, as in
            Stable Diffusion 1 and 2, but not 3. Defaults to `True`.
        likelihood: `"laplace"`, the absolute error, `"gaussian"`, half the squared error, or a `Likelihood`. Defaults
            to `"laplace"`.
        kl_weight: float >= 0, or a `keras.optimizers.schedules.LearningRateSchedule` of the training step. Defaults to
            `1e-6`.
        scaling_factor: float > 0. Defaults to `1.0`.
        shift_factor: float. The latents that a pretrained diffusion model takes are `(z - shift_factor)
            scaling_factor`, for `z` of `encode`. Defaults to `0.0`.
        remat: bool. Whether to recompute blocks in the backward pass to save memory (gradient checkpointing). Defaults
            to `False`.
        seed: int or `None`. Seed of all random draws. Defaults to `None`, a seed from Keras's global generator.
        **kwargs: `name`, `dtype`, `trainable`, as for any Keras model.

    Call arguments:
        x: images `(batch, height, width, channels)`, scaled to [-1, 1].

    Returns:
        The images unchanged; use `fit`, `encode`, `decode`, `reconstruct`, `sample` and `elbo`, or the Keras models
        `encoder`, from images to a list of `mean` and `log_var`, and `decoder`.

    Raises:
        ValueError: if an argument is outside its range, or an image's size is not such a multiple.

    Example:

    >>> model = keras_gen.models.AutoencoderKL((32, 32, 3), widths=(32, 64), groups=8)
    >>> model.compile(keras.optimizers.Adam(1e-4))
    >>> model.fit(images)                     # float32 (n, 32, 32, 3) in [-1, 1]
    >>> z = model.encode(images)              # float32 (n, 16, 16, 4)
    >>> model = keras_gen.models.AutoencoderKL.from_diffusers("stable-diffusion/vae")
    >>> large = model.decode(z, tile_size=512)

    Reference: Rombach et al. 2021, arXiv:2112.10752, section 3.1; Kingma and Welling 2013, arXiv:1312.6114.
    """

    foreign_classes = ("AutoencoderKL",)
    foreign_sizes, foreign_layers = SIZES, LAYERS

    def __init__(
        self,
        image_shape: Sequence[int | None],
        latent_channels: int = 4,
        widths: Sequence[int] = (128, 256, 512, 512),
        blocks_per_level: int = 2,
        groups: int = 32,
        latent_convolutions: bool = True,
        likelihood: str | Likelihood = "laplace",
        kl_weight: Any = 1e-6,
        scaling_factor: float = 1.0,
        shift_factor: float = 0.0,
        remat: bool = False,
        seed: int | None = None,
        dtype: Any = None,
        **kwargs: Any,
    ):
        widths = check_levels(image_shape, widths, blocks_per_level)
        groups = check_integer("groups", groups)
        check(all(width % groups == 0 for width in widths), "groups", f"divide the widths {widths}", groups)
        networks = AutoencoderNetworks(
            known_size("image_shape", image_shape),
            check_integer("latent_channels", latent_channels),
            widths,
            int(blocks_per_level),
            groups,
            check_flag("latent_convolutions", latent_convolutions),
            check_flag("remat", remat),
            dtype,
        )
        check(is_number(shift_factor), "shift_factor", "be a number", repr(shift_factor))
        super().__init__(networks.encoder(), networks.decoder(), likelihood, kl_weight, seed, dtype=dtype, **kwargs)
        self.image_shape = tuple(image_shape)
        self.latent_channels = networks.latent_channels
        self.widths = widths
        self.blocks_per_level = networks.blocks_per_level
        self.groups = groups
        self.latent_convolutions = latent_convolutions
        self.scaling_factor = check_positive("scaling_factor", scaling_factor)
        self.shift_factor = float(shift_factor)
        self.remat = remat
        self.multiple, self._reason = downsampling_multiple(widths)
        self.build((None, *self.image_shape))

    def build(self, input_shape: Any) -> None:
        super().build((None, None, None, input_shape[-1]))  # images of any size

    def check_batch(self, x: Any, y: Any) -> None:
        super().check_batch(x, y)
        self._check_size("x", x.shape)

    def prepare_data(self, name: str, x: Any) -> np.ndarray:
        x = super().prepare_data(name, x)
        self._check_size(name, x.shape)
        return x

    def drawn_shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        rule = "have a height and a width for samples without `noise`, and for graphs"
        height, width, channels = known_shape(self.image_shape, "image_shape", rule, self.image_shape)
        latents = height // self.multiple, width // self.multiple, self.latent_channels
        return (height, width, channels), latents

    def encode(self, x: Any, batch_size: int = 16, tile_size: int | None = None) -> np.ndarray:
        """Encodes images to the means of their latents.

        Args:
            x: images `(n, height, width, channels)`.
            batch_size: int >= 1. Number of images, or tiles, encoded at a time. Defaults to `16`.
            tile_size: int or `None`. Height and width of the tiles in which larger images are encoded, to save memory,
                a multiple of the factor between images and latents. Tiles overlap by a quarter and blend; each has
                statistics of its own, so that the result differs a little from that of the whole. Defaults to `None`,
                images as a whole.

        Returns:
            float32 array `(n, height / multiple, width / multiple, latent_channels)`, neither scaled nor shifted.

        Raises:
            ValueError: if `x` is incompatible with the model, or `tile_size` is not such a multiple.
        """
        x, encode = self.prepare_data("x", x), functools.partial(super().encode, batch_size=batch_size)
        return encode(x) if tile_size is None else in_tiles(encode, x, self._tile_side(tile_size), self.multiple, 1)

    def decode(self, z: Any, batch_size: int = 16, tile_size: int | None = None) -> np.ndarray:
        """Decodes latents to images.

        Args:
            z: `(n, height, width, latent_channels)`, neither scaled nor shifted.
            batch_size: int >= 1. Number of images, or tiles, decoded at a time. Defaults to `16`.
            tile_size: int or `None`. Height and width, in pixels, of the tiles in which larger images are decoded, as
                for `encode`. Defaults to `None`, images as a whole.

        Returns:
            float32 array `(n, multiple height, multiple width, channels)`.

        Raises:
            ValueError: if `z` is incompatible with the model, or `tile_size` is not such a multiple.
        """
        z, decode = self.prepare_latents("z", z), functools.partial(super().decode, batch_size=batch_size)
        return decode(z) if tile_size is None else in_tiles(decode, z, self._tile_side(tile_size), 1, self.multiple)

    @classmethod
    def foreign_arguments(cls, config: dict[str, Any]) -> dict[str, Any]:
        return autoencoder_arguments(config)

    def foreign_config(self) -> dict[str, Any]:
        return autoencoder_config(self)

    def foreign_table(self) -> list[Entry]:
        return autoencoder_table(self)

    def get_config(self) -> dict[str, Any]:
        config, frozen = super().get_config(), frozen_layers(self)
        del config["encoder"], config["decoder"]  # the constructor makes them
        own = {
            "image_shape": self.image_shape,
            "latent_channels": self.latent_channels,
            "widths": self.widths,
            "blocks_per_level": self.blocks_per_level,
            "groups": self.groups,
            "latent_convolutions": self.latent_convolutions,
            "scaling_factor": self.scaling_factor,
            "shift_factor": self.shift_factor,
            "remat": self.remat,
        }
        # The constructor builds the model, for which Keras then leaves out the configuration for `build`.
        return {**config, **own, **({"frozen": frozen} if frozen else {})}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "AutoencoderKL":
        arguments = {key: value for key, value in config.items() if key != "frozen"}
        model = super().from_config(arguments, custom_objects)
        if "frozen" in config:
            freeze_layers(model, config["frozen"])
        return model

    def _check_size(self, name: str, shape: Sequence[int | None]) -> None:
        check_image_shape(name, tuple(shape[1:]), self.multiple, self._reason)

    def _tile_side(self, tile_size: Any) -> int:
        """Returns the side of a tile in latents."""
        check_integer("tile_size", tile_size)
        check(tile_size % self.multiple == 0, "tile_size", f"be a multiple of {self.multiple}", tile_size)
        return tile_size // self.multiple
