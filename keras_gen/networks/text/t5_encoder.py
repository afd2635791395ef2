import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.checks import check, check_depth, check_flag, check_integer, check_positive
from keras_gen.core.foreign.weights import Entry, ForeignWeights
from keras_gen.core.frozen import StaysFrozen
from keras_gen.export import keras_gen_export
from keras_gen.networks.blocks.layouts import ATTENTION, GATED_MLP, heads_of, parts_of
from keras_gen.networks.blocks.recomputing import recomputed
from keras_gen.networks.text.t5_encoder_weights import CLASSES, LAYERS, SIZES, TWIN, t5_arguments, t5_config, t5_table
from keras_gen.networks.text.text_network import TextNetwork

MASKED = -6e4  # within the range of float16
LARGEST_DISTANCE = 2**20  # each has an entry in a table


@keras_gen_export("keras_gen.models.T5Encoder")
class T5Encoder(ForeignWeights, TextNetwork):
    """Encoder of T5, version 1.1: a transformer over token ids whose positions are biases of the attention scores.

        h_i = x_i-1 + W softmax(q k^T + B) v,       q, k, v from RMSNorm(x_i-1)
        x_i = h_i + W' (gelu(U y) * V y),           y = RMSNorm(h_i)

    Scores are not divided by sqrt(d). The bias `B_ij = b[bucket(j - i)]` of each head is the same in all blocks; small
    distances have a bucket each, larger ones share them on a logarithmic scale. No layer has a bias vector, and there
    is no dropout. The sums h and x, and what else could overflow in float16, are float32 under any dtype policy.

    The defaults are the sizes of T5-v1.1-XXL, the third text encoder of SD3, which attends to padding as well: it gives
    no mask.

    Args:
        vocabulary_size: int >= 1. Ids are 0 .. vocabulary_size - 1. Defaults to `32128`.
        dim: int >= 1. Number of channels. Defaults to `4096`.
        depth: int >= 1. Number of blocks. Defaults to `24`.
        num_heads: int >= 1. Defaults to `64`.
        head_dim: int >= 1. Size of queries, keys and values. Defaults to `64`.
        hidden_dim: int >= 1. Hidden width of the feed-forward layers. Defaults to `10240`.
        num_buckets: int >= 4, even. Number of buckets of distances, half of them for each direction. Defaults to `32`.
        max_distance: int. Distance from which on all share the last bucket, from `num_buckets / 4 + 1` to `2**20`.
            Defaults to `128`.
        epsilon: float > 0. Epsilon of the normalizations. Defaults to `1e-6`.
        remat: bool. Whether to recompute blocks in the backward pass to save memory (gradient checkpointing). Defaults
            to `False`.
        **kwargs: `name`, `dtype`, `trainable`, as for any Keras model.

    Call arguments:
        ids: int `(batch, tokens)`, such as from `keras_gen.tokenizers.T5Tokenizer`; any number of tokens.
        attention_mask: bool `(batch, tokens)`, the tokens that are attended to, or `None`, all. Defaults to `None`.

    Returns:
        dict of `"tokens"` `(batch, tokens, dim)`.

    Raises:
        ValueError: if an argument is outside its range or of the wrong type, a NumPy array holds ids outside of the
            vocabulary, or the mask is not bool.

    Example:

    >>> tokenizer = keras_gen.tokenizers.T5Tokenizer.from_folder("stable-diffusion-3/tokenizer_3")
    >>> ids = tokenizer(["a photo of a cat"], length=256)
    >>> encoder = keras_gen.models.T5Encoder(dim=512, depth=8, num_heads=6, hidden_dim=1024)     # T5-v1.1-small
    >>> tokens = encoder(ids, attention_mask=ids != tokenizer.pad_id)["tokens"]                 # (1, 256, 512)

    Reference: Raffel et al. 2019, arXiv:1910.10683; gated layers: Shazeer 2020, arXiv:2002.05202.
    """

    splits = (ATTENTION, GATED_MLP)
    foreign_classes = CLASSES
    foreign_file = "model"
    foreign_ignored = (TWIN,)
    foreign_sizes, foreign_layers = SIZES, LAYERS

    def __init__(
        self,
        vocabulary_size: int = 32128,
        dim: int = 4096,
        depth: int = 24,
        num_heads: int = 64,
        head_dim: int = 64,
        hidden_dim: int = 10240,
        num_buckets: int = 32,
        max_distance: int = 128,
        epsilon: float = 1e-6,
        remat: bool = False,
        **kwargs: Any,
    ):
        super().__init__(vocabulary_size, None, **kwargs)
        self.dim = check_integer("dim", dim)
        self.depth = check_depth("depth", depth)
        self.num_heads = check_integer("num_heads", num_heads)
        self.head_dim = check_integer("head_dim", head_dim)
        self.hidden_dim = check_integer("hidden_dim", hidden_dim)
        self.num_buckets = check_integer("num_buckets", num_buckets, at_least=4)
        check(self.num_buckets % 2 == 0, "num_buckets", "be even", num_buckets)
        self.max_distance = check_integer("max_distance", max_distance, at_least=self.num_buckets // 4 + 1)
        check(self.max_distance <= LARGEST_DISTANCE, "max_distance", f"be at most {LARGEST_DISTANCE}", max_distance)
        self.epsilon = check_positive("epsilon", epsilon)
        self.remat = check_flag("remat", remat)

        options = {"dtype": self.dtype_policy}
        self.token_embedding = keras.layers.Embedding(self.vocabulary_size, self.dim, name="tokens", **options)
        self.position_bias = DistanceBias(
            self.num_heads, self.num_buckets, self.max_distance, name="position_bias", **options
        )
        self.blocks = [
            T5Block(
                self.num_heads,
                self.head_dim,
                self.hidden_dim,
                self.epsilon,
                self.remat,
                autocast=False,
                name=f"block_{i}",
                **options,
            )
            for i in range(self.depth)
        ]
        self.last_norm = wide_norm(self, "last_norm", self.epsilon)
        self.finish()

    def build(self, ids_shape: Any) -> None:
        self.token_embedding.build(ids_shape)
        self.position_bias.build(ids_shape)
        for layer in (*self.blocks, self.last_norm):
            layer.build((*ids_shape, self.dim))

    def call(self, ids: Any, attention_mask: Any = None) -> dict[str, Any]:
        bias = self.position_bias(ids)
        if attention_mask is not None:
            dtype = keras.backend.standardize_dtype(attention_mask.dtype)
            check(dtype == "bool", "attention_mask", "be bool", f"dtype {dtype}")
            bias = ops.where(attention_mask[:, None, None, :], bias, ops.cast(MASKED, bias.dtype))
        x = ops.cast(self.token_embedding(ids), wide(self))
        for block in self.blocks:
            x = block(x, bias)
        return {"tokens": ops.cast(self.last_norm(x), self.compute_dtype)}

    def compute_output_shape(self, ids_shape: Any, attention_mask_shape: Any = None) -> dict[str, Any]:
        return {"tokens": (*ids_shape, self.dim)}

    def get_config(self) -> dict[str, Any]:
        own = {
            "vocabulary_size": self.vocabulary_size,
            "dim": self.dim,
            "depth": self.depth,
            "num_heads": self.num_heads,
            "head_dim": self.head_dim,
            "hidden_dim": self.hidden_dim,
            "num_buckets": self.num_buckets,
            "max_distance": self.max_distance,
            "epsilon": self.epsilon,
            "remat": self.remat,
        }
        return {**super().get_config(), **own}

    @classmethod
    def foreign_arguments(cls, config: dict[str, Any]) -> dict[str, Any]:
        return t5_arguments(config)

    def foreign_config(self) -> dict[str, Any]:
        return t5_config(self)

    def foreign_table(self) -> list[Entry]:
        return t5_table(self)


class T5Block(StaysFrozen, keras.layers.Layer):
    """Block of `T5Encoder`, whose input and output are float32: made with `autocast=False`."""

    def __init__(self, num_heads: int, head_dim: int, hidden_dim: int, epsilon: float, remat: bool, **kwargs: Any):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.hidden_dim = hidden_dim
        self.epsilon = epsilon
        self.remat = remat
        self.norm_1, self.norm_2 = (wide_norm(self, f"norm_{i}", epsilon) for i in (1, 2))

    def build(self, x_shape: Any) -> None:
        inner = self.num_heads * self.head_dim
        dense, options = keras.layers.Dense, {"use_bias": False, "dtype": self.dtype_policy}
        # Scores, which are not divided by sqrt(head_dim), start with variance 1.
        start = keras.initializers.RandomNormal(stddev=x_shape[-1] ** -0.5 * self.head_dim**-0.25)
        self.qkv = dense(3 * inner, kernel_initializer=start, name="qkv", **options)
        self.output_dense = dense(x_shape[-1], name="output", **options)
        self.mlp_1 = dense(2 * self.hidden_dim, name="mlp_1", **options)
        # The products of gate and value exceed the range of float16, not that of bfloat16.
        last = wide(self) if self.compute_dtype == "float16" else self.dtype_policy
        self.mlp_2 = dense(x_shape[-1], use_bias=False, dtype=last, name="mlp_2")
        for layer in (self.norm_1, self.norm_2, self.qkv, self.mlp_1):
            layer.build(x_shape)
        self.output_dense.build((*x_shape[:-1], inner))
        self.mlp_2.build((*x_shape[:-1], self.hidden_dim))

    def call(self, x: Any, bias: Any) -> Any:
        return recomputed(self._block, self.remat)(x, bias)

    def _block(self, x: Any, bias: Any) -> Any:
        x = x + ops.cast(self._attention(self.norm_1(x), bias), x.dtype)
        gate, value = parts_of(self.mlp_1, self.norm_2(x), 2)
        product = ops.gelu(ops.cast(gate, x.dtype), approximate=True) * ops.cast(value, x.dtype)
        return x + ops.cast(self.mlp_2(product), x.dtype)

    def _attention(self, h: Any, bias: Any) -> Any:
        batch, tokens = ops.shape(h)[:2]
        q, k, v = heads_of(self.qkv, h, self.num_heads)
        attended = ops.dot_product_attention(q, k, v, bias=bias, scale=1.0)
        return self.output_dense(ops.reshape(attended, (batch, tokens, self.num_heads * self.head_dim)))

    def compute_output_shape(self, x_shape: Any, bias_shape: Any) -> tuple[int | None, ...]:
        return tuple(x_shape)

    def get_config(self) -> dict[str, Any]:
        own = {
            "num_heads": self.num_heads,
            "head_dim": self.head_dim,
            "hidden_dim": self.hidden_dim,
            "epsilon": self.epsilon,
            "remat": self.remat,
        }
        return {**super().get_config(), **own}


class DistanceBias(StaysFrozen, keras.layers.Layer):
    """Biases of attention scores by the distance from query to key, `(1, num_heads, tokens, tokens)`, for token ids."""

    def __init__(self, num_heads: int, num_buckets: int, max_distance: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.buckets = bucket_table(num_buckets // 2, max_distance)
        self.table = keras.layers.Embedding(num_buckets, num_heads, dtype=self.dtype_policy, name="table")

    def build(self, ids_shape: Any) -> None:
        self.table.build(ids_shape)

    def call(self, ids: Any) -> Any:
        places = ops.arange(ops.shape(ids)[1], dtype="int32")
        distance = places - places[:, None]
        farthest = len(self.buckets) - 1
        bucket = ops.take(self.buckets, ops.minimum(ops.abs(distance), farthest))
        to_the_right = ops.where(distance > 0, self.buckets[-1] + 1, 0)
        return ops.transpose(self.table(bucket + to_the_right), (2, 0, 1))[None]

    def compute_output_shape(self, ids_shape: Any) -> tuple[int | None, ...]:
        return (1, self.num_heads, ids_shape[1], ids_shape[1])


def bucket_table(buckets: int, max_distance: int) -> np.ndarray:
    """Returns the buckets 0 .. buckets - 1 of the distances 0 .. max_distance, int32.

    The first half hold one distance each, the others geometrically increasing ranges. Computed in float32: its rounding
    of the logarithm determines the bounds with which the weights were trained.
    """
    exact = buckets // 2
    distance = np.arange(max_distance + 1, dtype="float32")
    share = np.log(np.maximum(distance, exact) / np.float32(exact)) / np.float32(math.log(max_distance / exact))
    shared = exact + (share * np.float32(buckets - exact)).astype("int32")
    return np.where(distance < exact, distance, np.minimum(shared, buckets - 1)).astype("int32")


def wide(layer: keras.Layer) -> str:
    """Returns the dtype of what half precision would lose: float32, or float64 where that is the layer's."""
    return "float64" if layer.compute_dtype == "float64" else "float32"


def wide_norm(layer: keras.Layer, name: str, epsilon: float) -> keras.layers.RMSNormalization:
    """Returns an RMS normalization for `layer` that computes in `wide(layer)`, for values of any size."""
    return keras.layers.RMSNormalization(epsilon=epsilon, name=name, dtype=wide(layer))
