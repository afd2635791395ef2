"""diffusers' `DiTTransformer2DModel`: its configuration as arguments of `DiT`, and its weights by name.

There, each block has a copy of the embeddings of time and class. Modulations are shift, scale, gate, here scale, shift,
gate.
"""

from collections.abc import Sequence
from typing import Any

import keras

from keras_gen.core.checks import check
from keras_gen.core.foreign.config import COUNT, COUNT_OR_NONE, POSITIVE, checked_config
from keras_gen.core.foreign.weights import (
    CONVOLUTION,
    SAME,
    TRANSPOSED,
    Entry,
    Layout,
    copied,
    entries,
    joined,
    reordered,
    rolled,
)

# Defaults of keys that are missing in a configuration.
DEFAULTS = {
    "sample_size": 32,
    "patch_size": 2,
    "in_channels": 4,
    "out_channels": None,
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "num_layers": 28,
    "num_embeds_ada_norm": 1000,
    "norm_eps": 1e-5,
}
RULES = {**dict.fromkeys(DEFAULTS, COUNT), "out_channels": COUNT_OR_NONE, "norm_eps": POSITIVE}
# Options of which only some values are supported; the first is the default. The last five are of `Transformer2DModel`,
# the class's name in older files.
POSSIBLE = {
    "activation_fn": ("gelu-approximate",),
    "attention_bias": (True,),
    "dropout": (0.0,),
    "norm_elementwise_affine": (False,),
    "norm_type": ("ada_norm_zero",),
    "upcast_attention": (False,),
    "caption_channels": (None,),
    "cross_attention_dim": (None,),
    "double_self_attention": (False,),
    "num_vector_embeds": (None,),
    "only_cross_attention": (False,),
}
MOST_POSITIONS = 2**27  # values of all position embeddings, whose number no shape of a weight confirms
MAX_PERIOD = 10000.0 ** (128 / 127)  # 128 frequencies, "frequency shift 1"

# The vectors of modulations there, in our order: scale and shift, and twice with a gate.
SCALE_SHIFT = (1, 0)
SCALE_SHIFT_GATE = (1, 0, 2, 4, 3, 5)
EMBEDDERS = {
    "time_dense_1": "timestep_embedder.linear_1",
    "time_dense_2": "timestep_embedder.linear_2",
    "label_embedding": "class_embedder.embedding_table",
}


def dit_arguments(config: dict[str, Any]) -> dict[str, Any]:
    """Returns the arguments of `DiT`, those of its conventions as a dict."""
    config = checked_config(config, DEFAULTS, RULES, POSSIBLE, "DiT")
    size, patch, width = config["sample_size"], config["patch_size"], inner_width(config)
    check(size % patch == 0, "sample_size", f"be a multiple of patch_size={patch} for a DiT", size)
    rule = f"give at most {MOST_POSITIONS} values of positions, with {width} channels"
    check((size // patch) ** 2 * width <= MOST_POSITIONS, "sample_size", rule, size)
    return {
        "image_shape": (size, size, config["in_channels"]),
        "patch_size": patch,
        "width": width,
        "depth": config["num_layers"],
        "num_heads": config["num_attention_heads"],
        "positions": "sincos",
        "num_classes": config["num_embeds_ada_norm"],
        "out_channels": config["out_channels"],
        "conventions": dit_conventions(config["norm_eps"]),
    }


def inner_width(config: dict[str, Any]) -> int:
    """Returns the channels of a token, after checking that positions can be embedded in them."""
    width = config["num_attention_heads"] * config["attention_head_dim"]
    check(width % 4 == 0, "attention_head_dim", "give a multiple of 4, times num_attention_heads", width)
    return width


def dit_conventions(norm_eps: float) -> dict[str, Any]:
    """Returns the conventions of diffusers, as arguments of `DiTConventions`."""
    return {"qk_norm": False, "mlp_epsilon": norm_eps, "columns_first": True, "max_period": MAX_PERIOD}


def dit_config(network: Any) -> dict[str, Any]:
    """Returns the configuration of a `DiT`, which must have an equivalent in diffusers."""
    epsilon = network.conventions.mlp_epsilon
    conventions = dit_conventions(epsilon)
    own, rule = network.conventions.get_config(), f"be those of diffusers, {conventions}"
    check(own == conventions, "conventions", rule, own)
    check(
        network.positions == "sincos", "positions", "be 'sincos', as diffusers has no others", repr(network.positions)
    )
    check(network.num_classes is not None, "num_classes", "be given, as diffusers has it", network.num_classes)
    height, width, channels = network.image_shape
    check(height == width, "image_shape", "be square, as images of diffusers' DiT are", network.image_shape)
    return {
        "_class_name": "DiTTransformer2DModel",
        "sample_size": height,
        "patch_size": network.patch_size,
        "in_channels": channels,
        "out_channels": network.out_channels or channels,
        "num_attention_heads": network.num_heads,
        "attention_head_dim": network.width // network.num_heads,
        "num_layers": network.depth,
        "num_embeds_ada_norm": network.num_classes,
        "norm_eps": epsilon,
    }


def dit_table(network: Any) -> list[Entry]:
    """Returns the entries of all weights of a `DiT` with the conventions of diffusers."""
    blocks = [f"transformer_blocks.{i}" for i in range(network.depth)]
    table = entries(network.get_layer("first_dense"), "pos_embed.proj", layout=patches(network.patch_size))
    for ours, theirs in EMBEDDERS.items():
        for entry in entries(network.get_layer(ours), theirs, layout=time_layout(ours)):
            names = tuple(f"{block}.norm1.emb.{entry.names}" for block in blocks)
            table.append(Entry(entry.variable, names, copied(entry.layout)))
    for i, block in enumerate(blocks):
        table += _block_entries(network.get_layer(f"block_{i}"), block)
    table += modulation_entries(network.get_layer("last_modulation"), "proj_out_1", SCALE_SHIFT)
    return [*table, *entries(network.get_layer("last_dense"), "proj_out_2")]


def _block_entries(block: Any, name: str) -> list[Entry]:
    def qkv(kind: str) -> tuple[str, ...]:
        return tuple(f"{name}.attn1.to_{part}.{kind}" for part in "qkv")

    return [
        *modulation_entries(block.modulation, f"{name}.norm1.linear", SCALE_SHIFT_GATE),
        Entry(block.qkv.kernel, qkv("weight"), joined(TRANSPOSED)),
        Entry(block.qkv.bias, qkv("bias"), joined(SAME)),
        *entries(block.output_dense, f"{name}.attn1.to_out.0"),
        *entries(block.mlp_1, f"{name}.ff.net.0.proj"),
        *entries(block.mlp_2, f"{name}.ff.net.2"),
    ]


def patches(size: int) -> Layout:
    """Returns the layout of a convolution that embeds square patches, here a dense layer of flattened ones."""

    def flattened(kernel: Any) -> Any:
        return kernel.reshape(-1, kernel.shape[-1])

    return CONVOLUTION.then(flattened, lambda matrix: matrix.reshape(size, size, -1, matrix.shape[-1]))


def time_layout(name: str) -> Layout | None:
    """Returns the layout of a layer of the time embedding: cosines come first there."""
    return rolled(TRANSPOSED) if name == "time_dense_1" else None


def modulation_entries(layer: keras.Layer, name: str, order: Sequence[int]) -> list[Entry]:
    """Returns the entries of a modulation whose i-th vector is the `order[i]`-th one there."""
    return [
        Entry(layer.kernel, f"{name}.weight", reordered(TRANSPOSED, order)),
        Entry(layer.bias, f"{name}.bias", reordered(SAME, order)),
    ]
