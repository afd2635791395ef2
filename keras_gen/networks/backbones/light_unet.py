from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from keras_gen.core.checks import check_flag, check_integer, known_size
from keras_gen.core.torch.kernels import Conv2D
from keras_gen.export import keras_gen_export
from keras_gen.networks.backbones.image_network import (
    ImageNetwork,
    check_levels,
    double,
    downsampling_multiple,
    upsampling_layers,
)
from keras_gen.networks.blocks.residual import LightBlock


@keras_gen_export("keras_gen.models.LightUNet")
class LightUNet(ImageNetwork):
    """Light U-Net of the DDPM post: additive skip connections, no attention, no biases, learned time embeddings.

    The encoder halves height and width by average pooling, the decoder doubles them by `upsampling`. Each decoder block
    has the channels of the matching encoder block, whose output is added to its own.

    Args:
        image_shape: `(height, width, channels)`. Height and width are multiples of `2^(levels - 1)`, or `None`: then
            the network takes images of any such size.
        widths: ints >= 1, channels of each level from fine to coarse. Defaults to `(64, 64, 128)`; the post has
            `(128, 128, 256, 256, 512, 512)` for 128 x 128 pixels.
        blocks_per_level: int >= 1. Encoder blocks per level; the decoder has one more. Defaults to `2`.
        num_steps: int >= 1. Number of times, each with a learned vector; at least the schedule's. Defaults to `1000`.
        upsampling: layer that doubles height and width, the same for all levels, or a sequence of such layers, one for
            each level but the coarsest, from fine to coarse. Defaults to `None`, nearest-neighbor upsampling.
        remat: bool. Whether to recompute blocks in the backward pass to save memory (gradient checkpointing). Defaults
            to `False`.
        **kwargs: `name`, `dtype`, `trainable`, as for any Keras model.

    Call arguments:
        inputs: list of `x_t` `(batch, height, width, channels)` and `t` `(batch,)` int32.

    Returns:
        A tensor like `x_t`.

    Raises:
        ValueError: if an argument is outside its range, or an image's size is not such a multiple.

    Reference: https://kexue.fm/archives/9152.
    """

    def __init__(
        self,
        image_shape: Sequence[int | None],
        widths: Sequence[int] = (64, 64, 128),
        blocks_per_level: int = 2,
        num_steps: int = 1000,
        upsampling: keras.Layer | Sequence[keras.Layer] | None = None,
        remat: bool = False,
        dtype: Any = None,
        **kwargs: Any,
    ):
        widths = check_levels(image_shape, widths, blocks_per_level)
        num_steps, remat = check_integer("num_steps", num_steps), check_flag("remat", remat)
        doublings = upsampling_layers(upsampling, len(widths), dtype)
        options = {"dtype": dtype}
        levels = range(len(widths))

        x = keras.Input(tuple(image_shape), name="x_t")
        t = keras.Input((), dtype="int32", name="t")
        embedding = layers.Embedding(num_steps, widths[0], **options)(t)
        h = Conv2D(widths[0], 1, use_bias=False, **options)(x)
        skips = [h]
        for level in levels:
            for _ in range(blocks_per_level):
                h = LightBlock(widths[level], remat, **options)([h, embedding])
                skips.append(h)
            if level < levels[-1]:
                h = layers.AveragePooling2D(2, data_format="channels_last", **options)(h)  # whatever Keras is set to
                skips.append(h)
        h = LightBlock(widths[-1], remat, **options)([h, embedding])
        for level in reversed(levels):
            for _ in range(blocks_per_level + 1):
                skip = skips.pop()
                h = LightBlock(skip.shape[-1], remat, **options)([h, embedding])
                h = layers.Add(**options)([h, skip])
            if level > 0:
                h = double(h, doublings[level - 1])
        h = Conv2D(known_size("image_shape", image_shape), 1, use_bias=False, **options)(h)

        super().__init__([x, t], h, image_shape, *downsampling_multiple(widths), dtype, **kwargs)
        self.widths = widths
        self.blocks_per_level = int(blocks_per_level)
        self.num_steps = num_steps
        self.upsampling = upsampling
        self.remat = remat

    def get_config(self) -> dict[str, Any]:
        own = {
            "widths": self.widths,
            "blocks_per_level": self.blocks_per_level,
            "num_steps": self.num_steps,
            "upsampling": keras.saving.serialize_keras_object(self.upsampling),
            "remat": self.remat,
        }
        return {**super().get_config(), **own}
