from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_gen.core.checks import (
    check,
    check_choice,
    check_divides,
    check_flag,
    check_integer,
    check_integer_or_none,
    check_positive,
    check_rate,
)
from keras_gen.core.random import check_seed, keras_seed
from keras_gen.core.torch.kernels import put_token
from keras_gen.export import keras_gen_export
from keras_gen.networks.blocks.layouts import heads_of
from keras_gen.networks.blocks.recomputing import recomputed
from keras_gen.networks.blocks.rotary import RotatedAttention, check_positions

# The logistic function of 1.702 x is within 0.01 of the normal distribution function.
ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "gelu_tanh": lambda x: ops.gelu(x, approximate=True),
    "gelu": lambda x: ops.gelu(x, approximate=False),
    "quick_gelu": lambda x: x * ops.sigmoid(1.702 * x),
}


@keras_gen_export("keras_gen.layers.TransformerBlock")
class TransformerBlock(RotatedAttention):
    """Block of a causal transformer: masked self-attention, then a feed-forward layer, both with pre-normalization.

        h = x + W softmax(q k^T / sqrt(d)) v,   q, k, v from LayerNorm(x)
        y = h + mlp(LayerNorm(h))

    Args:
        num_heads: int >= 1. Must divide the number of channels. Defaults to `4`.
        expansion: int >= 1. Hidden width of the feed-forward layer, in multiples of the channels. Defaults to `4`.
        positions: a layer that rotates queries and keys, such as `RotaryEmbedding`, or `None`. Defaults to `None`.
        dropout: float in [0, 1). Dropout rate of the outputs of attention and feed-forward layer. Defaults to `0.0`.
        seed: int or `None`. Seeds the dropout. Defaults to `None`, a seed from Keras's global generator.
        remat: bool. Whether to recompute the block in the backward pass instead of storing its activations (gradient
            checkpointing). Defaults to `False`.
        hidden_dim: int >= 1 or `None`. Hidden width of the feed-forward layer, if it is not such a multiple. Defaults
            to `None`.
        activation: `"gelu_tanh"`, `"gelu"` (exact) or `"quick_gelu"`, `x sigmoid(1.702 x)`. Defaults to `"gelu_tanh"`.
        epsilon: float > 0. Epsilon of the normalizations. Defaults to `1e-6`.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        x: `(batch, tokens, channels)`.
        attention_mask: bool `(batch, 1, tokens, tokens)`, the tokens (last axis) to which each token attends, such as
            from `segment_mask`; or `None`, a causal mask. Defaults to `None`.
        token_positions: integers `(batch, tokens)` for `positions`, or `None` for 0, 1, 2, ... Defaults to `None`.
        training: bool. Defaults to `False`.

    Returns:
        `(batch, tokens, channels)`.

    Raises:
        ValueError: if an argument is outside its range or of the wrong type, or `num_heads` does not divide the number
            of channels.

    Example:

    >>> y = keras_gen.layers.TransformerBlock(8, positions=keras_gen.layers.RotaryEmbedding())(x)

    Reference: Vaswani et al. 2017, arXiv:1706.03762; Radford et al. 2019 (normalization before each layer).
    """

    def __init__(
        self,
        num_heads: int = 4,
        expansion: int = 4,
        positions: keras.Layer | None = None,
        dropout: float = 0.0,
        seed: int | None = None,
        remat: bool = False,
        hidden_dim: int | None = None,
        activation: str = "gelu_tanh",
        epsilon: float = 1e-6,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.num_heads = check_integer("num_heads", num_heads)
        self.expansion = check_integer("expansion", expansion)
        self.hidden_dim = check_integer_or_none("hidden_dim", hidden_dim)
        check_choice("activation", activation, ACTIVATIONS)
        self.activation = activation
        self.epsilon = check_positive("epsilon", epsilon)
        self.positions = check_positions(positions)
        self.dropout = check_rate("dropout", dropout)
        self.seed = check_seed(seed)
        self.remat = check_flag("remat", remat)
        options = {"dtype": self.dtype_policy}
        self.norm_1, self.norm_2 = (
            keras.layers.LayerNormalization(epsilon=self.epsilon, name=f"norm_{i}", **options) for i in (1, 2)
        )
        self.drop = keras.layers.Dropout(self.dropout, seed=keras_seed(self.seed), **options)

    def build(self, x_shape: Any) -> None:
        check(len(x_shape) == 3, "x", "have shape (batch, tokens, channels)", f"shape {tuple(x_shape)}")
        channels = x_shape[-1]
        check_divides("num_heads", self.num_heads, channels)
        self.head_dim = channels // self.num_heads
        dense, options = keras.layers.Dense, {"dtype": self.dtype_policy}
        self.qkv = dense(3 * channels, name="qkv", **options)
        self.output_dense = dense(channels, name="output", **options)
        hidden = self.expansion * channels if self.hidden_dim is None else self.hidden_dim
        self.mlp_1 = dense(hidden, name="mlp_1", **options)
        self.mlp_2 = dense(channels, name="mlp_2", **options)
        for layer in (self.norm_1, self.norm_2, self.qkv, self.output_dense, self.mlp_1):
            layer.build(x_shape)
        self.mlp_2.build((*x_shape[:-1], hidden))
        self.build_positions((*x_shape[:-1], self.num_heads, self.head_dim))

    def call(self, x: Any, attention_mask: Any = None, token_positions: Any = None, training: bool = False) -> Any:
        dropout_masks = []
        if training and self.dropout > 0:
            # Drawn here, since a recomputation must not draw again.
            dropout_masks = [self.drop(ops.ones_like(x), training=True) for _ in range(2)]

        def block(x: Any) -> Any:
            q, k, v = self._heads(x, token_positions)
            causal = attention_mask is None
            attended = ops.dot_product_attention(q, k, v, mask=attention_mask, is_causal=causal)
            return self._outputs(x, attended, *dropout_masks)

        return recomputed(block, self.remat)(x)

    def extend(self, x: Any, cache: tuple[Any, Any], i: Any) -> tuple[Any, tuple[Any, Any]]:
        """Computes the output of `call` for token `i` only, from cached keys and values (KV cache).

        Args:
            x: `(batch, 1, channels)`, token `i`.
            cache: keys and values, both `(batch, tokens, num_heads, dim)`, valid for preceding tokens.
            i: int tensor.

        Returns:
            y: `(batch, 1, channels)`.
            cache: keys and values including those of token `i`.
        """
        q, k, v = self._heads(x, ops.reshape(i, (1, 1)))
        cache = tuple(put_token(old, i, new) for old, new in zip(cache, (k, v), strict=True))
        seen = ops.reshape(ops.arange(cache[0].shape[1], dtype="int32") <= i, (1, 1, 1, -1))
        return self._outputs(x, ops.dot_product_attention(q, *cache, mask=seen)), cache

    def empty_cache(self, batch: int, tokens: int) -> tuple[Any, Any]:
        """Returns the cache for the first call of `extend`."""
        shape = (batch, tokens, self.num_heads, self.head_dim)
        return ops.zeros(shape, self.compute_dtype), ops.zeros(shape, self.compute_dtype)

    def compute_output_shape(self, x_shape: Any, *args: Any, **kwargs: Any) -> tuple[int | None, ...]:
        return tuple(x_shape)

    def _heads(self, x: Any, token_positions: Any) -> list[Any]:
        q, k, v = heads_of(self.qkv, self.norm_1(x), self.num_heads)
        return [*self.rotated(q, k, token_positions), v]

    def _outputs(self, x: Any, attended: Any, attention_mask: Any = None, mlp_mask: Any = None) -> Any:
        h = x + dropped(self.output_dense(ops.reshape(attended, ops.shape(x))), attention_mask)
        mlp = self.mlp_2(ACTIVATIONS[self.activation](self.mlp_1(self.norm_2(h))))
        return h + dropped(mlp, mlp_mask)

    def get_config(self) -> dict[str, Any]:
        own = {
            "num_heads": self.num_heads,
            "expansion": self.expansion,
            "positions": keras.saving.serialize_keras_object(self.positions),
            "dropout": self.dropout,
            "seed": self.seed,
            "remat": self.remat,
            "hidden_dim": self.hidden_dim,
            "activation": self.activation,
            "epsilon": self.epsilon,
        }
        return {**super().get_config(), **own}


def dropped(x: Any, mask: Any) -> Any:
    """Applies a mask of dropout, if there is one."""
    return x if mask is None else x * mask
