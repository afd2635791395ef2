from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from keras_gen.core.checks import (
    check,
    check_depth,
    check_flag,
    check_image_shape,
    check_integer,
    check_integer_or_none,
    is_integer,
    known_size,
)
from keras_gen.core.foreign.weights import Entry, ForeignWeights
from keras_gen.export import keras_gen_export
from keras_gen.networks.backbones.image_network import ImageNetwork
from keras_gen.networks.backbones.mmdit_weights import mmdit_arguments, mmdit_config, mmdit_table
from keras_gen.networks.blocks.conditioning import embed
from keras_gen.networks.blocks.dit_block import last_layers
from keras_gen.networks.blocks.layouts import ATTENTION, MLP, MODULATION, SplitWeights
from keras_gen.networks.blocks.mmdit_block import MMDiTBlock
from keras_gen.networks.blocks.patches import patch_multiple
from keras_gen.networks.blocks.positions import SinusoidalPositions2D
from keras_gen.networks.blocks.upsampling import PixelShuffle2D, PixelUnshuffle2D


@keras_gen_export("keras_gen.models.MMDiT")
class MMDiT(SplitWeights, ForeignWeights, ImageNetwork):
    """Multimodal diffusion transformer (MM-DiT), the network of Stable Diffusion 3: image and text attend jointly.

    Patches of pixels and tokens of a text are two sequences with weights of their own, joined in the attention of each
    `MMDiTBlock`, which the sum of time and pooled text embedding modulates. The output layer is initialized to zero.

    Args:
        image_shape: `(height, width, channels)`. Height and width are multiples of `patch_size`, or `None`: then the
            network takes images of any such size, up to `table_size` patches.
        tokens_dim: int >= 1. Channels of the text's tokens.
        pooled_dim: int >= 1. Size of the vector that describes the whole text.
        patch_size: int >= 1. Height and width of a patch. Defaults to `2`.
        width: int >= 1. Channels of a token inside. A multiple of 4 and of `num_heads`. Defaults to `128`.
        depth: int >= 1. Number of blocks. Defaults to `4`.
        num_heads: int >= 1. Must divide `width`. Defaults to `4`.
        qk_norm: bool. Whether queries and keys are RMS-normalized, as in Stable Diffusion 3.5, so that attention cannot
            saturate. Defaults to `True`.
        dual_attention: indices of the blocks in which the image also attends to itself alone (MM-DiT-X). Defaults to
            `()`.
        table_size: int >= 1 or `None`. The largest number of rows and columns of patches, for which positions are
            stored; see `SinusoidalPositions2D`. Defaults to `None`, that of `image_shape`.
        base_size: int >= 1 or `None`. Positions are counted in units of `table_size / base_size` patches. Defaults to
            `None`, which is `table_size`.
        out_channels: int >= 1 or `None`. Defaults to `None`, the channels of the image.
        remat: bool. Whether to recompute blocks in the backward pass to save memory (gradient checkpointing). Defaults
            to `False`.
        **kwargs: `name`, `dtype`, `trainable`, as for any Keras model.

    Call arguments:
        inputs: list of `x_t` `(batch, height, width, channels)`, `t` `(batch,)`, integer or real, and a dict with
            `"tokens"` `(batch, tokens, tokens_dim)`, of any number of tokens, and `"pooled"` `(batch, pooled_dim)`.

    Returns:
        `(batch, height, width, out_channels)`.

    Raises:
        ValueError: if an argument is outside its range, or an image's size is not a multiple of `patch_size` or too
            large for the table of positions.

    Example:

    >>> network = keras_gen.models.MMDiT((32, 32, 4), tokens_dim=768, pooled_dim=768, width=384, depth=12, num_heads=6)
    >>> output = network([x_t, t, {"tokens": tokens, "pooled": pooled}])
    >>> network = keras_gen.models.MMDiT.from_diffusers("stable-diffusion-3.5-medium/transformer")

    Reference: Esser et al. 2024, arXiv:2403.03206.
    """

    splits = (ATTENTION, MLP, MODULATION)
    foreign_classes = ("SD3Transformer2DModel",)
    foreign_sizes = ("in_channels", "joint_attention_dim", "caption_projection_dim", "pooled_projection_dim")
    foreign_layers = ("num_layers",)

    def __init__(
        self,
        image_shape: Sequence[int | None],
        tokens_dim: int,
        pooled_dim: int,
        patch_size: int = 2,
        width: int = 128,
        depth: int = 4,
        num_heads: int = 4,
        qk_norm: bool = True,
        dual_attention: Sequence[int] = (),
        table_size: int | None = None,
        base_size: int | None = None,
        out_channels: int | None = None,
        remat: bool = False,
        dtype: Any = None,
        **kwargs: Any,
    ):
        check_integer("patch_size", patch_size)
        check_image_shape("image_shape", image_shape, *patch_multiple(patch_size))
        for name, value in (("tokens_dim", tokens_dim), ("pooled_dim", pooled_dim), ("num_heads", num_heads)):
            check_integer(name, value)
        check_integer("width", width)
        check_depth("depth", depth)
        check(width % 4 == 0 and width % num_heads == 0, "width", f"be a multiple of 4 and of {num_heads} heads", width)
        check_flag("qk_norm", qk_norm)
        are_blocks = isinstance(dual_attention, Sequence) and all(
            is_integer(i) and 0 <= i < depth for i in dual_attention
        )
        check(are_blocks, "dual_attention", f"be a sequence of blocks in 0 .. {depth - 1}", dual_attention)
        check_integer_or_none("out_channels", out_channels)
        options = {"dtype": dtype}

        x_t, t, condition = inputs = mmdit_inputs(image_shape, tokens_dim, pooled_dim)
        pooled = layers.Dense(width, activation="silu", name="pooled_dense_1", **options)(condition["pooled"])
        pooled = layers.Dense(width, name="pooled_dense_2", **options)(pooled)
        # 256 sines and cosines for any width, as in the paper.
        embedding = layers.Add(name="time_and_pooled", **options)([embed([x_t, t], 256, width, dtype=dtype), pooled])
        embedding = layers.Activation("silu", **options)(embedding)
        x = layers.Dense(width, name="first_dense", **options)(PixelUnshuffle2D(patch_size, "dcr", **options)(x_t))
        side = table_side(table_size, image_shape, patch_size)
        x = SinusoidalPositions2D(side, base_size, name="positions", **options)(x)
        y = layers.Dense(width, name="tokens_dense", **options)(condition["tokens"])

        def block(i: int, last: bool = False) -> MMDiTBlock:
            dual = i in dual_attention
            return MMDiTBlock(
                num_heads, 4, qk_norm, dual_attention=dual, last=last, remat=remat, name=f"block_{i}", **options
            )

        for i in range(depth - 1):
            x, y = block(i)([x, y, embedding])
        x = block(depth - 1, last=True)([x, y, embedding])
        pixels = patch_size**2 * (out_channels or known_size("image_shape", image_shape))
        x = last_layers(x, embedding, pixels, dtype)
        x = PixelShuffle2D(patch_size, "dcr", **options)(x)

        super().__init__(inputs, x, image_shape, *patch_multiple(patch_size), dtype, **kwargs)
        self.tokens_dim = tokens_dim
        self.pooled_dim = pooled_dim
        self.patch_size = patch_size
        self.width = width
        self.depth = depth
        self.num_heads = num_heads
        self.qk_norm = qk_norm
        self.dual_attention = tuple(dual_attention)
        self.table_size = table_size
        self.base_size = base_size
        self.out_channels = out_channels
        self.remat = remat

    @classmethod
    def foreign_arguments(cls, config: dict[str, Any]) -> dict[str, Any]:
        return mmdit_arguments(config)

    def foreign_config(self) -> dict[str, Any]:
        return mmdit_config(self)

    def foreign_table(self) -> list[Entry]:
        return mmdit_table(self)

    def get_config(self) -> dict[str, Any]:
        own = {
            "tokens_dim": self.tokens_dim,
            "pooled_dim": self.pooled_dim,
            "patch_size": self.patch_size,
            "width": self.width,
            "depth": self.depth,
            "num_heads": self.num_heads,
            "qk_norm": self.qk_norm,
            "dual_attention": self.dual_attention,
            "table_size": self.table_size,
            "base_size": self.base_size,
            "out_channels": self.out_channels,
            "remat": self.remat,
        }
        return {**super().get_config(), **own}


def mmdit_inputs(image_shape: Sequence[int | None], tokens_dim: int, pooled_dim: int) -> list[Any]:
    """Returns the symbolic inputs: images, times, and tokens and vectors of texts."""
    condition = {
        "tokens": keras.Input((None, tokens_dim), name="tokens"),
        "pooled": keras.Input((pooled_dim,), name="pooled"),
    }
    return [keras.Input(tuple(image_shape), name="x_t"), keras.Input((), dtype="float32", name="t"), condition]


def table_side(table_size: int | None, image_shape: Sequence[int | None], patch_size: int) -> int:
    """Returns the rows and columns of the table of positions, by default those of an image's patches."""
    if table_size is not None:
        return check_integer("table_size", table_size)
    sides = [side for side in image_shape[:2] if side is not None]
    check(len(sides) == 2, "table_size", "be given where `image_shape` does not tell height and width", table_size)
    return max(sides) // patch_size
