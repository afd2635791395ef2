"""Self-attention over the pixels of an image, and cross-attention to the tokens of a condition."""

from typing import Any

import keras
from keras import ops

from keras_gen.core.checks import check, check_divides, check_flag, check_integer, known_size
from keras_gen.core.frozen import StaysFrozen
from keras_gen.export import keras_gen_export
from keras_gen.networks.blocks.layouts import heads_of
from keras_gen.networks.blocks.norms import GroupNorm
from keras_gen.networks.blocks.recomputing import recomputed


class PixelAttention(StaysFrozen, keras.layers.Layer):
    """Base class of the layers whose queries are pixels: their arguments, and the normalization of the image."""

    def __init__(self, num_heads: int = 1, groups: int = 8, epsilon: float = 1e-5, remat: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.num_heads = check_integer("num_heads", num_heads)
        self.groups = check_integer("groups", groups)
        self.remat = check_flag("remat", remat)
        self.norm = GroupNorm(groups, epsilon, dtype=self.dtype_policy, name="norm")

    def get_config(self) -> dict[str, Any]:
        own = {
            "num_heads": self.num_heads,
            "groups": self.groups,
            "epsilon": self.norm.epsilon,
            "remat": self.remat,
        }
        return {**super().get_config(), **own}


@keras_gen_export("keras_gen.layers.SelfAttention2D")
class SelfAttention2D(PixelAttention):
    """Self-attention over pixels: `x + W softmax(q k^T / sqrt(d)) v`, with `q, k, v` from `GroupNorm(x)`.

    `W` is initialized to zero, so that the layer starts as the identity.

    Args:
        num_heads: int >= 1. Must divide the number of channels. Defaults to `1`.
        groups: int >= 1. Number of normalization groups. Must divide the number of channels. Defaults to `8`.
        epsilon: float > 0. Epsilon of the normalization. Defaults to `1e-5`.
        remat: bool. Whether to recompute the layer in the backward pass instead of storing its activations (gradient
            checkpointing). Defaults to `False`.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        x: `(batch, height, width, channels)`.

    Returns:
        `(batch, height, width, channels)`.

    Raises:
        ValueError: if an argument is outside its range or does not divide the number of channels, or `x` is not a batch
            of images.

    Reference: Ho et al. 2020, arXiv:2006.11239, appendix B.
    """

    def build(self, x_shape: tuple[int | None, ...]) -> None:
        check(len(x_shape) == 4, "x", "have shape (batch, height, width, channels)", f"shape {tuple(x_shape)}")
        channels = known_size("x", x_shape)
        check_divides("num_heads", self.num_heads, channels)
        self.norm.build(x_shape)
        self.qkv = keras.layers.Dense(3 * channels, dtype=self.dtype_policy, name="qkv")
        self.qkv.build(x_shape)
        self.output_dense = keras.layers.Dense(
            channels, kernel_initializer="zeros", dtype=self.dtype_policy, name="output"
        )
        self.output_dense.build(x_shape)

    def call(self, x: Any) -> Any:
        return recomputed(self._block, self.remat)(x)

    def _block(self, x: Any) -> Any:
        batch, height, width, channels = ops.shape(x)
        tokens = ops.reshape(self.norm(x), (batch, height * width, channels))
        attended = ops.dot_product_attention(*heads_of(self.qkv, tokens, self.num_heads))
        return x + self.output_dense(ops.reshape(attended, (batch, height, width, channels)))

    def compute_output_shape(self, x_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return x_shape


@keras_gen_export("keras_gen.layers.CrossAttention2D")
class CrossAttention2D(PixelAttention):
    """Cross-attention from pixels to the tokens of a condition, such as the words of a text.

        x + W softmax(q k^T / sqrt(d)) v,   q = Q GroupNorm(x) + b,   k = K condition,   v = V condition

    `W` is initialized to zero, so that the layer starts as the identity. If all tokens are zero, the null condition, it
    is always the identity, since `W`, `K` and `V` have no biases.

    Args:
        num_heads: int >= 1. Must divide the number of channels. Defaults to `1`.
        groups: int >= 1. Number of normalization groups. Must divide the number of channels. Defaults to `8`.
        epsilon: float > 0. Epsilon of the normalization. Defaults to `1e-5`.
        remat: bool. Whether to recompute the layer in the backward pass instead of storing its activations (gradient
            checkpointing). Defaults to `False`.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        inputs: list of the image `(batch, height, width, channels)` and the condition `(batch, tokens, dim)`. There
            is no mask: a zero token among others receives attention weight, too.

    Returns:
        `(batch, height, width, channels)`.

    Raises:
        ValueError: if an argument is outside its range or does not divide the number of channels, or the inputs are
            not batches of images and of tokens.

    Reference: Rombach et al. 2021, arXiv:2112.10752, section 3.3.
    """

    def build(self, inputs_shape: Any) -> None:
        x_shape, condition_shape = map(tuple, inputs_shape)
        channels = check_image_and_tokens(x_shape, condition_shape, self.num_heads)
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
        return recomputed(self._block, self.remat)(*inputs)

    def _block(self, x: Any, condition: Any) -> Any:
        batch, height, width, channels = ops.shape(x)
        head = channels // self.num_heads
        q = ops.reshape(self.query(self.norm(x)), (batch, height * width, self.num_heads, head))
        attended = ops.dot_product_attention(q, *heads_of(self.key_value, condition, self.num_heads, number=2))
        return x + self.output_dense(ops.reshape(attended, (batch, height, width, channels)))

    def compute_output_shape(self, inputs_shape: Any) -> tuple[int | None, ...]:
        return tuple(inputs_shape[0])


def check_image_and_tokens(x_shape: tuple[Any, ...], condition_shape: tuple[Any, ...], num_heads: int) -> int:
    """Checks the shapes of images and of the tokens to which their pixels attend; returns the number of channels."""
    check(len(x_shape) == 4, "x", "have shape (batch, height, width, channels)", f"shape {x_shape}")
    check(len(condition_shape) == 3, "condition", "have shape (batch, tokens, dim)", f"shape {condition_shape}")
    channels = known_size("x", x_shape)
    check_divides("num_heads", num_heads, channels)
    return channels
