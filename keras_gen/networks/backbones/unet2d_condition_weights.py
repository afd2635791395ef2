"""`UNet2DCondition` as a `UNet2DConditionModel` of diffusers: its configuration and its weights by name."""

from typing import Any

import numpy as np

from keras_gen.core.checks import check
from keras_gen.core.foreign.config import (
    COUNT,
    COUNT_OR_NONE,
    COUNTS,
    FLAG,
    IMAGE_SIZE,
    LIST,
    POSITIVE,
    RATE,
    Rule,
    checked_config,
    image_size,
    sample_size,
)
from keras_gen.core.foreign.weights import POINTWISE, TRANSPOSED, Entry, Layout, entries
from keras_gen.networks.backbones.unet_weights import attention_levels, block_entries, diffusers_name
from keras_gen.networks.blocks.residual import ResidualBlock
from keras_gen.networks.blocks.spatial_transformer import Attention, SpatialTransformer

TEXT_AND_SIZES = "text_time"
NUMBER_OF_SIZES = 6

# Defaults of keys that are missing in a configuration.
DEFAULTS = {
    "in_channels": 4,
    "out_channels": 4,
    "sample_size": None,
    "down_block_types": (*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *["CrossAttnUpBlock2D"] * 3),
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "dropout": 0.0,
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "cross_attention_dim": 1280,
    "transformer_layers_per_block": 1,
    "attention_head_dim": 8,
    "use_linear_projection": False,
    "addition_time_embed_dim": None,
    "projection_class_embeddings_input_dim": None,
    "time_embedding_dim": None,
}
# Options of which only some values are supported; the first is the default.
POSSIBLE = {
    "_class_name": ("UNet2DConditionModel",),
    "center_input_sample": (False,),
    "flip_sin_to_cos": (True,),
    "freq_shift": (0,),
    "mid_block_type": ("UNetMidBlock2DCrossAttn",),
    "only_cross_attention": (False,),
    "downsample_padding": (1,),
    "mid_block_scale_factor": (1,),
    "act_fn": ("silu", "swish"),
    "reverse_transformer_layers_per_block": (None,),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "num_attention_heads": (None,),
    "dual_cross_attention": (False,),
    "class_embed_type": (None,),
    "addition_embed_type": (None, TEXT_AND_SIZES),
    "num_class_embeds": (None,),
    "upcast_attention": (False, True, None),
    "resnet_time_scale_shift": ("default",),
    "resnet_skip_time_act": (False,),
    "resnet_out_scale_factor": (1,),
    "time_embedding_type": ("positional",),
    "time_embedding_act_fn": (None,),
    "timestep_post_act": (None,),
    "time_cond_proj_dim": (None,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "attention_type": ("default",),
    "class_embeddings_concat": (False,),
    "mid_block_only_cross_attention": (None, False),
    "cross_attention_norm": (None,),
}
BY_LEVEL = Rule(
    lambda value: COUNT.is_valid(value) or COUNTS.is_valid(value), "be an integer >= 1, or a list of them, by level"
)
# Values of all other keys.
RULES = {
    "in_channels": COUNT,
    "out_channels": COUNT,
    "sample_size": IMAGE_SIZE,
    "down_block_types": LIST,
    "up_block_types": LIST,
    "block_out_channels": COUNTS,
    "layers_per_block": COUNT,
    "dropout": RATE,
    "norm_num_groups": COUNT,
    "norm_eps": POSITIVE,
    "cross_attention_dim": COUNT,
    "transformer_layers_per_block": BY_LEVEL,
    "attention_head_dim": BY_LEVEL,
    "use_linear_projection": FLAG,
    "addition_time_embed_dim": COUNT_OR_NONE,
    "projection_class_embeddings_input_dim": COUNT_OR_NONE,
}
# Keys whose values are sizes of weights, and numbers of layers.
SIZES = (
    "block_out_channels",
    "in_channels",
    "out_channels",
    "cross_attention_dim",
    "projection_class_embeddings_input_dim",
)
LAYERS = ("layers_per_block", "transformer_layers_per_block")

NAMES = {"sizes_dense_1": "add_embedding.linear_1", "sizes_dense_2": "add_embedding.linear_2"}
TRANSFORMER_BLOCK = {
    "norm_1": "norm1",
    "norm_2": "norm2",
    "norm_3": "norm3",
    "mlp_1": "ff.net.0.proj",
    "mlp_2": "ff.net.2",
}
ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "output_dense": "to_out.0"}


