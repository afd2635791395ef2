"""Table of the weights of transformers' `T5EncoderModel`, and of its configuration."""

from typing import Any

import keras

from keras_gen.core.foreign.config import COUNT, POSITIVE, checked_config
from keras_gen.core.foreign.weights import TRANSPOSED, Entry, entries, joined

CLASSES = ("T5EncoderModel",)
TWIN = "encoder.embed_tokens.weight"  # of "shared.weight" in older files

# Configurations have more keys, such as those of the decoder and of dropout, for which the encoder has no use.
DEFAULTS = {
    "vocab_size": 32128,
    "d_model": 512,
    "d_kv": 64,
    "d_ff": 2048,
    "num_layers": 6,
    "num_heads": 8,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "layer_norm_epsilon": 1e-6,
}
# Our names of the counts.
COUNTS = {
    "vocabulary_size": "vocab_size",
    "dim": "d_model",
    "depth": "num_layers",
    "num_heads": "num_heads",
    "head_dim": "d_kv",
    "hidden_dim": "d_ff",
    "num_buckets": "relative_attention_num_buckets",
    "max_distance": "relative_attention_max_distance",
}
RULES = {**dict.fromkeys(COUNTS.values(), COUNT), "layer_norm_epsilon": POSITIVE}
# The feed-forward layers of version 1.1. The first T5 has "relu", without gates.
POSSIBLE = {"feed_forward_proj": ("gated-gelu",)}
# Keys whose values are sizes of weights, and numbers of layers.
SIZES = ("vocab_size", "d_model", "d_ff", "num_heads", "relative_attention_num_buckets")
LAYERS = ("num_layers",)


def t5_arguments(config: dict[str, Any]) -> dict[str, Any]:
    """Returns the arguments of `T5Encoder` for a configuration."""
    # Where the key is missing, transformers takes the first T5.
    config = checked_config({"feed_forward_proj": "relu", **config}, DEFAULTS, RULES, POSSIBLE, "T5Encoder")
    return {**{name: config[key] for name, key in COUNTS.items()}, "epsilon": config["layer_norm_epsilon"]}


def t5_config(encoder: Any) -> dict[str, Any]:
    """Returns the configuration of an encoder."""
    return {
        "architectures": list(CLASSES),
        "model_type": "t5",
        **{key: getattr(encoder, name) for name, key in COUNTS.items()},
        "layer_norm_epsilon": encoder.epsilon,
        "feed_forward_proj": "gated-gelu",
        "dropout_rate": 0.0,
        "is_encoder_decoder": False,
        "use_cache": False,
    }


def t5_table(encoder: Any) -> list[Entry]:
    """Returns the entries of all weights of an encoder."""
    bias = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias"
    table = [
        Entry(encoder.token_embedding.embeddings, "shared.weight", older=(TWIN,)),
        *entries(encoder.position_bias.table, bias),
        *entries(encoder.last_norm, "encoder.final_layer_norm"),
    ]
    for i, block in enumerate(encoder.blocks):
        table += block_entries(block, f"encoder.block.{i}.layer")
    return table


def block_entries(block: keras.Layer, name: str) -> list[Entry]:
    """Returns the entries of one block."""
    attention, mlp = f"{name}.0.SelfAttention", f"{name}.1.DenseReluDense"
    qkv, gated = tuple(f"{attention}.{x}.weight" for x in "qkv"), tuple(f"{mlp}.wi_{i}.weight" for i in (0, 1))
    return [
        *entries(block.norm_1, f"{name}.0.layer_norm"),
        Entry(block.qkv.kernel, qkv, joined(TRANSPOSED)),
        *entries(block.output_dense, f"{attention}.o"),
        *entries(block.norm_2, f"{name}.1.layer_norm"),
        Entry(block.mlp_1.kernel, gated, joined(TRANSPOSED)),
        *entries(block.mlp_2, f"{mlp}.wo"),
    ]
