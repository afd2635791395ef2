from typing import Any

import keras
from keras import ops

from keras_gen.core.checks import check, check_divides, check_flag, check_integer, check_positive
from keras_gen.export import keras_gen_export
from keras_gen.networks.blocks.layouts import heads_of
from keras_gen.networks.blocks.recomputing import recomputed
from keras_gen.networks.blocks.rotary import RotatedAttention, check_positions


@keras_gen_export("keras_gen.layers.DiTBlock")
class DiTBlock(RotatedAttention):
    """Block of a diffusion transformer: attention and feed-forward layer, modulated by an embedding (adaLN-Zero).

        a_1, b_1, g_1, a_2, b_2, g_2 = embedding W
        h = x + g_1 attention((1 + a_1) LayerNorm(x) + b_1)
        y = h + g_2 mlp((1 + a_2) LayerNorm(h) + b_2)

    Queries and keys are RMS-normalized in each head, with learned scales, so that attention cannot saturate. `W` is
    initialized to zero, so that the block starts as the identity. Layer normalizations have no weights.

    Args:
        num_heads: int >= 1. Must divide the number of channels. Defaults to `4`.
        expansion: int >= 1. Hidden width of the feed-forward layer, in multiples of the channels. Defaults to `4`.
        positions: a layer applied to queries and keys `(batch, tokens, num_heads, dim)`, such as
            `RotaryEmbedding2D`. Defaults to `None`.
        remat: bool. Whether to recompute the block in the backward pass instead of storing its activations (gradient
            checkpointing). Defaults to `False`.
        qk_norm: bool. Whether queries and keys are normalized, which the paper's are not. Defaults to `True`.
        mlp_epsilon: float > 0. Epsilon of the layer normalization before the feed-forward layer. Defaults to `1e-6`,
            as before attention.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        inputs: list of the tokens `(batch, tokens, channels)` and the embedding `(batch, dim)`.

    Returns:
        A tensor like the tokens.

    Raises:
        ValueError: if an argument is outside its range or of the wrong type, or `num_heads` does not divide the number
            of channels.

    Reference: Peebles and Xie 2022, arXiv:2212.09748; the normalization of queries and keys: Dehghani et al. 2023,
    arXiv:2302.05442.
    """

    def __init__(
        self,
        num_heads: int = 4,
        expansion: int = 4,
        positions: keras.Layer | None = None,
        remat: bool = False,
        qk_norm: bool = True,
        mlp_epsilon: float = 1e-6,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.num_heads = check_integer("num_heads", num_heads)
        self.expansion = check_integer("expansion", expansion)
        self.positions = check_positions(positions)
        self.remat = check_flag("remat", remat)
        self.qk_norm = check_flag("qk_norm", qk_norm)
        self.mlp_epsilon = check_positive("mlp_epsilon", mlp_epsilon)
        options = {"dtype": self.dtype_policy}
        epsilons = {"norm_1": 1e-6, "norm_2": self.mlp_epsilon}
        self.norms = [plain_layer_norm(epsilon, name=name, **options) for name, epsilon in epsilons.items()]
        self.q_norm, self.k_norm = (
            keras.layers.RMSNormalization(epsilon=1e-6, name=f"{name}_norm", **options) if self.qk_norm else None
            for name in "qk"
        )

    def build(self, inputs_shape: Any) -> None:
        x_shape, embedding_shape = inputs_shape
        check(len(x_shape) == 3, "tokens", "have shape (batch, tokens, channels)", f"shape {tuple(x_shape)}")
        channels = x_shape[-1]
        check_divides("num_heads", self.num_heads, channels)
        dense, options = keras.layers.Dense, {"dtype": self.dtype_policy}
        self.modulation = dense(6 * channels, kernel_initializer="zeros", name="modulation", **options)
        self.qkv = dense(3 * channels, name="qkv", **options)
        self.output_dense = dense(channels, name="output", **options)
        self.mlp_1 = dense(self.expansion * channels, name="mlp_1", **options)
        self.mlp_2 = dense(channels, name="mlp_2", **options)
        self.modulation.build(embedding_shape)
        for layer in (*self.norms, self.qkv, self.output_dense, self.mlp_1):
            layer.build(x_shape)
        self.mlp_2.build((*x_shape[:-1], self.expansion * channels))
        heads_shape = (*x_shape[:-1], self.num_heads, channels // self.num_heads)
        for layer in (self.q_norm, self.k_norm):
            if layer is not None:
                layer.build(heads_shape)
        self.build_positions(heads_shape)

    def call(self, inputs: Any) -> Any:
        return recomputed(self._block, self.remat)(*inputs)

    def _block(self, x: Any, embedding: Any) -> Any:
        modulation = ops.expand_dims(self.modulation(embedding), 1)
        scale_1, shift_1, gate_1, scale_2, shift_2, gate_2 = ops.split(modulation, 6, axis=-1)
        x = x + gate_1 * self._attention(self.norms[0](x) * (1 + scale_1) + shift_1)
        h = self.norms[1](x) * (1 + scale_2) + shift_2
        return x + gate_2 * self.mlp_2(ops.gelu(self.mlp_1(h), approximate=True))

    def compute_output_shape(self, inputs_shape: Any) -> tuple[int | None, ...]:
        return tuple(inputs_shape[0])

    def get_config(self) -> dict[str, Any]:
        own = {
            "num_heads": self.num_heads,
            "expansion": self.expansion,
            "positions": keras.saving.serialize_keras_object(self.positions),
            "remat": self.remat,
            "qk_norm": self.qk_norm,
            "mlp_epsilon": self.mlp_epsilon,
        }
        return {**super().get_config(), **own}

    def _attention(self, h: Any) -> Any:
        tokens, channels = h.shape[1:]
        q, k, v = heads_of(self.qkv, h, self.num_heads)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        attended = ops.dot_product_attention(*self.rotated(q, k), v)
        return self.output_dense(ops.reshape(attended, (-1, tokens, channels)))


def plain_layer_norm(epsilon: float = 1e-6, **options: Any) -> keras.layers.LayerNormalization:
    """Returns a layer normalization of each token without weights, with statistics in float32."""
    return keras.layers.LayerNormalization(epsilon=epsilon, center=False, scale=False, **options)


def last_layers(tokens: Any, embedding: Any, units: int, dtype: Any) -> Any:
    """Returns the outputs `(batch, ..., units)` of a transformer: normalized, modulated, and a dense layer of zeros."""
    options, width = {"dtype": dtype}, tokens.shape[-1]
    modulation = keras.layers.Dense(2 * width, kernel_initializer="zeros", name="last_modulation", **options)(embedding)
    vectors = keras.layers.Reshape((*[1] * (len(tokens.shape) - 2), 2 * width), **options)(modulation)
    scale, shift = ops.split(vectors, 2, axis=-1)
    tokens = plain_layer_norm(name="last_norm", **options)(tokens) * (1 + scale) + shift
    return keras.layers.Dense(units, kernel_initializer="zeros", name="last_dense", **options)(tokens)
