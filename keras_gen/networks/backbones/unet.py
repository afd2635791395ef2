"""U-Net of diffusion models, and its variants in other implementations."""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from keras_gen.core.checks import (
    check,
    check_choice,
    check_divides,
    check_flag,
    check_greater,
    check_integer_or_none,
    check_positive,
    known_size,
)
from keras_gen.core.foreign.weights import Entry, ForeignWeights
from keras_gen.export import keras_gen_export
from keras_gen.networks.backbones.image_network import (
    ImageNetwork,
    check_levels,
    downsampling_multiple,
    upsampling_layers,
)
from keras_gen.networks.backbones.u_shape import last_layers, u_shape
from keras_gen.networks.backbones.unet_weights import LAYERS, SIZES, unet_arguments, unet_config, unet_table
from keras_gen.networks.blocks.attention import CrossAttention2D, SelfAttention2D
from keras_gen.networks.blocks.conditioning import ConditionDim, embed, is_pair, network_inputs
from keras_gen.networks.blocks.layouts import ATTENTION, CONVOLUTIONS, SplitWeights
from keras_gen.networks.blocks.norms import groups_for
from keras_gen.networks.blocks.residual import ResidualBlock


@keras_gen_export("keras_gen.models.UNetConventions")
class UNetConventions:
    """Implementation variants of the U-Net: groups, heads, padding, middle block. `UNet.from_diffusers` infers them.

    Args:
        groups: int >= 1 or `None`. Groups of all normalizations. Defaults to `None`: 8, or fewer for few channels.
        epsilon: float > 0. Epsilon of all normalization layers. Defaults to `1e-5`.
        head_dim: int >= 1 or `None`. Channels per attention head. Defaults to `None`: a single head.
        max_period: float > 1. Longest period of the time embedding, divided by 2 pi. Frequencies that decrease to
            exactly `1 / P` in `half` steps, "frequency shift 1", have `max_period = P^(half / (half - 1))`. Defaults
            to `10000.0`.
        symmetric_padding: bool. Whether strided convolutions pad all four borders instead of right and bottom only.
            Defaults to `False`.
        middle: `"auto"`, `"attention"`, `"plain"` or `"none"`. Middle block between encoder and decoder: two residual
            blocks with attention in between, without attention, or none; `"auto"` has attention if the coarsest level
            does. Defaults to `"auto"`.
        scale_shift: bool. Whether the embedding scales and shifts the output of each block's second normalization,
            instead of shifting its input. Defaults to `False`.
        cosines_first: bool. Whether diffusers has the cosines of the time embedding before its sines; of effect in its
            files alone. Defaults to `False`.

    Raises:
        ValueError: if an argument is outside its range.

    Example:

    >>> conventions = keras_gen.models.UNetConventions(scale_shift=True, head_dim=16)
    >>> network = keras_gen.models.UNet((32, 32, 3), attention_levels=(2,), conventions=conventions)

    Reference: Ho et al. 2020, arXiv:2006.11239; Dhariwal and Nichol 2021, arXiv:2105.05233, for `scale_shift`.
    """

    def __init__(
        self,
        groups: int | None = None,
        epsilon: float = 1e-5,
        head_dim: int | None = None,
        max_period: float = 10000.0,
        symmetric_padding: bool = False,
        middle: str = "auto",
        scale_shift: bool = False,
        cosines_first: bool = False,
    ):
        self.groups = check_integer_or_none("groups", groups)
        self.epsilon = check_positive("epsilon", epsilon)
        self.head_dim = check_integer_or_none("head_dim", head_dim)
        self.max_period = check_greater("max_period", max_period, 1)
        self.symmetric_padding = check_flag("symmetric_padding", symmetric_padding)
        check_choice("middle", middle, ("auto", "attention", "plain", "none"))
        self.middle = middle
        self.scale_shift = check_flag("scale_shift", scale_shift)
        self.cosines_first = check_flag("cosines_first", cosines_first)

    def heads(self, channels: int) -> int:
        """Returns the number of attention heads for a number of channels."""
        head_dim = self.head_dim or channels
        check_divides("head_dim", head_dim, channels)
        return channels // head_dim

    def get_config(self) -> dict[str, Any]:
        return dict(vars(self))

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "UNetConventions":
        return cls(**config)