def unet2d_condition_arguments(config: dict[str, Any]) -> dict[str, Any]:
    """Returns the arguments of `UNet2DCondition`."""
    config = checked_config(config, DEFAULTS, RULES, POSSIBLE, "UNet2DCondition")
    widths = tuple(config["block_out_channels"])
    attending = attention_levels(config, "CrossAttn", "UNet2DCondition")
    check(widths[0] % 2 == 0, "block_out_channels", "start with an even number", widths)
    dim, rule = config["time_embedding_dim"], f"be {4 * widths[0]} or None for a UNet2DCondition"
    check(dim in (None, 4 * widths[0]), "time_embedding_dim", rule, dim)
    # In spite of its name, this is the number of heads.
    heads = _by_level(config, "attention_head_dim", len(widths))
    for level in {*attending, len(widths) - 1}:
        rule = f"be numbers of heads that divide the widths {widths}"
        check(widths[level] % heads[level] == 0, "attention_head_dim", rule, config["attention_head_dim"])
    depths = _by_level(config, "transformer_layers_per_block", len(widths))
    return {
        "image_shape": (*image_size(config["sample_size"]), config["in_channels"]),
        "token_dim": config["cross_attention_dim"],
        "widths": widths,
        "depths": tuple(depth if level in attending else 0 for level, depth in enumerate(depths)),
        "middle_depth": depths[-1],
        "num_heads": heads,
        "blocks_per_level": config["layers_per_block"],
        "groups": config["norm_num_groups"],
        "epsilon": config["norm_eps"],
        "linear_projections": config["use_linear_projection"],
        "upcast_attention": bool(config["upcast_attention"]),
        "out_channels": config["out_channels"],
        "dropout": config["dropout"],
        **_size_arguments(config),
    }


def unet2d_condition_config(network: Any) -> dict[str, Any]:
    """Returns the configuration of a `UNet2DCondition`, which must have nothing that diffusers lacks."""
    widths, depths = network.widths, network.depths
    check(widths[0] % 2 == 0, "widths", "start with an even number for a UNet2DConditionModel", widths)
    rule = f"end with 0 or middle_depth={network.middle_depth} for a UNet2DConditionModel"
    check(depths[-1] in (0, network.middle_depth), "depths", rule, depths)
    attends = ["CrossAttn" if depth > 0 else "" for depth in depths]
    has_sizes, channels = network.pooled_dim is not None, network.image_shape[-1]
    return {
        "_class_name": "UNet2DConditionModel",
        "sample_size": sample_size(network.image_shape),
        "in_channels": channels,
        "out_channels": network.out_channels or channels,
        "down_block_types": [f"{kind}DownBlock2D" for kind in attends],
        "up_block_types": [f"{kind}UpBlock2D" for kind in reversed(attends)],
        "block_out_channels": list(widths),
        "layers_per_block": network.blocks_per_level,
        "dropout": network.dropout,
        "norm_num_groups": network.groups,
        "norm_eps": network.epsilon,
        "cross_attention_dim": network.token_dim,
        "transformer_layers_per_block": [*(depth or 1 for depth in depths[:-1]), network.middle_depth],
        "attention_head_dim": list(network.num_heads),
        "use_linear_projection": network.linear_projections,
        "upcast_attention": network.upcast_attention,
        "addition_embed_type": TEXT_AND_SIZES if has_sizes else None,
        "addition_time_embed_dim": network.size_dim if has_sizes else None,
        "projection_class_embeddings_input_dim": (
            network.pooled_dim + NUMBER_OF_SIZES * network.size_dim if has_sizes else None
        ),
    }


