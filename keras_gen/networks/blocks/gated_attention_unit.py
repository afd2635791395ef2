import math
from typing import Any

import keras
from keras import ops

from keras_gen.core.checks import check, check_flag, check_integer, known_size
from keras_gen.export import keras_gen_export
from keras_gen.networks.blocks.recomputing import recomputed
from keras_gen.networks.blocks.rotary import RotatedAttention, check_positions


@keras_gen_export("keras_gen.layers.GatedAttentionUnit")
class GatedAttentionUnit(RotatedAttention):
    """Gated attention unit (GAU): attention and feed-forward layer in one, with attention outputs gated by each token.

        h = RMSNorm(x),   u = silu(h W_u),   v = silu(h W_v),   z = silu(h W_z)
        q = gamma_q z,   k = gamma_k z,   A = softmax(q k^T / sqrt(key_dim))
        y = x + (u * (A v)) W_o

    One head, no biases. `W_o` is initialized to zero, so that the layer starts as the identity.

    Args:
        intermediate_dim: int >= 1. Channels of `u` and `v`; in the papers twice the channels of `x`. Its former name is
            `expansion`.
        key_dim: int >= 1. Channels of `q` and `k`. Defaults to `128`.
        positions: a layer applied to `q` and `k`, both `(batch, tokens, 1, key_dim)`, such as
            `RotaryEmbedding2D`. Defaults to `None`: the layer ignores the order of tokens.
        remat: bool. Whether to recompute the unit in the backward pass instead of storing its activations (gradient
            checkpointing). Defaults to `False`.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        x: `(batch, tokens, channels)`.

    Returns:
        A tensor like `x`.

    Raises:
        ValueError: if an argument is outside its range or of the wrong type, or `x` does not have three axes.

    Reference: Hua et al. 2022, arXiv:2202.10447; with softmax https://kexue.fm/archives/8934.
    """

    def __init__(
        self,
        intermediate_dim: int | None = None,
        key_dim: int = 128,
        positions: keras.Layer | None = None,
        remat: bool = False,
        **kwargs: Any,
    ):
        if intermediate_dim is None:
            intermediate_dim = kwargs.pop("expansion", None)  # which is a factor in other layers
        super().__init__(**kwargs)
        self.intermediate_dim = check_integer("intermediate_dim", intermediate_dim)
        self.key_dim = check_integer("key_dim", key_dim)
        self.positions = check_positions(positions)
        self.remat = check_flag("remat", remat)
        self.norm = keras.layers.RMSNormalization(epsilon=1e-6, name="norm", dtype=self.dtype_policy)
        self.dense = self._dense(2 * self.intermediate_dim + self.key_dim, "dense", activation="silu")

    def build(self, x_shape: tuple[int | None, ...]) -> None:
        check(len(x_shape) == 3, "x", "have shape (batch, tokens, channels)", f"shape {tuple(x_shape)}")
        self.norm.build(x_shape)
        self.dense.build(x_shape)
        self.gammas = self.add_weight(name="gammas", shape=(2, self.key_dim), initializer="ones")
        self.output_dense = self._dense(known_size("x", x_shape), "output", kernel_initializer="zeros")
        self.output_dense.build((*x_shape[:-1], self.intermediate_dim))
        self.build_positions((*x_shape[:-1], 1, self.key_dim))

    def call(self, x: Any) -> Any:
        # Read here, in the compute dtype: in the backward pass they would be in that of the weights.
        return recomputed(self._unit, self.remat)(x, ops.convert_to_tensor(self.gammas))

    def _unit(self, x: Any, gammas: Any) -> Any:
        e = self.intermediate_dim
        u, v, z = ops.split(self.dense(self.norm(x)), [e, 2 * e], axis=-1)
        q, k = (z * gammas[i] for i in range(2))
        if self.positions is not None:
            rotated = self.rotated(*(ops.expand_dims(head, 2) for head in (q, k)))
            q, k = (ops.squeeze(head, 2) for head in rotated)
        logits = ops.matmul(q, ops.transpose(k, (0, 2, 1))) * (1 / math.sqrt(self.key_dim))
        attention = ops.cast(ops.softmax(ops.cast(logits, "float32"), axis=-1), self.compute_dtype)
        return x + self.output_dense(u * ops.matmul(attention, v))

    def compute_output_shape(self, x_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return x_shape

    def get_config(self) -> dict[str, Any]:
        own = {
            "intermediate_dim": self.intermediate_dim,
            "key_dim": self.key_dim,
            "positions": keras.saving.serialize_keras_object(self.positions),
            "remat": self.remat,
        }
        return {**super().get_config(), **own}

    def _dense(self, units: int, name: str, **options: Any) -> keras.layers.Dense:
        return keras.layers.Dense(units, use_bias=False, name=name, dtype=self.dtype_policy, **options)