@keras_gen_export("keras_gen.models.UNet")
class UNet(SplitWeights, ForeignWeights, ImageNetwork):
    """U-Net of DDPM: an encoder and a decoder of residual blocks, joined by skip connections.

    Each level halves height and width. The input of each decoder block is concatenated with the skip connection from
    the matching encoder block. All blocks are conditioned on the sum of time and condition embedding. The output
    convolution is initialized to zero.

    Args:
        image_shape: `(height, width, channels)`. Height and width are multiples of `2^(levels - 1)`, or `None`: then
            the network takes images of any such size.
        widths: ints >= 1, channels of each level from fine to coarse. Defaults to `(64, 128, 256)`.
        blocks_per_level: int >= 1. Residual blocks per encoder level; the decoder has one more. Defaults to `2`.
        attention_levels: indices of the levels (0 is the finest) with self-attention after each block. With the
            coarsest level, the middle block has attention, too. Defaults to `()`.
        num_classes: int >= 1 or `None`. If given, the network takes class labels `0 .. num_classes - 1` as a third
            input. The label `num_classes`, with an embedding of its own, is the null class ("no label") of
            classifier-free guidance; in diffusers' files it is one more class, unless it is zero. Defaults to `None`.
        out_channels: int >= 1 or `None`. Twice the image's for `DDPM(variance="learned_range")`. Defaults to `None`,
            the channels of the image.
        dropout: float in [0, 1). Defaults to `0.0`.
        remat: bool. Whether to recompute blocks in the backward pass to save memory (gradient checkpointing). Defaults
            to `False`.
        condition_dim: int >= 1 or `None`. If given, the network takes vectors of this size as a third input. Or a pair
            `(tokens, dim)`: a sequence of vectors, of any length for `(None, dim)`, to which pixels attend by
            `CrossAttention2D` after each self-attention. The null condition is zero. Not with `num_classes`. Defaults
            to `None`.
        conventions: a `UNetConventions`, variants of the architecture used by other implementations. Defaults to
            `None`, which is `UNetConventions()`.
        upsampling: layer that doubles height and width, the same for all levels, or a sequence of such layers, one for
            each level but the coarsest, from fine to coarse. A 3 x 3 convolution follows. Defaults to `None`,
            nearest-neighbor upsampling.
        **kwargs: `name`, `dtype`, `trainable`, as for any Keras model.

    Call arguments:
        inputs: list of `x_t` `(batch, height, width, channels)`, `t` `(batch,)`, integer or real, and, with
            `num_classes`, labels `(batch,)` int32 or, with `condition_dim`, vectors `(batch, condition_dim)` or tokens
            `(batch, tokens, dim)`.
        training: bool. Whether to apply dropout.

    Returns:
        `(batch, height, width, out_channels)`.

    Raises:
        ValueError: if an argument is outside its range, or an image's size is not such a multiple.

    Example:

    >>> network = keras_gen.models.UNet((28, 28, 1), widths=(32, 64, 128), attention_levels=(2,), num_classes=10)
    >>> output = network([x_t, t, labels])
    >>> network = keras_gen.models.UNet.from_diffusers("folder/with/config.json")
    >>> shuffle = keras_gen.layers.PixelShuffle2D()
    >>> network = keras_gen.models.UNet((28, 28, 1), widths=(32, 64, 128), upsampling=shuffle)

    Reference: Ho et al. 2020, arXiv:2006.11239, appendix B; https://kexue.fm/archives/9152.
    """

    splits = (ATTENTION, CONVOLUTIONS)
    foreign_classes = ("UNet2DModel",)
    foreign_sizes, foreign_layers = SIZES, LAYERS

    def __init__(
        self,
        image_shape: Sequence[int | None],
        widths: Sequence[int] = (64, 128, 256),
        blocks_per_level: int = 2,
        attention_levels: Sequence[int] = (),
        num_classes: int | None = None,
        out_channels: int | None = None,
        dropout: float = 0.0,
        remat: bool = False,
        condition_dim: ConditionDim = None,
        conventions: UNetConventions | None = None,
        upsampling: keras.Layer | Sequence[keras.Layer] | None = None,
        dtype: Any = None,
        **kwargs: Any,
    ):
        widths, remat = check_levels(image_shape, widths, blocks_per_level), check_flag("remat", remat)
        levels = range(len(widths))
        are_levels = isinstance(attention_levels, Sequence) and all(level in levels for level in attention_levels)
        check(are_levels, "attention_levels", f"be a sequence of levels in 0 .. {len(widths) - 1}", attention_levels)
        check_integer_or_none("out_channels", out_channels)
        own = UNetConventions() if conventions is None else conventions
        check(isinstance(own, UNetConventions), "conventions", "be a UNetConventions", conventions)
        doublings = upsampling_layers(upsampling, len(widths), dtype)
        options = {"dtype": dtype}
        inputs = network_inputs(image_shape, num_classes, condition_dim, attends=True)
        tokens = inputs[2] if is_pair(condition_dim) else None
        rule = "contain a level: tokens, of a pair condition_dim, enter by attention"
        has_attention = len(attention_levels) > 0 or own.middle == "attention"
        check(tokens is None or has_attention, "attention_levels", rule, attention_levels)

        def residual(h: Any, width: int, name: str) -> Any:
            groups = own.groups or math.gcd(groups_for(width), groups_for(h.shape[-1]))
            layer = ResidualBlock(
                width, groups, dropout, remat, epsilon=own.epsilon, scale_shift=own.scale_shift, name=name, **options
            )
            return layer([h, embedding])

        def attend(h: Any, name: str) -> Any:
            width = h.shape[-1]
            groups = own.groups or groups_for(width)
            h = SelfAttention2D(own.heads(width), groups, own.epsilon, remat, name=name, **options)(h)
            if tokens is None:
                return h
            name = name.replace("attention", "cross_attention")
            return CrossAttention2D(own.heads(width), groups, own.epsilon, remat, name=name, **options)([h, tokens])

        def block(h: Any, level: int, name: str) -> Any:
            h = residual(h, widths[level], name)
            return attend(h, name.replace("block", "attention")) if level in attention_levels else h

        def middle(h: Any) -> Any:
            if own.middle == "none":
                return h
            h = residual(h, widths[-1], "middle_block_0")
            if own.middle == "attention" or (own.middle == "auto" and levels[-1] in attention_levels):
                h = attend(h, "middle_attention_0")
            return residual(h, widths[-1], "middle_block_1")

        embedding = embed(inputs, widths[0], 4 * widths[0], num_classes, own.max_period, dtype)
        embedding = layers.Activation("silu", **options)(embedding)
        h = u_shape(inputs[0], widths, blocks_per_level, block, middle, doublings, own.symmetric_padding, dtype)
        channels = out_channels or known_size("image_shape", image_shape)
        h = last_layers(h, channels, own.groups or groups_for(widths[0]), own.epsilon, dtype)

        super().__init__(inputs, h, image_shape, *downsampling_multiple(widths), dtype, **kwargs)
        self.widths = widths
        self.blocks_per_level = int(blocks_per_level)
        self.attention_levels = tuple(attention_levels)
        self.num_classes = num_classes
        self.out_channels = out_channels
        self.dropout = dropout
        self.remat = remat
        self.condition_dim = tuple(condition_dim) if is_pair(condition_dim) else condition_dim
        self.conventions = own
        self.upsampling = upsampling

    @classmethod
    def foreign_arguments(cls, config: dict[str, Any]) -> dict[str, Any]:
        arguments = unet_arguments(config)
        return {**arguments, "conventions": UNetConventions(**arguments["conventions"])}

    def foreign_config(self) -> dict[str, Any]:
        return unet_config(self)

    def foreign_table(self) -> list[Entry]:
        return unet_table(self)

    def get_config(self) -> dict[str, Any]:
        own = {
            "widths": self.widths,
            "blocks_per_level": self.blocks_per_level,
            "attention_levels": self.attention_levels,
            "num_classes": self.num_classes,
            "out_channels": self.out_channels,
            "dropout": self.dropout,
            "remat": self.remat,
            "condition_dim": self.condition_dim,
            "conventions": keras.saving.serialize_keras_object(self.conventions),
            "upsampling": keras.saving.serialize_keras_object(self.upsampling),
        }
        return {**super().get_config(), **own}
