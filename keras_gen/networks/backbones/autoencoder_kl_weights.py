"""`AutoencoderKL` as that of diffusers: its configuration and its weights by name."""

from typing import Any

import keras

from keras_gen.core.checks import check, is_number
from keras_gen.core.foreign.config import (
    COUNT,
    COUNTS,
    FLAG,
    IMAGE_SIZE,
    LIST,
    POSITIVE,
    SIDE,
    Rule,
    checked_config,
    image_size,
    sample_size,
)
from keras_gen.core.foreign.weights import Entry, entries
from keras_gen.networks.backbones.unet_weights import attention_entries, block_entries, diffusers_name
from keras_gen.networks.blocks.attention import SelfAttention2D
from keras_gen.networks.blocks.residual import ResidualBlock

# Defaults of keys that are missing in a configuration.
DEFAULTS = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",),
    "up_block_types": ("UpDecoderBlock2D",),
    "block_out_channels": (64,),
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "sample_size": 32,
    "scaling_factor": 0.18215,
    "shift_factor": None,
    "force_upcast": True,
    "use_quant_conv": True,
    "use_post_quant_conv": True,
}
# Options of which only some values are supported; the first is the default.
POSSIBLE = {
    "act_fn": ("silu", "swish"),
    "latents_mean": (None,),
    "latents_std": (None,),
    "mid_block_add_attention": (True,),
}
# Values of all other keys.
RULES = {
    "in_channels": COUNT,
    "out_channels": COUNT,
    "down_block_types": LIST,
    "up_block_types": LIST,
    "block_out_channels": COUNTS,
    "layers_per_block": COUNT,
    "latent_channels": COUNT,
    "norm_num_groups": COUNT,
    "sample_size": Rule(
        lambda size: size is not None and IMAGE_SIZE.is_valid(size), f"be one or two integers: {SIDE.text}"
    ),
    "scaling_factor": POSITIVE,
    "shift_factor": Rule(lambda value: value is None or is_number(value), "be None or a number"),
    "force_upcast": FLAG,  # of no effect here: the autoencoder has the precision that it is read in
    "use_quant_conv": FLAG,
    "use_post_quant_conv": FLAG,
}
# Keys whose values are sizes of weights, and numbers of layers.
SIZES = ("in_channels", "out_channels", "block_out_channels", "latent_channels")
LAYERS = ("layers_per_block",)

BLOCKS = {"down_block_types": "DownEncoderBlock2D", "up_block_types": "UpDecoderBlock2D"}
# Layers that in diffusers are neither the encoder's nor the decoder's.
OUTSIDE = {"moments_conv": "quant_conv", "latents_conv": "post_quant_conv"}


def autoencoder_arguments(config: dict[str, Any]) -> dict[str, Any]:
    """Returns the arguments of `AutoencoderKL`."""
    config = checked_config(config, DEFAULTS, RULES, POSSIBLE, "AutoencoderKL")
    levels = len(config["block_out_channels"])
    for key, block in BLOCKS.items():
        is_plain = list(config[key]) == [block] * levels
        check(is_plain, key, f"be {levels} times {block} for an AutoencoderKL of {levels} levels", config[key])
    for key, other in (("out_channels", "in_channels"), ("use_post_quant_conv", "use_quant_conv")):
        check(
            config[key] == config[other], key, f"be {config[other]}, as {other} is, for an AutoencoderKL", config[key]
        )
    return {
        "image_shape": (*image_size(config["sample_size"]), config["in_channels"]),
        "latent_channels": config["latent_channels"],
        "widths": tuple(config["block_out_channels"]),
        "blocks_per_level": config["layers_per_block"],
        "groups": config["norm_num_groups"],
        "latent_convolutions": config["use_quant_conv"],
        "scaling_factor": config["scaling_factor"],
        "shift_factor": config["shift_factor"] or 0.0,
    }


def autoencoder_config(model: Any) -> dict[str, Any]:
    """Returns the configuration of an `AutoencoderKL`."""
    channels = model.image_shape[-1]
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": channels,
        "out_channels": channels,
        **{key: [block] * len(model.widths) for key, block in BLOCKS.items()},
        "block_out_channels": list(model.widths),
        "layers_per_block": model.blocks_per_level,
        "act_fn": "silu",
        "latent_channels": model.latent_channels,
        "norm_num_groups": model.groups,
        "sample_size": sample_size(model.image_shape) or DEFAULTS["sample_size"],
        "scaling_factor": model.scaling_factor,
        "shift_factor": model.shift_factor,
        "use_quant_conv": model.latent_convolutions,
        "use_post_quant_conv": model.latent_convolutions,
    }


def autoencoder_table(model: Any) -> list[Entry]:
    """Returns the entries of all weights of an `AutoencoderKL`."""
    table = []
    for part, network in (("encoder", model.encoder), ("decoder", model.decoder)):
        for layer in network.layers:
            if layer.weights:
                name = OUTSIDE.get(layer.name) or f"{part}.{diffusers_name(layer.name, len(model.widths))}"
                table += _entries(layer, name)
    return table


def _entries(layer: keras.Layer, name: str) -> list[Entry]:
    if isinstance(layer, ResidualBlock):
        return block_entries(layer, name)
    return attention_entries(layer, name) if isinstance(layer, SelfAttention2D) else entries(layer, name)
