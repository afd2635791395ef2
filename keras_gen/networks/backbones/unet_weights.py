"""`UNet` as a `UNet2DModel` of diffusers: its configuration and its weights by name.

diffusers counts the levels of the decoder from the coarsest one; `UNet` counts all levels from the finest one.
"""

import math
from typing import Any

import numpy as np
from keras import ops

from keras_gen.core.checks import check
from keras_gen.core.foreign.config import (
    COUNT,
    COUNT_OR_NONE,
    COUNTS,
    FLAG,
    IMAGE_SIZE,
    LIST,
    NUMBER,
    POSITIVE,
    RATE,
    checked_config,
    image_size,
    sample_size,
)
from keras_gen.core.foreign.weights import SAME, TRANSPOSED, Entry, Layout, entries, joined, rolled
from keras_gen.networks.blocks.attention import SelfAttention2D
from keras_gen.networks.blocks.norms import GroupNorm
from keras_gen.networks.blocks.residual import ResidualBlock

MAX_PERIOD = 10000.0

# Defaults of keys that are missing in a configuration.
DEFAULTS = {
    "in_channels": 3,
    "out_channels": 3,
    "sample_size": None,
    "freq_shift": 0,
    "flip_sin_to_cos": True,
    "down_block_types": ("DownBlock2D", *["AttnDownBlock2D"] * 3),
    "up_block_types": (*["AttnUpBlock2D"] * 3, "UpBlock2D"),
    "mid_block_type": "UNetMidBlock2D",
    "block_out_channels": (224, 448, 672, 896),
    "layers_per_block": 2,
    "downsample_padding": 1,
    "dropout": 0.0,
    "attention_head_dim": 8,
    "norm_num_groups": 32,
    "attn_norm_num_groups": None,
    "norm_eps": 1e-5,
    "resnet_time_scale_shift": "default",
    "add_attention": True,
    "num_class_embeds": None,
    "time_embedding_dim": None,
}
# Options of which only some values are supported; the first is the default.
POSSIBLE = {
    "_class_name": ("UNet2DModel",),
    "center_input_sample": (False,),
    "time_embedding_type": ("positional",),
    "mid_block_type": ("UNetMidBlock2D", None),
    "mid_block_scale_factor": (1,),
    "downsample_padding": (1, 0),
    "downsample_type": ("conv",),
    "upsample_type": ("conv",),
    "act_fn": ("silu", "swish"),
    "resnet_time_scale_shift": ("default", "scale_shift"),
    "class_embed_type": (None,),
}


# Values of all other keys.
RULES = {
    "in_channels": COUNT,
    "out_channels": COUNT,
    "sample_size": IMAGE_SIZE,
    "freq_shift": NUMBER,
    "flip_sin_to_cos": FLAG,
    "down_block_types": LIST,
    "up_block_types": LIST,
    "block_out_channels": COUNTS,
    "layers_per_block": COUNT,
    "dropout": RATE,
    "attention_head_dim": COUNT_OR_NONE,
    "norm_num_groups": COUNT,
    "norm_eps": POSITIVE,
    "add_attention": FLAG,
    "num_class_embeds": COUNT_OR_NONE,
}
# Keys whose values are sizes of weights, and numbers of layers.
SIZES = ("block_out_channels", "in_channels", "out_channels", "num_class_embeds")
LAYERS = ("layers_per_block",)

BLOCK = {
    "norm_1": "norm1",
    "conv_1": "conv1",
    "dense": "time_emb_proj",
    "norm_2": "norm2",
    "conv_2": "conv2",
    "shortcut": "conv_shortcut",
}
ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}  # current and older names
NAMES = {
    "first_conv": "conv_in",
    "time_dense_1": "time_embedding.linear_1",
    "time_dense_2": "time_embedding.linear_2",
    "label_embedding": "class_embedding",
    "last_norm": "conv_norm_out",
    "last_conv": "conv_out",
}
MEMBERS = {"block": "resnets.{}", "attention": "attentions.{}"}


# The row of the null class, which diffusers lacks: zero after reading, and written as another class if it was trained.
NULL_CLASS = Layout.of_one(
    lambda vectors: np.pad(vectors, [(0, 1), (0, 0)]), lambda vectors: vectors if vectors[-1].any() else vectors[:-1]
)


