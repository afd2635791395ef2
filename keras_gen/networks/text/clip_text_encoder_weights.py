"""Table of the weights of transformers' `CLIPTextModel`, with and without projection, and of their configurations.

Version 5 of transformers writes names of `CLIPTextModel` without the prefix "text_model.", all others are with it.
"""

from typing import Any

import keras

from keras_gen.core.checks import check, check_integer, check_positive
from keras_gen.core.foreign_weights import SAME, TRANSPOSED, Entry, entries, joined

CLASSES = ("CLIPTextModel", "CLIPTextModelWithProjection")
PREFIX = "text_model."

# Configurations have more keys, such as those of initial values and of dropout, which the encoder has not.
DEFAULTS = {
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "projection_dim": 512,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "eos_token_id": 49407,
}
COUNTS = {
    "vocabulary_size": "vocab_size",
    "max_length": "max_position_embeddings",
    "dim": "hidden_size",
    "depth": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "hidden_dim": "intermediate_size",
}
ACTIVATIONS = {"quick_gelu": "quick_gelu", "gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh"}
LARGEST_ID = 2  # as the end of text, in older configurations: the text ends at the largest id


def clip_arguments(config: dict[str, Any]) -> dict[str, Any]:
    """Returns the arguments of `CLIPTextEncoder` for a configuration."""
    config = {**DEFAULTS, **config}
    arguments = {name: check_integer(key, config[key]) for name, key in COUNTS.items()}
    heads, dim = config["num_attention_heads"], config["hidden_size"]
    check(dim % heads == 0, "num_attention_heads", f"divide hidden_size, {dim}", heads)
    names = {theirs: ours for ours, theirs in ACTIVATIONS.items()}
    activation = config["hidden_act"]
    is_known = isinstance(activation, str) and activation in names
    check(is_known, "hidden_act", f"be {' or '.join(map(repr, names))} for a CLIPTextEncoder", repr(activation))
    check_positive("layer_norm_eps", config["layer_norm_eps"])
    end = check_integer("eos_token_id", config["eos_token_id"], at_least=0)
    size = config["vocab_size"]
    check(end == LARGEST_ID or end < size, "eos_token_id", f"be in 0 .. {size - 1}", end)
    is_projected = config["_class_name"] == CLASSES[1]
    return {
        **arguments,
        "projection_dim": check_integer("projection_dim", config["projection_dim"]) if is_projected else None,
        "activation": names[activation],
        "end_id": None if end == LARGEST_ID else end,
        "epsilon": config["layer_norm_eps"],
    }


def clip_config(encoder: Any) -> dict[str, Any]:
    """Returns the configuration of an encoder."""
    check(encoder.end_id != LARGEST_ID, "end_id", f"not be {LARGEST_ID}, which means the largest id", encoder.end_id)
    has_projection = encoder.projection_dim is not None
    return {
        "architectures": [CLASSES[has_projection]],
        "model_type": "clip_text_model",
        **{key: getattr(encoder, name) for name, key in COUNTS.items()},
        "projection_dim": encoder.projection_dim if has_projection else encoder.dim,
        "hidden_act": ACTIVATIONS[encoder.activation],
        "layer_norm_eps": encoder.epsilon,
        "eos_token_id": LARGEST_ID if encoder.end_id is None else encoder.end_id,
    }


def clip_table(encoder: Any) -> list[Entry]:
    """Returns the entries of all weights of an encoder."""
    table = [
        *entries(encoder.token_embedding, f"{PREFIX}embeddings.token_embedding"),
        *entries(encoder.position_embedding, f"{PREFIX}embeddings.position_embedding"),
        *entries(encoder.last_norm, f"{PREFIX}final_layer_norm"),
    ]
    for i, block in enumerate(encoder.blocks):
        table += block_entries(block, f"{PREFIX}encoder.layers.{i}")
    return table if encoder.projection is None else [*table, *entries(encoder.projection, "text_projection")]


def block_entries(block: keras.Layer, name: str) -> list[Entry]:
    """Returns the entries of one block."""
    matrices, biases = (tuple(f"{name}.self_attn.{x}_proj.{kind}" for x in "qkv") for kind in ("weight", "bias"))
    return [
        *entries(block.norm_1, f"{name}.layer_norm1"),
        Entry(block.qkv.kernel, matrices, joined(TRANSPOSED)),
        Entry(block.qkv.bias, biases, joined(SAME)),
        *entries(block.output_dense, f"{name}.self_attn.out_proj"),
        *entries(block.norm_2, f"{name}.layer_norm2"),
        *entries(block.mlp_1, f"{name}.mlp.fc1"),
        *entries(block.mlp_2, f"{name}.mlp.fc2"),
    ]
