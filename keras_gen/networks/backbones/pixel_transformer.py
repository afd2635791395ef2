from collections.abc import Sequence
from typing import Any

from keras import layers

from keras_gen.core.checks import check_depth, check_flag, check_integer, check_integer_or_none
from keras_gen.export import keras_gen_export
from keras_gen.networks.backbones.image_network import ImageNetwork
from keras_gen.networks.blocks.conditioning import embed, network_inputs
from keras_gen.networks.blocks.gated_attention_unit import GatedAttentionUnit
from keras_gen.networks.blocks.patches import check_patches, from_patches, patch_multiple, to_patches
from keras_gen.networks.blocks.rotary import RotaryEmbedding2D

ROTARY_BASE = 1000.0


@keras_gen_export("keras_gen.models.PixelTransformer")
class PixelTransformer(ImageNetwork):
    """Diffusion network without a U-Net: gated attention units over image patches, at a single scale.

    Each patch of pixels is embedded as a token by a linear layer. The sum of time and condition embedding is added to
    all tokens. Position embeddings are `RotaryEmbedding2D(base=1000)`, keys have 128 channels, gates `2 width`. The
    output layer is initialized to zero.

    The post's sizes, for images of 128 x 128 pixels, are `patch_size=8`, `width=768` and `depth=24`; it learns one
    vector for each of 1000 times instead of embedding real times.

    Args:
        image_shape: `(height, width, channels)`. Height and width are multiples of `patch_size`.
        patch_size: int >= 1. Height and width of a patch. Defaults to `2`.
        width: int >= 1. Channels of a token. Defaults to `128`.
        depth: int >= 1. Number of units. Defaults to `4`.
        num_classes: int >= 1 or `None`. If given, the network takes class labels `0 .. num_classes - 1` as a third
            input; the label `num_classes` is the null class of classifier-free guidance. Defaults to `None`.
        condition_dim: int >= 1 or `None`. If given, the network takes vectors of this size as a third input. The null
            condition is the zero vector. Not with `num_classes`. Defaults to `None`.
        out_channels: int >= 1 or `None`. Twice the image's for `DDPM(variance="learned_range")`. Defaults to `None`,
            the channels of the image.
        remat: bool. Whether to recompute blocks in the backward pass to save memory (gradient checkpointing). Defaults
            to `False`.
        **kwargs: `name`, `dtype`, `trainable`, as for any Keras model.

    Call arguments:
        inputs: list of `x_t` `(batch, height, width, channels)`, `t` `(batch,)`, integer or real, and, with
            `num_classes`, labels `(batch,)` int32 or, with `condition_dim`, vectors `(batch, condition_dim)`.

    Returns:
        `(batch, height, width, out_channels)`.

    Raises:
        ValueError: if an argument is outside its range, or an image's size is not a multiple of `patch_size`.

    Reference: https://kexue.fm/archives/9984; Hua et al. 2022, arXiv:2202.10447.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        patch_size: int = 2,
        width: int = 128,
        depth: int = 4,
        num_classes: int | None = None,
        condition_dim: int | None = None,
        out_channels: int | None = None,
        remat: bool = False,
        dtype: Any = None,
        **kwargs: Any,
    ):
        grid = check_patches(image_shape, patch_size)
        check_integer("width", width)
        check_depth("depth", depth)
        check_flag("remat", remat)
        check_integer_or_none("out_channels", out_channels)
        options = {"dtype": dtype}

        inputs = network_inputs(image_shape, num_classes, condition_dim)
        embedding = embed(inputs, width, width, num_classes, dtype=dtype)
        tokens = layers.Dense(width, use_bias=False, name="first_dense", **options)(to_patches(inputs[0], patch_size))
        tokens = layers.Add(**options)([tokens, layers.Reshape((1, width), **options)(embedding)])
        for i in range(depth):
            rotary = RotaryEmbedding2D(*grid, base=ROTARY_BASE, **options)
            tokens = GatedAttentionUnit(2 * width, positions=rotary, remat=remat, name=f"unit_{i}", **options)(tokens)
        tokens = layers.RMSNormalization(epsilon=1e-6, name="last_norm", **options)(tokens)
        pixels = patch_size**2 * (out_channels or image_shape[-1])
        tokens = layers.Dense(pixels, kernel_initializer="zeros", name="last_dense", **options)(tokens)

        super().__init__(
            inputs, from_patches(tokens, *grid, patch_size), image_shape, *patch_multiple(patch_size), dtype, **kwargs
        )
        self.patch_size = patch_size
        self.width = width
        self.depth = depth
        self.num_classes = num_classes
        self.condition_dim = condition_dim
        self.out_channels = out_channels
        self.remat = remat

    def get_config(self) -> dict[str, Any]:
        own = {
            "patch_size": self.patch_size,
            "width": self.width,
            "depth": self.depth,
            "num_classes": self.num_classes,
            "condition_dim": self.condition_dim,
            "out_channels": self.out_channels,
            "remat": self.remat,
        }
        return {**super().get_config(), **own}
