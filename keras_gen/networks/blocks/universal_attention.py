import math
from typing import Any

import keras
from keras import ops

from keras_gen.core.checks import (
    check,
    check_choice,
    check_divides,
    check_integer,
    check_integer_or_none,
    known_size,
)
from keras_gen.export import keras_gen_export
from keras_gen.networks.blocks.layouts import heads_of
from keras_gen.networks.blocks.rotary import RotatedAttention, check_positions
from keras_gen.networks.blocks.tiled_attention import MASKED

POWERS = {"softmax": 1.0, "l2": 2.0}  # p of the norm by which a row of exp(B) is divided


@keras_gen_export("keras_gen.layers.UniversalAttention")
class UniversalAttention(RotatedAttention):
    """Attention that knows absolute positions from relative ones alone: the rows of its weights need not sum to 1.

        B = q k^T / sqrt(d),   A = softmax(B),   y = W ((A * C) v),   c_ij = g_h(i - j)

    With relative positions, B depends on i - j and the tokens. If these are all the same, so are the values v, and rows
    of a softmax, which sum to 1, give the same output at every position: n zeros cannot be mapped to 1, 2, ..., n. Two
    cures, alone or together:

    - `max_distance`: a learned Toeplitz matrix C for each head h, multiplied after the softmax. `g` starts as 1, plain
      attention, and is constant beyond `max_distance` in either direction, so that there is no maximum length.
    - `normalization="l2"`: rows of norm 1, a_ij = e^b_ij / sqrt(sum_j e^(2 b_ij)), whose sums depend on the position.

    Logits, weights and C are float32 under any dtype policy. With neither cure the layer is plain multi-head attention.

    Args:
        num_heads: int >= 1. Must divide the number of channels. Defaults to `4`.
        max_distance: int >= 1, or `None` for C = 1. Defaults to `128`.
        normalization: `"softmax"` or `"l2"`. Defaults to `"softmax"`.
        positions: a layer that rotates queries and keys, such as `RotaryEmbedding`, or `None`. Defaults to `None`.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        x: `(batch, tokens, channels)`.
        attention_mask: bool that broadcasts to `(batch, num_heads, tokens, tokens)`, the tokens (last axis) to which
            each token attends, such as from `segment_mask`, or `None`, all. A token that attends to none gets the bias
            of W alone. Defaults to `None`.

    Returns:
        `(batch, tokens, channels)`.

    Raises:
        ValueError: if an argument is outside its range or of the wrong type, `num_heads` does not divide the number of
            channels, or the mask is not bool.

    Example:

    >>> attention = keras_gen.layers.UniversalAttention(8, positions=keras_gen.layers.RotaryEmbedding())
    >>> y = x + attention(keras.layers.LayerNormalization()(x))

    Reference: https://kexue.fm/archives/9105; Luo et al. 2022, arXiv:2205.13401.
    """

    def __init__(
        self,
        num_heads: int = 4,
        max_distance: int | None = 128,
        normalization: str = "softmax",
        positions: keras.Layer | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.num_heads = check_integer("num_heads", num_heads)
        self.max_distance = check_integer_or_none("max_distance", max_distance)
        check_choice("normalization", normalization, POWERS)
        self.normalization = normalization
        self.positions = check_positions(positions)

    def build(self, x_shape: Any) -> None:
        check(len(x_shape) == 3, "x", "have shape (batch, tokens, channels)", f"shape {tuple(x_shape)}")
        channels = known_size("x", x_shape)
        check_divides("num_heads", self.num_heads, channels)
        self.head_dim = channels // self.num_heads
        self.qkv = keras.layers.Dense(3 * channels, dtype=self.dtype_policy, name="qkv")
        self.qkv.build(x_shape)
        self.output_dense = keras.layers.Dense(channels, dtype=self.dtype_policy, name="output")
        self.output_dense.build(x_shape)
        if self.max_distance is not None:
            shape = (self.num_heads, 2 * self.max_distance + 1)
            self.toeplitz = self.add_weight(name="toeplitz", shape=shape, initializer="ones", autocast=False)
        self.build_positions((*x_shape[:-1], self.num_heads, self.head_dim))

    def call(self, x: Any, attention_mask: Any = None) -> Any:
        batch, tokens, channels = ops.shape(x)
        q, k, v = heads_of(self.qkv, x, self.num_heads)
        logits = ops.einsum("bihd,bjhd->bhij", *self.rotated(q, k))
        weights = self._weights(ops.cast(logits, "float32") / math.sqrt(self.head_dim), attention_mask)
        attended = ops.einsum("bhij,bjhd->bihd", ops.cast(weights, self.compute_dtype), v)
        return self.output_dense(ops.reshape(attended, (batch, tokens, channels)))

    def _weights(self, logits: Any, mask: Any) -> Any:
        """Returns A * C, `(batch, num_heads, tokens, tokens)`, zero where the mask is `False`."""
        if mask is None:
            weights = normalized(logits, self.normalization)
        else:
            mask = ops.convert_to_tensor(mask)
            dtype = keras.backend.standardize_dtype(mask.dtype)
            check(dtype == "bool", "attention_mask", "be bool", f"dtype {dtype}")
            weights = ops.where(mask, normalized(ops.where(mask, logits, MASKED), self.normalization), 0.0)
        if self.max_distance is None:
            return weights
        return weights * toeplitz_matrices(ops.cast(self.toeplitz, "float32"), ops.shape(logits)[-1])

    def compute_output_shape(self, x_shape: Any, *args: Any, **kwargs: Any) -> tuple[int | None, ...]:
        return tuple(x_shape)

    def get_config(self) -> dict[str, Any]:
        own = {
            "num_heads": self.num_heads,
            "max_distance": self.max_distance,
            "normalization": self.normalization,
            "positions": keras.saving.serialize_keras_object(self.positions),
        }
        return {**super().get_config(), **own}


def normalized(logits: Any, normalization: str) -> Any:
    """Divides each row of exp(logits) by its sum (`"softmax"`) or by its Euclidean norm (`"l2"`)."""
    p = POWERS[normalization]
    return ops.exp(logits - ops.logsumexp(p * logits, axis=-1, keepdims=True) / p)


def toeplitz_matrices(g: Any, tokens: Any) -> Any:
    """Returns c_ij = g(i - j) for each head, `(heads, tokens, tokens)`, from g(-m), ..., g(m), `(heads, 2 m + 1)`."""
    farthest = g.shape[1] // 2
    places = ops.arange(tokens, dtype="int32")
    return ops.take(g, ops.clip(places[:, None] - places, -farthest, farthest) + farthest, axis=1)
