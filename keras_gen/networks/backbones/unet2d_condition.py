"""U-Net of Stable Diffusion: spatial transformers attend to the tokens of a text."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from keras_gen.core.checks import (
    check,
    check_flag,
    check_integer,
    check_integer_or_none,
    check_positive,
    is_integer,
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
from keras_gen.networks.backbones.unet2d_condition_weights import (
    LAYERS,
    NUMBER_OF_SIZES,
    SIZES,
    unet2d_condition_arguments,
    unet2d_condition_config,
    unet2d_condition_table,
)
from keras_gen.networks.blocks.conditioning import SinusoidalEmbedding, embed, network_inputs
from keras_gen.networks.blocks.layouts import ATTENTION, CONVOLUTIONS, GATED_MLP, SplitWeights
from keras_gen.networks.blocks.residual import ResidualBlock
from keras_gen.networks.blocks.spatial_transformer import SpatialTransformer


@keras_gen_export("keras_gen.models.UNet2DCondition")
class UNet2DCondition(SplitWeights, ForeignWeights, ImageNetwork):
    """U-Net of Stable Diffusion 1, 2 and XL: residual blocks, and transformers whose pixels attend to a text.

    As `UNet`, with a `SpatialTransformer` after each residual block of the levels that `depths` names, and of the
    middle. The condition are the tokens of a text encoder; that of Stable Diffusion XL contains a pooled vector and six
    sizes, whose embedding is added to that of the time. The defaults are Stable Diffusion 1's. The null condition is
    zero unless a model is given another one: Stable Diffusion's is the encoding of the empty text.

    Args:
        image_shape: `(height, width, channels)` of the images, or latents, that the network is made for; it takes any
            whose height and width are multiples of `2^(levels - 1)`. Height and width may be `None`.
        token_dim: int >= 1. Size of the condition's tokens. Defaults to `768`.
        widths: ints >= 1, channels of each level from fine to coarse. Defaults to `(320, 640, 1280, 1280)`.
        depths: ints >= 0, for each level the number of transformer blocks after each residual block; at 0 there is no
            transformer. Defaults to `(1, 1, 1, 0)`.
        middle_depth: int >= 1. Number of transformer blocks in the middle. Defaults to `1`.
        num_heads: int >= 1, heads of each attention, or one for each level; the middle has the last one. Defaults to
            `8`.
        blocks_per_level: int >= 1. Residual blocks per encoder level; the decoder has one more. Defaults to `2`.
        pooled_dim: int >= 1 or `None`. If given, the condition is a dict of tokens, a vector of this size and six
            sizes. Defaults to `None`.
        size_dim: even int >= 2. Size of the embedding of each of the six sizes. Defaults to `256`.
        groups: int >= 1. Groups of all normalizations. Defaults to `32`.
        epsilon: float > 0. Epsilon of the normalizations outside of the transformers. Defaults to `1e-5`.
        linear_projections: bool. Whether diffusers has linear layers at both ends of its transformers, as for
            Stable Diffusion 2 and XL, or convolutions of one pixel, which are the same function; of effect in its files
            alone. Defaults to `False`.
        upcast_attention: bool. Whether attention is computed in float32 under any dtype policy. Defaults to `False`.
        out_channels: int >= 1 or `None`. Defaults to `None`, the channels of the image.
        dropout: float in [0, 1). Dropout rate of the residual blocks. Defaults to `0.0`.
        remat: bool. Whether to recompute blocks in the backward pass to save memory (gradient checkpointing). Defaults
            to `False`.
        **kwargs: `name`, `dtype`, `trainable`, as for any Keras model.

    Call arguments:
        inputs: list of `x_t` `(batch, height, width, channels)`, `t` `(batch,)`, integer or real, and the condition:
            tokens `(batch, tokens, token_dim)`, or, with `pooled_dim`, a dict of `"tokens"`, `"pooled"`
            `(batch, pooled_dim)` and `"sizes"` `(batch, 6)`: height and width of the original image, top and left of
            its crop, height and width of the result, in pixels.
        training: bool. Whether to apply dropout.

    Returns:
        `(batch, height, width, out_channels)`.

    Raises:
        ValueError: if an argument is outside its range, or an image's size is not such a multiple.

    Example:

    >>> network = keras_gen.models.UNet2DCondition((32, 32, 4), 64, (64, 128), depths=(0, 1), middle_depth=1)
    >>> output = network([x_t, t, tokens])
    >>> network = keras_gen.models.UNet2DCondition.from_diffusers("stable-diffusion/unet")

    Reference: Rombach et al. 2021, arXiv:2112.10752; Podell et al. 2023, arXiv:2307.01952, for `pooled_dim`.
    """

    splits = (ATTENTION, GATED_MLP, CONVOLUTIONS)
    foreign_classes = ("UNet2DConditionModel",)
    foreign_sizes, foreign_layers = SIZES, LAYERS

    def __init__(
        self,
        image_shape: Sequence[int | None],
        token_dim: int = 768,
        widths: Sequence[int] = (320, 640, 1280, 1280),
        depths: Sequence[int] = (1, 1, 1, 0),
        middle_depth: int = 1,
        num_heads: int | Sequence[int] = 8,
        blocks_per_level: int = 2,
        pooled_dim: int | None = None,
        size_dim: int = 256,
        groups: int = 32,
        epsilon: float = 1e-5,
        linear_projections: bool = False,
        upcast_attention: bool = False,
        out_channels: int | None = None,
        dropout: float = 0.0,
        remat: bool = False,
        dtype: Any = None,
        **kwargs: Any,
    ):
        widths = check_levels(image_shape, widths, blocks_per_level)
        depths = by_level("depths", depths, len(widths), at_least=0)
        num_heads = num_heads if isinstance(num_heads, Sequence) else [num_heads] * len(widths)
        num_heads = by_level("num_heads", num_heads, len(widths), at_least=1)
        check_integer("token_dim", token_dim)
        check_integer("middle_depth", middle_depth)
        check_integer("size_dim", size_dim, at_least=2)
        check(size_dim % 2 == 0, "size_dim", "be even", size_dim)
        epsilon = check_positive("epsilon", epsilon)
        check_integer_or_none("out_channels", out_channels)
        linear_projections = check_flag("linear_projections", linear_projections)
        options = {"dtype": dtype}
        channels = known_size("image_shape", image_shape)
        x, t, condition = text_inputs(channels, token_dim, pooled_dim)
        tokens = condition if pooled_dim is None else condition["tokens"]

        embedding = embed([x, t], widths[0], 4 * widths[0], dtype=dtype)
        if pooled_dim is not None:
            added = embed_sizes(condition, size_dim, 4 * widths[0], dtype)
            embedding = layers.Add(name="time_and_sizes", **options)([embedding, added])
        embedding = layers.Activation("silu", **options)(embedding)

        def residual(h: Any, width: int, name: str) -> Any:
            layer = ResidualBlock(width, groups, dropout, remat, epsilon=epsilon, name=name, **options)
            return layer([h, embedding])

        def attend(h: Any, heads: int, depth: int, name: str) -> Any:
            more = {"upcast_attention": upcast_attention, "remat": remat, "name": name, **options}
            return SpatialTransformer(heads, depth, groups, **more)([h, tokens])

        def block(h: Any, level: int, name: str) -> Any:
            h = residual(h, widths[level], name)
            name = name.replace("block", "attention")
            return attend(h, num_heads[level], depths[level], name) if depths[level] > 0 else h

        def middle(h: Any) -> Any:
            h = residual(h, widths[-1], "middle_block_0")
            h = attend(h, num_heads[-1], middle_depth, "middle_attention_0")
            return residual(h, widths[-1], "middle_block_1")

        doublings = upsampling_layers(None, len(widths), dtype)
        h = u_shape(x, widths, blocks_per_level, block, middle, doublings, symmetric_padding=True, dtype=dtype)
        h = last_layers(h, out_channels or channels, groups, epsilon, dtype)

        super().__init__([x, t, condition], h, image_shape, *downsampling_multiple(widths), dtype, **kwargs)
        self.token_dim = token_dim
        self.widths = widths
        self.depths = depths
        self.middle_depth = middle_depth
        self.num_heads = num_heads
        self.blocks_per_level = int(blocks_per_level)
        self.pooled_dim = pooled_dim
        self.size_dim = size_dim
        self.groups = groups
        self.epsilon = epsilon
        self.linear_projections = linear_projections
        self.upcast_attention = upcast_attention
        self.out_channels = out_channels
        self.dropout = dropout
        self.remat = remat

    @classmethod
    def foreign_arguments(cls, config: dict[str, Any]) -> dict[str, Any]:
        return unet2d_condition_arguments(config)

    def foreign_config(self) -> dict[str, Any]:
        return unet2d_condition_config(self)

    def foreign_table(self) -> list[Entry]:
        return unet2d_condition_table(self)

    def get_config(self) -> dict[str, Any]:
        own = {
            "token_dim": self.token_dim,
            "widths": self.widths,
            "depths": self.depths,
            "middle_depth": self.middle_depth,
            "num_heads": self.num_heads,
            "blocks_per_level": self.blocks_per_level,
            "pooled_dim": self.pooled_dim,
            "size_dim": self.size_dim,
            "groups": self.groups,
            "epsilon": self.epsilon,
            "linear_projections": self.linear_projections,
            "upcast_attention": self.upcast_attention,
            "out_channels": self.out_channels,
            "dropout": self.dropout,
            "remat": self.remat,
        }
        return {**super().get_config(), **own}


def by_level(name: str, values: Any, levels: int, at_least: int) -> tuple[int, ...]:
    """Checks that `values` is a sequence of integers, one for each level, and returns them as Python integers."""
    are_integers = isinstance(values, Sequence) and all(is_integer(value) and value >= at_least for value in values)
    rule = f"be {levels} integers >= {at_least}, one for each level"
    check(are_integers and len(values) == levels, name, rule, values)
    return tuple(int(value) for value in values)


def text_inputs(channels: int, token_dim: int, pooled_dim: int | None) -> list[Any]:
    """Returns the symbolic inputs: images, times, and tokens, or a dict of tokens, pooled vector and sizes."""
    inputs = network_inputs((None, None, channels), condition_dim=(None, token_dim), attends=True)
    if pooled_dim is None:
        return inputs
    shapes = {
        "tokens": (None, token_dim),
        "pooled": (check_integer("pooled_dim", pooled_dim),),
        "sizes": (NUMBER_OF_SIZES,),
    }
    condition = {name: keras.Input(shape, dtype="float32", name=name) for name, shape in shapes.items()}
    return [*inputs[:2], condition]


def embed_sizes(condition: dict[str, Any], size_dim: int, width: int, dtype: Any) -> Any:
    """Returns the embedding `(batch, width)` of a condition's pooled vector and sizes."""
    options = {"dtype": dtype}
    sizes = SinusoidalEmbedding(size_dim, name="sizes_embedding", **options)(condition["sizes"])
    sizes = layers.Reshape((NUMBER_OF_SIZES * size_dim,), **options)(sizes)
    h = layers.Concatenate(**options)([condition["pooled"], sizes])
    h = layers.Dense(width, activation="silu", name="sizes_dense_1", **options)(h)
    return layers.Dense(width, name="sizes_dense_2", **options)(h)
