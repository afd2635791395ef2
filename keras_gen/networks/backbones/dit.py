from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_gen.core.checks import (
    check,
    check_choice,
    check_depth,
    check_flag,
    check_greater,
    check_integer,
    check_integer_or_none,
    check_positive,
)
from keras_gen.core.foreign.weights import Entry, ForeignWeights
from keras_gen.export import keras_gen_export
from keras_gen.networks.backbones.dit_weights import dit_arguments, dit_config, dit_table
from keras_gen.networks.backbones.image_network import ImageNetwork
from keras_gen.networks.blocks.conditioning import embed, network_inputs
from keras_gen.networks.blocks.dit_block import DiTBlock, last_layers
from keras_gen.networks.blocks.layouts import ATTENTION, MLP, MODULATION, SplitWeights
from keras_gen.networks.blocks.patches import check_patches, from_patches, patch_multiple, to_patches
from keras_gen.networks.blocks.positions import sincos_positions
from keras_gen.networks.blocks.rotary import RotaryEmbedding2D


@keras_gen_export("keras_gen.models.DiTConventions")
class DiTConventions:
    """Implementation variants of the diffusion transformer. `DiT.from_diffusers` sets those of the paper's networks.

    Args:
        qk_norm: bool. Whether queries and keys are RMS-normalized in each head. Defaults to `True`.
        mlp_epsilon: float > 0. Epsilon of the layer normalization before each feed-forward layer. Defaults to `1e-6`,
            as before attention.
        columns_first: bool. Whether `"sincos"` positions embed the column in the first half of the channels, the row in
            the second one, instead of the other way round. Defaults to `False`.
        max_period: float > 1. Longest period of the time embedding, divided by 2 pi. Frequencies that decrease to
            exactly `1 / P` in 128 steps, "frequency shift 1", have `max_period = P^(128 / 127)`. Defaults to `10000.0`.

    Raises:
        ValueError: if an argument is outside its range.

    Example:

    >>> conventions = keras_gen.models.DiTConventions(qk_norm=False)
    >>> network = keras_gen.models.DiT((32, 32, 3), positions="sincos", conventions=conventions)

    Reference: Peebles and Xie 2022, arXiv:2212.09748.
    """

    def __init__(
        self,
        qk_norm: bool = True,
        mlp_epsilon: float = 1e-6,
        columns_first: bool = False,
        max_period: float = 10000.0,
    ):
        self.qk_norm = check_flag("qk_norm", qk_norm)
        self.mlp_epsilon = check_positive("mlp_epsilon", mlp_epsilon)
        self.columns_first = check_flag("columns_first", columns_first)
        self.max_period = check_greater("max_period", max_period, 1)

    def get_config(self) -> dict[str, Any]:
        return dict(vars(self))

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "DiTConventions":
        return cls(**config)


