"""diffusers' `SD3Transformer2DModel`: its configuration as arguments of `MMDiT`, and its weights by name.

Modulations are shift, scale, gate there, here scale, shift, gate.
"""

from typing import Any

from keras_gen.core.checks import check, is_integer
from keras_gen.core.foreign.config import COUNT, COUNT_OR_NONE, Rule, checked_config
from keras_gen.core.foreign.weights import TRANSPOSED, Entry, entries
from keras_gen.networks.backbones.dit_weights import (
    SCALE_SHIFT_GATE,
    inner_width,
    modulation_entries,
    patches,
    time_layout,
)

# Defaults of keys that are missing in a configuration.
DEFAULTS = {
    "sample_size": 128,
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 16,
    "num_layers": 18,
    "num_attention_heads": 18,
    "attention_head_dim": 64,
    "joint_attention_dim": 4096,
    "caption_projection_dim": 1152,
    "pooled_projection_dim": 2048,
    "pos_embed_max_size": 96,
    "dual_attention_layers": (),
}


def _are_layers(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(is_integer(i) and i >= 0 for i in value)


RULES = {
    **dict.fromkeys(DEFAULTS, COUNT),
    "out_channels": COUNT_OR_NONE,
    "dual_attention_layers": Rule(_are_layers, "be a list of integers >= 0"),
}
POSSIBLE = {"qk_norm": (None, "rms_norm")}  # the first is the default

DUAL = (*SCALE_SHIFT_GATE, 7, 6, 8)  # vectors of the modulation with dual attention there, in our order
LAYERS = {
    "time_dense_1": "time_text_embed.timestep_embedder.linear_1",
    "time_dense_2": "time_text_embed.timestep_embedder.linear_2",
    "pooled_dense_1": "time_text_embed.text_embedder.linear_1",
    "pooled_dense_2": "time_text_embed.text_embedder.linear_2",
    "tokens_dense": "context_embedder",
    "last_modulation": "norm_out.linear",  # scale, shift, as ours
    "last_dense": "proj_out",
}
IMAGE = {
    "query": "to_q",
    "key": "to_k",
    "value": "to_v",
    "q_norm": "norm_q",
    "k_norm": "norm_k",
    "output_dense": "to_out.0",
}
TEXT = {
    "query": "add_q_proj",
    "key": "add_k_proj",
    "value": "add_v_proj",
    "q_norm": "norm_added_q",
    "k_norm": "norm_added_k",
    "output_dense": "to_add_out",
}


def mmdit_arguments(config: dict[str, Any]) -> dict[str, Any]:
    """Returns the arguments of `MMDiT`."""
    config = checked_config(config, DEFAULTS, RULES, POSSIBLE, "MMDiT")
    width, depth = inner_width(config), config["num_layers"]
    projected = config["caption_projection_dim"]
    check(projected == width, "caption_projection_dim", f"be {width}, the channels of all tokens", projected)
    dual, size, patch = config["dual_attention_layers"], config["sample_size"], config["patch_size"]
    check(all(i < depth for i in dual), "dual_attention_layers", f"be layers in 0 .. {depth - 1}", dual)
    check(size % patch == 0, "sample_size", f"be a multiple of patch_size={patch} for an MMDiT", size)
    return {
        "image_shape": (None, None, config["in_channels"]),
        "tokens_dim": config["joint_attention_dim"],
        "pooled_dim": config["pooled_projection_dim"],
        "patch_size": patch,
        "width": width,
        "depth": depth,
        "num_heads": config["num_attention_heads"],
        "qk_norm": config["qk_norm"] is not None,
        "dual_attention": tuple(dual),
        "table_size": config["pos_embed_max_size"],
        "base_size": size // patch,
        "out_channels": config["out_channels"],
    }


def mmdit_config(network: Any) -> dict[str, Any]:
    """Returns the configuration of an `MMDiT`."""
    positions = network.get_layer("positions")
    return {
        "_class_name": "SD3Transformer2DModel",
        "sample_size": (positions.base_size or positions.size) * network.patch_size,
        "patch_size": network.patch_size,
        "in_channels": network.image_shape[-1],
        "out_channels": network.out_channels or network.image_shape[-1],
        "num_layers": network.depth,
        "num_attention_heads": network.num_heads,
        "attention_head_dim": network.width // network.num_heads,
        "joint_attention_dim": network.tokens_dim,
        "caption_projection_dim": network.width,
        "pooled_projection_dim": network.pooled_dim,
        "pos_embed_max_size": positions.size,
        "dual_attention_layers": list(network.dual_attention),
        "qk_norm": "rms_norm" if network.qk_norm else None,
    }


def mmdit_table(network: Any) -> list[Entry]:
    """Returns the entries of all weights of an `MMDiT`."""
    table = entries(network.get_layer("first_dense"), "pos_embed.proj", layout=patches(network.patch_size))
    table.append(Entry(network.get_layer("positions").table, "pos_embed.pos_embed"))
    for ours, theirs in LAYERS.items():
        table += entries(network.get_layer(ours), theirs, layout=time_layout(ours))
    for i in range(network.depth):
        table += _block_entries(network.get_layer(f"block_{i}"), f"transformer_blocks.{i}")
    return table


def _block_entries(block: Any, name: str) -> list[Entry]:
    table = modulation_entries(
        block.image_modulation, f"{name}.norm1.linear", DUAL if block.dual_attention else SCALE_SHIFT_GATE
    )
    table += _heads_entries(block.image, f"{name}.attn", IMAGE)
    table += _heads_entries(block.text, f"{name}.attn", TEXT)
    table += _mlp_entries(block.image_mlp, f"{name}.ff")
    if block.dual_attention:
        table += _heads_entries(block.image_alone, f"{name}.attn2", IMAGE)
    if block.last:  # whose modulation has the same order there: scale, shift
        return [*table, *entries(block.text_modulation, f"{name}.norm1_context.linear"), *_unused(block.text, name)]
    table += modulation_entries(block.text_modulation, f"{name}.norm1_context.linear", SCALE_SHIFT_GATE)
    return [*table, *_mlp_entries(block.text_mlp, f"{name}.ff_context")]


def _heads_entries(heads: Any, name: str, names: dict[str, str]) -> list[Entry]:
    parts = [(getattr(heads, ours, None), f"{name}.{theirs}") for ours, theirs in names.items()]
    return [entry for layer, own in parts if layer is not None for entry in entries(layer, own)]


def _mlp_entries(mlp: Any, name: str) -> list[Entry]:
    return [*entries(mlp.mlp_1, f"{name}.net.0.proj"), *entries(mlp.mlp_2, f"{name}.net.2")]


def _unused(text: Any, name: str) -> list[Entry]:
    """Returns the entries of the queries of a text that has no output."""
    kernel = Entry(text.query_kernel, f"{name}.attn.{TEXT['query']}.weight", TRANSPOSED)
    bias = Entry(text.query_bias, f"{name}.attn.{TEXT['query']}.bias")
    norm = [] if text.k_norm is None else [Entry(text.query_scale, f"{name}.attn.{TEXT['q_norm']}.weight")]
    return [kernel, bias, *norm]
