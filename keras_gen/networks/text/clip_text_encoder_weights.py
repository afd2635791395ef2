"""Table of the weights of transformers' `CLIPTextModel`, with and without projection, and of their configurations.

Version 5 of transformers writes the names of `CLIPTextModel` without the prefix "text_model."; all other names have it.
"""

from typing import Any

import keras

from keras_gen.core.checks import check, is_integer
from keras_gen.core.foreign.config import COUNT, POSITIVE, Rule, checked_config
from keras_gen.core.foreign.weights import SAME, TRANSPOSED, Entry, entries, joined

CLASSES = ("CLIPTextModel", "CLIPTextModelWithProjection")
PREFIX = "text_model."

# Configurations have more keys, such as those of initial values and of dropout, for which the encoder has no use.
DEFAULTS = {
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "projection_dim": 512,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "layer_norm_eps": 1e-5,
    "eos_token_id": 49407,
}
# Our names of the counts.
COUNTS = {
    "vocabulary_size": "vocab_size",
    "max_length": "max_position_embeddings",
    "dim": "hidden_size",
    "depth": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "hidden_dim": "intermediate_size",
}
ID = Rule(lambda value: is_integer(value) and value >= 0, "be an integer >= 0")
RULES = {
    **dict.fromkeys(COUNTS.values(), COUNT),
    "projection_dim": COUNT,
    "layer_norm_eps": POSITIVE,
    "eos_token_id": ID,
}
ACTIVATIONS = {"quick_gelu": "quick_gelu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh"}
POSSIBLE = {"hidden_act": tuple(ACTIVATIONS)}
# Keys whose values are sizes of weights, and numbers of layers.
SIZES = ("vocab_size", "hidden_size", "intermediate_size", "max_position_embeddings")
LAYERS = ("num_hidden_layers",)
LARGEST_ID = 2  # where older configurations give this as the end token, a text ends at its largest id


def clip_arguments(config: dict[str, Any]) -> dict[str, Any]:
    """Returns the arguments of `CLIPTextEncoder` for a configuration."""
    config = checked_config(config, DEFAULTS, RULES, POSSIBLE, "CLIPTextEncoder")
    heads, dim = config["num_attention_heads"], config["hidden_size"]
    check(dim % heads == 0, "num_attention_heads", f"divide hidden_size, {dim}", heads)
    end, size = config["eos_token_id"], config["vocab_size"]
    check(end == LARGEST_ID or end < size, "eos_token_id", f"be in 0 .. {size - 1}", end)
    return {
        **{name: config[key] for name, key in COUNTS.items()},
        "projection_dim": config["projection_dim"] if config["_class_name"] == CLASSES[1] else None,
        "activation": ACTIVATIONS[config["hidden_act"]],
        "end_id": None if end == LARGEST_ID else end,
        "epsilon": config["layer_norm_eps"],
    }


def clip_config(encoder: Any) -> dict[str, Any]:
    """Returns the configuration of an encoder."""
    check(encoder.end_id != LARGEST_ID, "end_id", f"not be {LARGEST_ID}, which means the largest id", encoder.end_id)
    has_projection = encoder.projection_dim is not None
    activation = next(theirs for theirs, ours in ACTIVATIONS.items() if ours == encoder.activation)
    return {
        "architectures": [CLASSES[has_projection]],
        "model_type": "clip_text_model",
        **{key: getattr(encoder, name) for name, key in COUNTS.items()},
        "projection_dim": encoder.projection_dim if has_projection else encoder.dim,
        "hidden_act": activation,
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
