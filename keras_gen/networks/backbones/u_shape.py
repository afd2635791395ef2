"""What U-Nets have in common: an encoder and a decoder joined by skip connections, and the last layers."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import layers

from keras_gen.core.torch.kernels import Conv2D
from keras_gen.networks.backbones.image_network import double
from keras_gen.networks.blocks.norms import GroupNorm


def u_shape(
    x: Any,
    widths: Sequence[int],
    blocks_per_level: int,
    block: Callable[[Any, int, str], Any],
    middle: Callable[[Any], Any],
    doublings: Sequence[keras.Layer],
    symmetric_padding: bool,
    dtype: Any,
) -> Any:
    """Applies a U-Net without its last layers to symbolic images; returns `(batch, height, width, widths[0])`.

    Level 0 is the finest. Each level of the decoder has one more block than that of the encoder. The inputs of its
    blocks are concatenated with the skip connections.

    Args:
        x: symbolic images `(batch, height, width, channels)`.
        widths: channels of each level.
        blocks_per_level: int. Blocks per level of the encoder.
        block: `block(h, level, name)`, a block of a level.
        middle: `middle(h)`, the part between encoder and decoder.
        doublings: layers that double height and width, one for each level except the coarsest.
        symmetric_padding: bool. Whether strided convolutions pad all four borders, instead of right and bottom only.
        dtype: the dtype policy of the layers that are made here.
    """
    levels = range(len(widths))
    h = conv(x, widths[0], "first_conv", dtype)
    skips = [h]
    for level in levels:
        for i in range(blocks_per_level):
            h = block(h, level, f"down_{level}_block_{i}")
            skips.append(h)
        if level < levels[-1]:
            h = halve(h, f"down_{level}_conv", symmetric_padding, dtype)
            skips.append(h)
    h = middle(h)
    for level in reversed(levels):
        for i in range(blocks_per_level + 1):
            h = layers.Concatenate(dtype=dtype)([h, skips.pop()])
            h = block(h, level, f"up_{level}_block_{i}")
        if level > 0:
            h = conv(double(h, doublings[level - 1]), widths[level], f"up_{level}_conv", dtype)
    return h


def last_layers(h: Any, channels: int, groups: int, epsilon: float, dtype: Any) -> Any:
    """Returns the output of a U-Net; its convolution is initialized to zero."""
    h = GroupNorm(groups, epsilon, name="last_norm", dtype=dtype)(h)
    h = layers.Activation("silu", dtype=dtype)(h)
    return conv(h, channels, "last_conv", dtype, kernel_initializer="zeros")


def halve(h: Any, name: str, symmetric_padding: bool, dtype: Any) -> Any:
    """Halves height and width by a strided convolution."""
    if symmetric_padding:
        h = layers.ZeroPadding2D(data_format="channels_last", dtype=dtype)(h)  # whatever Keras is set to
    padding = "valid" if symmetric_padding else "same"
    return conv(h, h.shape[-1], name, dtype, strides=2, padding=padding)


def conv(h: Any, width: int, name: str, dtype: Any, padding: str = "same", **options: Any) -> Any:
    """Applies a 3 x 3 convolution."""
    return Conv2D(width, 3, padding=padding, name=name, dtype=dtype, **options)(h)
