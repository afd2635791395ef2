import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from keras_gen.core.checks import check, check_integer
from keras_gen.diffusion.group_norm import GroupNorm, groups_for
from keras_gen.diffusion.image_network import ImageNetwork, check_levels
from keras_gen.diffusion.residual_block import ResidualBlock
from keras_gen.diffusion.self_attention_2d import SelfAttention2D
from keras_gen.diffusion.sinusoidal_embedding import SinusoidalEmbedding
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.models.UNet")
class UNet(ImageNetwork):
    """The U-Net of DDPM: residual blocks down to a coarse level and up again, with skip connections across.

    Each level halves height and width. On the way up, each block reads its input concatenated with the output of its
    twin on the way down. All blocks read one embedding of the time, to which that of the class label is added. The
    last convolution starts at zero.

    Args:
        image_shape: `(height, width, channels)`. Height and width are multiples of `2^(levels - 1)`, or `None`: then
            the network takes images of any such size.
        widths: ints >= 1, channels of each level from fine to coarse. Defaults to `(64, 128, 256)`.
        blocks_per_level: int >= 1. Residual blocks on the way down; there is one more on the way up. Defaults to `2`.
        attention_levels: indices of the levels (0 is the finest) with self-attention after each block. If it holds
            the coarsest level, so does the middle. Defaults to `()`.
        num_classes: int >= 1 or `None`. If given, the network takes class labels as a third input. Defaults to `None`.
        out_channels: int >= 1 or `None`. Twice the image's for `DDPM(variance="learned_range")`. Defaults to `None`,
            those of the image.
        dropout: float in [0, 1). Defaults to `0.0`.
        remat: bool. Whether blocks are computed again in the backward pass, to save memory. Defaults to `False`.
        **kwargs: `name`, `dtype`, `trainable`, as for any Keras model.

    Call arguments:
        inputs: list of `x_t` `(batch, height, width, channels)`, `t` `(batch,)` int32 and, with `num_classes`, labels
            `(batch,)` int32.
        training: bool. Whether to apply dropout.

    Returns:
        `(batch, height, width, out_channels)`.

    Raises:
        ValueError: if an argument is outside its range, or an image's size is not such a multiple.

    Reference: Ho et al. 2020, arXiv:2006.11239, appendix B; https://kexue.fm/archives/9152.
    """

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
        dtype: Any = None,
        **kwargs: Any,
    ):
        widths = check_levels(image_shape, widths, blocks_per_level)
        levels = range(len(widths))
        known = isinstance(attention_levels, Sequence) and all(level in levels for level in attention_levels)
        check(known, "attention_levels", f"be a sequence of levels in 0 .. {len(widths) - 1}", attention_levels)
        if num_classes is not None:
            check_integer("num_classes", num_classes)
        if out_channels is not None:
            check_integer("out_channels", out_channels)
        options = {"dtype": dtype}

        def block(h: Any, width: int, attend: bool) -> Any:
            groups = math.gcd(groups_for(width), groups_for(h.shape[-1]))
            h = ResidualBlock(width, groups, dropout, remat, **options)([h, embedding])
            return SelfAttention2D(groups=groups_for(width), **options)(h) if attend else h

        def conv(h: Any, width: int, **more: Any) -> Any:
            return layers.Conv2D(width, 3, padding="same", **more, **options)(h)

        x = keras.Input(tuple(image_shape), name="x_t")
        inputs = [x, keras.Input((), dtype="int32", name="t")]
        embedding = SinusoidalEmbedding(2 * math.ceil(widths[0] / 2), **options)(inputs[1])
        embedding = layers.Dense(4 * widths[0], activation="silu", **options)(embedding)
        embedding = layers.Dense(4 * widths[0], **options)(embedding)
        if num_classes is not None:
            inputs.append(keras.Input((), dtype="int32", name="labels"))
            label = layers.Embedding(num_classes, 4 * widths[0], **options)(inputs[2])
            embedding = layers.Add(**options)([embedding, label])
        embedding = layers.Activation("silu", **options)(embedding)

        h = conv(x, widths[0])
        skips = [h]
        for level in levels:
            for _ in range(blocks_per_level):
                h = block(h, widths[level], level in attention_levels)
                skips.append(h)
            if level < levels[-1]:
                h = conv(h, widths[level], strides=2)
                skips.append(h)
        h = block(h, widths[-1], levels[-1] in attention_levels)
        h = block(h, widths[-1], False)
        for level in reversed(levels):
            for _ in range(blocks_per_level + 1):
                h = layers.Concatenate(**options)([h, skips.pop()])
                h = block(h, widths[level], level in attention_levels)
            if level > 0:
                h = conv(layers.UpSampling2D(**options)(h), widths[level])
        h = GroupNorm(groups_for(widths[0]), **options)(h)
        h = layers.Activation("silu", **options)(h)
        h = conv(h, out_channels or image_shape[-1], kernel_initializer="zeros")

        super().__init__(inputs, h, image_shape, widths, blocks_per_level, dtype, **kwargs)
        self.attention_levels = tuple(attention_levels)
        self.num_classes = num_classes
        self.out_channels = out_channels
        self.dropout = dropout
        self.remat = remat

    def get_config(self) -> dict[str, Any]:
        own = {
            "attention_levels": self.attention_levels,
            "num_classes": self.num_classes,
            "out_channels": self.out_channels,
            "dropout": self.dropout,
            "remat": self.remat,
        }
        return {**super().get_config(), **own}
