"""Transformer over the pixels of an image, which attends to the tokens of a condition."""

from typing import Any

import keras
from keras import ops

from keras_gen.core.checks import check_depth, check_flag, check_integer
from keras_gen.core.frozen import StaysFrozen
from keras_gen.export import keras_gen_export
from keras_gen.networks.blocks.attention import check_image_and_tokens
from keras_gen.networks.blocks.layouts import parts_of
from keras_gen.networks.blocks.norms import GroupNorm
from keras_gen.networks.blocks.recomputing import recomputed

EXPANSION = 4  # hidden width of the feed-forward layers, in multiples of the channels


@keras_gen_export("keras_gen.layers.SpatialTransformer")
class SpatialTransformer(StaysFrozen, keras.layers.Layer):
    """Transformer over the pixels of an image, which attends to the tokens of a condition, such as a text.

        h = P GroupNorm(x)
        h = h + attention(LayerNorm(h)),   h = h + attention(LayerNorm(h), condition),
        h = h + V (a gelu(b)),   a, b = U LayerNorm(h)          (these two lines `depth` times)
        y = x + W h

    `W` is initialized to zero, so that the layer starts as the identity. Queries, keys and values have no biases.

    Args:
        num_heads: int >= 1. Heads of each attention. Must divide the number of channels. Defaults to `8`.
        depth: int >= 1. Number of transformer blocks. Defaults to `1`.
        groups: int >= 1. Groups of the first normalization. Must divide the number of channels. Defaults to `32`.
        epsilon: float > 0. Epsilon of the first normalization; that of the others is 1e-5. Defaults to `1e-6`.
        upcast_attention: bool. Whether attention is computed in float32 under any dtype policy. Defaults to `False`.
        remat: bool. Whether to recompute the transformer blocks in the backward pass instead of storing their
            activations (gradient checkpointing). Defaults to `False`.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        inputs: list of the image `(batch, height, width, channels)` and the condition `(batch, tokens, dim)`. There
            is no mask.

    Returns:
        `(batch, height, width, channels)`.

    Raises:
        ValueError: if an argument is outside its range or does not divide the number of channels, or the inputs are
            not batches of images and of tokens.

    Example:

    >>> y = keras_gen.layers.SpatialTransformer(num_heads=8, depth=2)([x, tokens])

    Reference: Rombach et al. 2021, arXiv:2112.10752, section 3.3 and appendix E.2.1.
    """

    def __init__(
        self,
        num_heads: int = 8,
        depth: int = 1,
        groups: int = 32,
        epsilon: float = 1e-6,
        upcast_attention: bool = False,
        remat: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.num_heads = check_integer("num_heads", num_heads)
        self.depth = check_depth("depth", depth)
        self.groups = check_integer("groups", groups)
        self.upcast_attention = check_flag("upcast_attention", upcast_attention)
        self.remat = check_flag("remat", remat)
        options = {"dtype": self.dtype_policy}
        self.norm = GroupNorm(groups, epsilon, name="norm", **options)
        self.blocks = [
            SpatialTransformerBlock(num_heads, upcast_attention, remat, name=f"block_{i}", **options)
            for i in range(self.depth)
        ]

    def build(self, inputs_shape: Any) -> None:
        x_shape, condition_shape = map(tuple, inputs_shape)
        channels = check_image_and_tokens(x_shape, condition_shape, self.num_heads)
        dense, options = keras.layers.Dense, {"dtype": self.dtype_policy}
        self.project_in = dense(channels, name="project_in", **options)
        self.project_out = dense(channels, kernel_initializer="zeros", name="project_out", **options)
        for layer in (self.norm, self.project_in, self.project_out):
            layer.build(x_shape)
        for block in self.blocks:
            block.build([(x_shape[0], None, channels), condition_shape])

    def call(self, inputs: Any) -> Any:
        x, condition = inputs
        batch, height, width, channels = ops.shape(x)
        h = self.project_in(ops.reshape(self.norm(x), (batch, height * width, channels)))
        for block in self.blocks:
            h = block([h, condition])
        return x + ops.reshape(self.project_out(h), (batch, height, width, channels))

    def compute_output_shape(self, inputs_shape: Any) -> tuple[int | None, ...]:
        return tuple(inputs_shape[0])

    def get_config(self) -> dict[str, Any]:
        own = {
            "num_heads": self.num_heads,
            "depth": self.depth,
            "groups": self.groups,
            "epsilon": self.norm.epsilon,
            "upcast_attention": self.upcast_attention,
            "remat": self.remat,
        }
        return {**super().get_config(), **own}


class SpatialTransformerBlock(StaysFrozen, keras.layers.Layer):
    """Self-attention of tokens, their attention to a condition, and a gated feed-forward layer, each pre-normalized."""

    def __init__(self, num_heads: int, upcast_attention: bool, remat: bool, **kwargs: Any):
        super().__init__(**kwargs)
        self.num_heads, self.upcast_attention, self.remat = num_heads, upcast_attention, remat
        options = {"dtype": self.dtype_policy}
        self.norms = [keras.layers.LayerNormalization(epsilon=1e-5, name=f"norm_{i}", **options) for i in (1, 2, 3)]
        self.self_attention = Attention(num_heads, upcast_attention, name="self_attention", **options)
        self.cross_attention = Attention(num_heads, upcast_attention, name="cross_attention", **options)

    def build(self, inputs_shape: Any) -> None:
        x_shape, condition_shape = inputs_shape
        channels = x_shape[-1]
        dense, options = keras.layers.Dense, {"dtype": self.dtype_policy}
        self.mlp_1 = dense(2 * EXPANSION * channels, name="mlp_1", **options)
        self.mlp_2 = dense(channels, name="mlp_2", **options)
        for layer in (*self.norms, self.mlp_1):
            layer.build(x_shape)
        self.mlp_2.build((*x_shape[:-1], EXPANSION * channels))
        self.self_attention.build([x_shape, x_shape])
        self.cross_attention.build([x_shape, condition_shape])

    def call(self, inputs: Any) -> Any:
        return recomputed(self._block, self.remat)(*inputs)

    def _block(self, x: Any, condition: Any) -> Any:
        h = self.norms[0](x)
        x = x + self.self_attention([h, h])
        x = x + self.cross_attention([self.norms[1](x), condition])
        value, gate = parts_of(self.mlp_1, self.norms[2](x), 2)
        return x + self.mlp_2(value * ops.gelu(gate, approximate=False))

    def get_config(self) -> dict[str, Any]:
        own = {"num_heads": self.num_heads, "upcast_attention": self.upcast_attention, "remat": self.remat}
        return {**super().get_config(), **own}


class Attention(StaysFrozen, keras.layers.Layer):
    """Attention of tokens to a context. Its projections are separate layers, as adapters require."""

    def __init__(self, num_heads: int, upcast: bool, **kwargs: Any):
        super().__init__(**kwargs)
        self.num_heads, self.upcast = num_heads, upcast

    def build(self, inputs_shape: Any) -> None:
        x_shape, context_shape = inputs_shape
        channels, options = x_shape[-1], {"dtype": self.dtype_policy}
        self.query, self.key, self.value = (
            keras.layers.Dense(channels, use_bias=False, name=name, **options) for name in ("query", "key", "value")
        )
        self.output_dense = keras.layers.Dense(channels, name="output", **options)
        for layer, shape in (
            (self.query, x_shape),
            (self.key, context_shape),
            (self.value, context_shape),
            (self.output_dense, x_shape),
        ):
            layer.build(shape)

    def call(self, inputs: Any) -> Any:
        x, context = inputs
        q, k, v = self._heads(self.query(x)), self._heads(self.key(context)), self._heads(self.value(context))
        attended = ops.cast(ops.dot_product_attention(q, k, v), self.compute_dtype)
        return self.output_dense(ops.reshape(attended, ops.shape(x)))

    def _heads(self, h: Any) -> Any:
        batch, tokens, channels = ops.shape(h)
        h = ops.reshape(h, (batch, tokens, self.num_heads, channels // self.num_heads))
        # The scores of some networks exceed the range of float16.
        return ops.cast(h, "float32") if self.upcast else h

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_heads": self.num_heads, "upcast": self.upcast}