def unet_arguments(config: dict[str, Any]) -> dict[str, Any]:
    """Returns the arguments of `UNet`, those of its conventions as a dict."""
    config = checked_config(config, DEFAULTS, RULES, POSSIBLE, "UNet")
    widths = tuple(config["block_out_channels"])
    attending_levels = attention_levels(config, "Attn", "UNet")
    middle = "attention" if config["add_attention"] else "plain"
    middle = "none" if config["mid_block_type"] is None else middle
    scale_shift = config["resnet_time_scale_shift"] == "scale_shift"

    check(widths[0] % 2 == 0, "block_out_channels", "start with an even number", widths)
    dim = config["time_embedding_dim"]
    check(dim in (None, 4 * widths[0]), "time_embedding_dim", f"be {4 * widths[0]} or None for a UNet", dim)
    # With scale and shift, the middle attention is normalized only if its number of groups is given.
    norm = (config["norm_num_groups"],) if scale_shift and middle == "attention" else (None, config["norm_num_groups"])
    groups = config["attn_norm_num_groups"]
    check(groups in norm, "attn_norm_num_groups", f"be {' or '.join(map(repr, norm))} for a UNet", groups)
    half, shift = widths[0] // 2, config["freq_shift"]
    check(shift < half, "freq_shift", f"be < {half}", shift)
    attending = [widths[level] for level in attending_levels] + [widths[-1]] * (middle == "attention")
    head_dim = config["attention_head_dim"]
    divides = head_dim is None or all(width % head_dim == 0 for width in attending)
    check(divides, "attention_head_dim", f"divide the widths {attending} for a UNet", head_dim)

    conventions = {
        "groups": config["norm_num_groups"],
        "epsilon": config["norm_eps"],
        "head_dim": head_dim,
        "max_period": MAX_PERIOD ** (half / (half - shift)),
        "symmetric_padding": config["downsample_padding"] == 1,
        "middle": middle,
        "scale_shift": scale_shift,
        "cosines_first": config["flip_sin_to_cos"],
    }
    return {
        "image_shape": (*image_size(config["sample_size"]), config["in_channels"]),
        "widths": widths,
        "blocks_per_level": config["layers_per_block"],
        "attention_levels": attending_levels,
        "num_classes": config["num_class_embeds"],
        "out_channels": config["out_channels"],
        "dropout": config["dropout"],
        "conventions": conventions,
    }


def unet_config(network: Any) -> dict[str, Any]:
    """Returns the configuration of a `UNet`, which must have nothing that a `UNet2DModel` lacks."""
    own, levels, middle = network.conventions, range(len(network.widths)), _middle(network)
    check(network.condition_dim is None, "condition_dim", "be None for a UNet2DModel", network.condition_dim)
    check(network.upsampling is None, "upsampling", "be None for a UNet2DModel", network.upsampling)
    check(network.widths[0] % 2 == 0, "widths", "start with an even number for a UNet2DModel", network.widths)
    groups = {layer.groups for layer in network._flatten_layers() if isinstance(layer, GroupNorm)}
    check(len(groups) == 1, "widths", "have one number of groups for a UNet2DModel", f"groups {sorted(groups)}")
    attends = ["Attn" if level in network.attention_levels else "" for level in levels]
    channels = network.image_shape[-1]
    half = network.widths[0] // 2
    return {
        "_class_name": "UNet2DModel",
        "sample_size": sample_size(network.image_shape),
        "in_channels": channels,
        "out_channels": network.out_channels or channels,
        "freq_shift": round(half * (1 - math.log(MAX_PERIOD) / math.log(own.max_period)), 9),
        "flip_sin_to_cos": own.cosines_first,
        "down_block_types": [f"{kind}DownBlock2D" for kind in attends],
        "up_block_types": [f"{kind}UpBlock2D" for kind in reversed(attends)],
        "mid_block_type": None if middle == "none" else "UNetMidBlock2D",
        "block_out_channels": list(network.widths),
        "layers_per_block": network.blocks_per_level,
        "downsample_padding": int(own.symmetric_padding),
        "dropout": network.dropout,
        "attention_head_dim": own.head_dim,
        "norm_num_groups": max(groups),
        "attn_norm_num_groups": max(groups) if own.scale_shift and middle == "attention" else None,
        "norm_eps": own.epsilon,
        "resnet_time_scale_shift": "scale_shift" if own.scale_shift else "default",
        "add_attention": middle == "attention",
        "num_class_embeds": _classes(network),
    }