def unet2d_condition_table(network: Any) -> list[Entry]:
    """Returns the entries of all weights of a `UNet2DCondition`."""
    layouts = {"time_dense_1": after_waves(0, 1, network.widths[0])}
    if network.pooled_dim is not None:
        layouts["sizes_dense_1"] = after_waves(network.pooled_dim, NUMBER_OF_SIZES, network.size_dim)
    projection = TRANSPOSED if network.linear_projections else POINTWISE
    table = []
    for layer in network.layers:
        if not layer.weights:
            continue
        name = NAMES.get(layer.name) or diffusers_name(layer.name, len(network.widths))
        if isinstance(layer, ResidualBlock):
            table += block_entries(layer, name)
        elif isinstance(layer, SpatialTransformer):
            table += transformer_entries(layer, name, projection)
        else:
            table += entries(layer, name, layout=layouts.get(layer.name))
    return table


def transformer_entries(transformer: SpatialTransformer, name: str, projection: Layout) -> list[Entry]:
    """Returns the entries of a spatial transformer, with the layout of its projections."""
    table = [
        *entries(transformer.norm, f"{name}.norm"),
        *entries(transformer.project_in, f"{name}.proj_in", layout=projection),
        *entries(transformer.project_out, f"{name}.proj_out", layout=projection),
    ]
    for i, block in enumerate(transformer.blocks):
        prefix = f"{name}.transformer_blocks.{i}"
        for layer in (*block.norms, block.mlp_1, block.mlp_2):
            table += entries(layer, f"{prefix}.{TRANSFORMER_BLOCK[layer.name]}")
        table += attention_entries(block.self_attention, f"{prefix}.attn1")
        table += attention_entries(block.cross_attention, f"{prefix}.attn2")
    return table


def attention_entries(attention: Attention, name: str) -> list[Entry]:
    """Returns the entries of an attention layer."""
    parts = [(getattr(attention, ours), theirs) for ours, theirs in ATTENTION.items()]
    return [entry for part, theirs in parts for entry in entries(part, f"{name}.{theirs}")]


def after_waves(others: int, count: int, dim: int) -> Layout:
    """Returns the layout of a matrix whose inputs are `others`, then `count` sinusoidal embeddings of size `dim`.

    In a file each embedding has its cosines first.
    """
    waves = np.arange(count * dim).reshape(count, 2, dim // 2)[:, ::-1].flatten()
    order = np.concatenate([np.arange(others), others + waves])
    return TRANSPOSED.then(lambda matrix: matrix[order], lambda matrix: matrix[order])  # its own inverse


def _by_level(config: dict[str, Any], key: str, levels: int) -> tuple[int, ...]:
    value = config[key]
    values = tuple(value) if isinstance(value, list | tuple) else (value,) * levels
    check(len(values) == levels, key, f"have {levels} entries", value)
    return values


def _size_arguments(config: dict[str, Any]) -> dict[str, int]:
    """Returns the arguments for a pooled vector and sizes, or no arguments if the network takes neither."""
    if config["addition_embed_type"] is None:
        return {}
    key, inputs_key = "addition_time_embed_dim", "projection_class_embeddings_input_dim"
    size_dim, inputs = config[key], config[inputs_key]
    check(size_dim is not None and size_dim % 2 == 0, key, f"be even with {TEXT_AND_SIZES!r}", size_dim)
    pooled_dim = (inputs or 0) - NUMBER_OF_SIZES * size_dim
    rule = f"be > {NUMBER_OF_SIZES} {key} with {TEXT_AND_SIZES!r}"
    check(pooled_dim > 0, inputs_key, rule, inputs)
    return {"pooled_dim": pooled_dim, "size_dim": size_dim}
