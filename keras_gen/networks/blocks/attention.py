"""Attention over the pixels of an image: to one another, and to the tokens of a condition."""

from typing import Any

import keras
from keras import ops

from keras_gen.core.checks import check, check_integer
from keras_gen.export import keras_gen_export
from keras_gen.networks.blocks.norms import GroupNorm


@keras_gen_export("keras_gen.layers.SelfAttention2D")
class SelfAttention2D(keras.layers.Layer):
    """Lets every pixel attend to every other: `x + W softmax(q k^T / sqrt(d)) v`, with `q, k, v` from `GroupNorm(x)`.

    `W` starts at zero, so that the layer starts as the identity.

    Args:
        num_heads: int >= 1. Must divide the number of channels. Defaults to `1`.
        groups: int >= 1. Groups of the normalization. Must divide the number of channels. Defaults to `8`.
        epsilon: float > 0. Of the normalization. Defaults to `1e-5`.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        x: `(batch, height, width, channels)`.

    Returns:
        `(batch, height, width, channels)`.

    Raises:
        ValueError: if an argument is outside its range or does not divide the number of channels, or `x` is no batch of
            images.

    Reference: Ho et al. 2020, arXiv:2006.11239, appendix B.
    """

    def __init__(self, num_heads: int = 1, groups: int = 8, epsilon: float = 1e-5, **kwargs: Any):
        super().__init__(**kwargs)
        self.num_heads = check_integer("num_heads", num_heads)
        self.groups = check_integer("groups", groups)
        self.norm = GroupNorm(groups, epsilon, dtype=self.dtype_policy, name="norm")

    def build(self, x_shape: tuple[int | None, ...]) -> None:
        check(len(x_shape) == 4, "x", "have shape (batch, height, width, channels)", f"shape {tuple(x_shape)}")
        channels = x_shape[-1]
        check(channels % self.num_heads == 0, "num_heads", f"divide {channels} channels", self.num_heads)
        self.norm.build(x_shape)
        self.qkv = keras.layers.Dense(3 * channels, dtype=self.dtype_policy, name="qkv")
        self.qkv.build(x_shape)
        self.output_dense = keras.layers.Dense(
            channels, kernel_initializer="zeros", dtype=self.dtype_policy, name="output"
        )
        self.output_dense.build(x_shape)

    def call(self, x: Any) -> Any:
        batch, height, width, channels = ops.shape(x)
        qkv = self.qkv(self.norm(x))
        qkv = ops.reshape(qkv, (batch, height * width, 3 * self.num_heads, channels // self.num_heads))
        q, k, v = ops.split(qkv, 3, axis=2)
        attended = ops.dot_product_attention(q, k, v)
        return x + self.output_dense(ops.reshape(attended, (batch, height, width, channels)))

    def compute_output_shape(self, x_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return x_shape

    def get_config(self) -> dict[str, Any]:
        own = {"num_heads": self.num_heads, "groups": self.groups, "epsilon": self.norm.epsilon}
        return {**super().get_config(), **own}


@keras_gen_export("keras_gen.layers.CrossAttention2D")
class CrossAttention2D(keras.layers.Layer):
    """Lets every pixel attend to the tokens of a condition, such as the words of a text.

        x + W softmax(q k^T / sqrt(d)) v,   q = Q GroupNorm(x) + b,   k = K condition,   v = V condition

    `W` starts at zero, so that the layer starts as the identity; and it is the identity for tokens that are all zero,
    the null condition, since `W`, `K` and `V` come without biases.

    Args:
        num_heads: int >= 1. Must divide the number of channels. Defaults to `1`.
        groups: int >= 1. Groups of the normalization. Must divide the number of channels. Defaults to `8`.
        epsilon: float > 0. Of the normalization. Defaults to `1e-5`.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        inputs: list of the image `(batch, height, width, channels)` and the condition `(batch, tokens, dim)`. All
            tokens count: one of zeros, among others, takes its share of the attention.

    Returns:
        `(batch, height, width, channels)`.

    Raises:
        ValueError: if an argument is outside its range or does not divide the number of channels, or the inputs are no
            batches of images and of tokens.

    Reference: Rombach et al. 2021, arXiv:2112.10752, section 3.3.
    """

    def __init__(self, num_heads: int = 1, groups: int = 8, epsilon: float = 1e-5, **kwargs: Any):
        super().__init__(**kwargs)
        self.num_heads = check_integer("num_heads", num_heads)
        self.groups = check_integer("groups", groups)
        self.norm = GroupNorm(groups, epsilon, dtype=self.dtype_policy, name="norm")

    def build(self, inputs_shape: Any) -> None:
        x_shape, condition_shape = map(tuple, inputs_shape)
        check(len(x_shape) == 4, "x", "have shape (batch, height, width, channels)", f"shape {x_shape}")
        tokens = len(condition_shape) == 3
        check(tokens, "condition", "have shape (batch, tokens, dim)", f"shape {condition_shape}")
        channels = x_shape[-1]
        check(channels % self.num_heads == 0, "num_heads", f"divide {channels} channels", self.num_heads)
        options = {"dtype": self.dtype_policy}
        self.norm.build(x_shape)
        self.query = keras.layers.Dense(channels, name="query", **options)
        self.query.build(x_shape)
        self.key_value = keras.layers.Dense(2 * channels, use_bias=False, name="key_value", **options)
        self.key_value.build(condition_shape)
        self.output_dense = keras.layers.Dense(
            channels, use_bias=False, kernel_initializer="zeros", name="output", **options
        )
        self.output_dense.build(x_shape)

    def call(self, inputs: Any) -> Any:
        x, condition = inputs
        batch, height, width, channels = ops.shape(x)
        head = channels // self.num_heads
        q = ops.reshape(self.query(self.norm(x)), (batch, height * width, self.num_heads, head))
        kv = ops.reshape(self.key_value(condition), (batch, ops.shape(condition)[1], 2 * self.num_heads, head))
        attended = ops.dot_product_attention(q, *ops.split(kv, 2, axis=2))
        return x + self.output_dense(ops.reshape(attended, (batch, height, width, channels)))

    def compute_output_shape(self, inputs_shape: Any) -> tuple[int | None, ...]:
        return tuple(inputs_shape[0])

    def get_config(self) -> dict[str, Any]:
        own = {"num_heads": self.num_heads, "groups": self.groups, "epsilon": self.norm.epsilon}
        return {**super().get_config(), **own}