def _middle(network: Any) -> str:
    """Returns the kind of middle block, for which `UNetConventions.middle` may be `"auto"`."""
    if network.conventions.middle != "auto":
        return network.conventions.middle
    return "attention" if len(network.widths) - 1 in network.attention_levels else "plain"


def _classes(network: Any) -> int | None:
    if network.num_classes is None:
        return None
    vectors = ops.convert_to_numpy(network.get_layer("label_embedding").embeddings)
    return len(NULL_CLASS.write(vectors, 1)[0])


def unet_table(network: Any) -> list[Entry]:
    """Returns the entries of all weights of a `UNet`."""
    layouts = {"label_embedding": NULL_CLASS}
    if network.conventions.cosines_first:
        layouts["time_dense_1"] = rolled(TRANSPOSED)
    table = []
    for layer in network.layers:
        name = diffusers_name(layer.name, len(network.widths)) if layer.weights else ""
        if isinstance(layer, ResidualBlock):
            table += block_entries(layer, name)
        elif isinstance(layer, SelfAttention2D):
            table += attention_entries(layer, name)
        else:
            table += entries(layer, name, layout=layouts.get(layer.name))
    return table


def block_entries(block: ResidualBlock, name: str) -> list[Entry]:
    """Returns the entries of a residual block."""
    parts = [(getattr(block, ours), theirs) for ours, theirs in BLOCK.items()]
    return [entry for part, theirs in parts if part is not None for entry in entries(part, f"{name}.{theirs}")]


def attention_entries(attention: SelfAttention2D, name: str) -> list[Entry]:
    """Returns the entries of a self-attention layer, whose names differ in older files."""

    def qkv(names: list[str], kind: str) -> tuple[str, ...]:
        return tuple(f"{name}.{part}.{kind}" for part in names)

    *current, out = ATTENTION
    *older, older_out = ATTENTION.values()
    return [
        *entries(attention.norm, f"{name}.group_norm"),
        Entry(attention.qkv.kernel, qkv(current, "weight"), joined(TRANSPOSED), (qkv(older, "weight"),)),
        Entry(attention.qkv.bias, qkv(current, "bias"), joined(SAME), (qkv(older, "bias"),)),
        *entries(attention.output_dense, f"{name}.{out}", older=[f"{name}.{older_out}"]),
    ]


def diffusers_name(name: str, levels: int) -> str:
    """Returns the prefix of a `UNet` layer's weights in a `UNet2DModel`: `up_0_block_1` is `up_blocks.2.resnets.1`."""
    if name in NAMES:
        return NAMES[name]
    part, *rest = name.split("_")
    if part == "middle":
        return f"mid_block.{MEMBERS[rest[0]].format(rest[1])}"
    level = levels - 1 - int(rest[0]) if part == "up" else int(rest[0])
    if rest[1] == "conv":
        return f"{part}_blocks.{level}.{part}samplers.0.conv"
    return f"{part}_blocks.{level}.{MEMBERS[rest[1]].format(rest[2])}"


def attention_levels(config: dict[str, Any], attends: str, network: str) -> tuple[int, ...]:
    """Returns the levels with attention, whose types of blocks begin with `attends`; those of the decoder mirror them.

    Args:
        config: a configuration.
        attends: `"Attn"` or `"CrossAttn"`.
        network: str. The network, for error messages.
    """
    has_attention = []
    for key, plain in (("down_block_types", "DownBlock2D"), ("up_block_types", "UpBlock2D")):
        types = [str(block).removeprefix("UNetRes") for block in config[key]]
        allowed = (plain, f"{attends}{plain}")
        rule = f"consist of {' and '.join(allowed)} for a {network}"
        check(all(block in allowed for block in types), key, rule, config[key])
        has_attention.append([block.startswith(attends) for block in types])
    down, up, widths = (config[key] for key in ("down_block_types", "up_block_types", "block_out_channels"))
    check(has_attention[0] == has_attention[1][::-1], "up_block_types", f"mirror {down} for a {network}", up)
    check(len(widths) == len(down), "block_out_channels", f"have {len(down)} entries", widths)
    return tuple(level for level, attends in enumerate(has_attention[0]) if attends)