@keras_gen_export("keras_gen.models.DiT")
class DiT(SplitWeights, ForeignWeights, ImageNetwork):
    """Diffusion transformer (DiT): a transformer over image patches whose blocks are modulated by time and condition.

    Each patch of pixels is embedded as a token by a linear layer. In each `DiTBlock`, scales, shifts and gates are
    computed from the sum of time and condition embedding. The output layer is initialized to zero.

    Args:
        image_shape: `(height, width, channels)`. Height and width are multiples of `patch_size`.
        patch_size: int >= 1. Height and width of a patch. Defaults to `2`.
        width: int >= 1. Channels of a token. A multiple of 4, per head with `"rotary"`. Defaults to `128`.
        depth: int >= 1. Number of blocks. Defaults to `4`.
        num_heads: int >= 1. Must divide `width`. Defaults to `4`.
        positions: `"rotary"`: `RotaryEmbedding2D` in each attention layer; or `"sincos"`: sinusoidal embeddings of row
            and column are added to the tokens, as in the paper. Defaults to `"rotary"`.
        num_classes: int >= 1 or `None`. If given, the network takes class labels `0 .. num_classes - 1` as a third
            input; the label `num_classes` is the null class of classifier-free guidance. Defaults to `None`.
        condition_dim: int >= 1 or `None`. If given, the network takes vectors of this size as a third input. The null
            condition is the zero vector. Not with `num_classes`. Defaults to `None`.
        out_channels: int >= 1 or `None`. Twice the image's for `DDPM(variance="learned_range")`. Defaults to `None`,
            the channels of the image.
        remat: bool. Whether to recompute blocks in the backward pass to save memory (gradient checkpointing). Defaults
            to `False`.
        conventions: a `DiTConventions`, variants of the architecture used by other implementations. Defaults to `None`,
            which is `DiTConventions()`.
        **kwargs: `name`, `dtype`, `trainable`, as for any Keras model.

    Call arguments:
        inputs: list of `x_t` `(batch, height, width, channels)`, `t` `(batch,)`, integer or real, and, with
            `num_classes`, labels `(batch,)` int32 or, with `condition_dim`, vectors `(batch, condition_dim)`.

    Returns:
        `(batch, height, width, out_channels)`.

    Raises:
        ValueError: if an argument is outside its range, or an image's size is not a multiple of `patch_size`.

    Example:

    >>> network = keras_gen.models.DiT((32, 32, 3), patch_size=4, width=384, depth=12, num_heads=6, num_classes=10)
    >>> output = network([x_t, t, labels])
    >>> network = keras_gen.models.DiT.from_diffusers("DiT-XL-2-256/transformer")

    Reference: Peebles and Xie 2022, arXiv:2212.09748.
    """

    splits = (ATTENTION, MLP, MODULATION)
    # The second one is the class's name in older files, which have the table of positions, too.
    foreign_classes = ("DiTTransformer2DModel", "Transformer2DModel")
    foreign_ignored = ("pos_embed.pos_embed",)
    foreign_sizes = ("in_channels",)
    foreign_layers = ("num_layers",)

    def __init__(
        self,
        image_shape: Sequence[int],
        patch_size: int = 2,
        width: int = 128,
        depth: int = 4,
        num_heads: int = 4,
        positions: str = "rotary",
        num_classes: int | None = None,
        condition_dim: int | None = None,
        out_channels: int | None = None,
        remat: bool = False,
        conventions: DiTConventions | None = None,
        dtype: Any = None,
        **kwargs: Any,
    ):
        grid = check_patches(image_shape, patch_size)
        check_integer("width", width)
        check_depth("depth", depth)
        check_flag("remat", remat)
        check_integer("num_heads", num_heads)
        check_choice("positions", positions, ("rotary", "sincos"))
        multiple = 4 * num_heads if positions == "rotary" else np.lcm(4, num_heads)
        check(width % multiple == 0, "width", f"be a multiple of {multiple}, with {num_heads} heads", width)
        check_integer_or_none("out_channels", out_channels)
        own = DiTConventions() if conventions is None else conventions
        check(isinstance(own, DiTConventions), "conventions", "be a DiTConventions", conventions)
        options = {"dtype": dtype}

        inputs = network_inputs(image_shape, num_classes, condition_dim)
        # 256 sines and cosines for any width, as in the paper.
        embedding = embed(inputs, 256, width, num_classes, own.max_period, dtype)
        embedding = layers.Activation("silu", **options)(embedding)
        tokens = layers.Dense(width, name="first_dense", **options)(to_patches(inputs[0], patch_size))
        if positions == "sincos":
            table = sincos_positions(*grid, width, own.columns_first)
            tokens = ops.cast(ops.cast(tokens, "float32") + table, tokens.dtype)
        for i in range(depth):
            rotary = RotaryEmbedding2D(*grid, **options) if positions == "rotary" else None
            block = DiTBlock(
                num_heads,
                positions=rotary,
                remat=remat,
                qk_norm=own.qk_norm,
                mlp_epsilon=own.mlp_epsilon,
                name=f"block_{i}",
                **options,
            )
            tokens = block([tokens, embedding])
        pixels = patch_size**2 * (out_channels or image_shape[-1])
        tokens = last_layers(tokens, embedding, pixels, dtype)

        super().__init__(
            inputs, from_patches(tokens, *grid, patch_size), image_shape, *patch_multiple(patch_size), dtype, **kwargs
        )
        self.patch_size = patch_size
        self.width = width
        self.depth = depth
        self.num_heads = num_heads
        self.positions = positions
        self.num_classes = num_classes
        self.condition_dim = condition_dim
        self.out_channels = out_channels
        self.remat = remat
        self.conventions = own

    @classmethod
    def foreign_arguments(cls, config: dict[str, Any]) -> dict[str, Any]:
        arguments = dit_arguments(config)
        return {**arguments, "conventions": DiTConventions(**arguments["conventions"])}

    def foreign_config(self) -> dict[str, Any]:
        return dit_config(self)

    def foreign_table(self) -> list[Entry]:
        return dit_table(self)

    def get_config(self) -> dict[str, Any]:
        own = {
            "patch_size": self.patch_size,
            "width": self.width,
            "depth": self.depth,
            "num_heads": self.num_heads,
            "positions": self.positions,
            "num_classes": self.num_classes,
            "condition_dim": self.condition_dim,
            "out_channels": self.out_channels,
            "remat": self.remat,
            "conventions": keras.saving.serialize_keras_object(self.conventions),
        }
        return {**super().get_config(), **own}
