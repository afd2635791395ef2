from typing import Any

import keras
from keras import ops

from keras_gen.core.checks import check_integer
from keras_gen.core.torch.convolution import Conv2D
from keras_gen.export import keras_gen_export
from keras_gen.networks.blocks.group_norm import GroupNorm, groups_for


@keras_gen_export("keras_gen.layers.LightBlock")
class LightBlock(keras.layers.Layer):
    """The block of the DDPM post's light U-Net: normalized after the sum, without biases.

        x = projection(x),   y = norm(x + conv(silu(conv(x + dense(embedding)))))

    The projection, a 1x1 convolution, is there only where the number of channels changes.

    Args:
        width: int >= 1. Number of output channels.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        inputs: list of the image `(batch, height, width, channels)` and the embedding `(batch, dim)`.

    Returns:
        `(batch, height, width, self.width)`.

    Raises:
        ValueError: if `width` is not an integer >= 1.

    Reference: https://kexue.fm/archives/9152.
    """

    def __init__(self, width: int, **kwargs: Any):
        super().__init__(**kwargs)
        width = self.width = check_integer("width", width)
        options = {"use_bias": False, "dtype": self.dtype_policy}
        self.dense = keras.layers.Dense(width, name="dense", **options)
        self.conv_1 = Conv2D(width, 3, padding="same", name="conv_1", **options)
        self.conv_2 = Conv2D(width, 3, padding="same", name="conv_2", **options)
        self.norm = GroupNorm(groups_for(width), dtype=self.dtype_policy, name="norm")
        self.projection = None

    def build(self, inputs_shape: Any) -> None:
        x_shape, embedding_shape = inputs_shape
        h_shape = (*x_shape[:-1], self.width)
        if x_shape[-1] != self.width:
            self.projection = Conv2D(self.width, 1, use_bias=False, dtype=self.dtype_policy, name="projection")
            self.projection.build(x_shape)
        self.dense.build(embedding_shape)
        for layer in (self.conv_1, self.conv_2, self.norm):
            layer.build(h_shape)

    def call(self, inputs: Any) -> Any:
        x, embedding = inputs
        if self.projection is not None:
            x = self.projection(x)
        h = x + ops.expand_dims(self.dense(embedding), (1, 2))
        return self.norm(x + self.conv_2(ops.silu(self.conv_1(h))))

    def compute_output_shape(self, inputs_shape: Any) -> tuple[int | None, ...]:
        return (*inputs_shape[0][:-1], self.width)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "width": self.width}
