"""Conversion of a diffusers `UNet2DModel`: its configuration to arguments of `UNet`, its weights by name.

PyTorch's convolution kernels are (out, in, height, width) and its matrices (out, in); Keras's are (height, width, in,
out) and (in, out). diffusers counts up blocks from the coarsest level, `UNet` counts levels always from the finest.
"""

import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_gen.core.checks import check, is_integer, is_number
from keras_gen.core.files import DAMAGE, reading
from keras_gen.networks.blocks.attention import SelfAttention2D
from keras_gen.networks.blocks.norms import GroupNorm
from keras_gen.networks.blocks.residual import ResidualBlock

CONFIG = "config.json"
WEIGHTS = "diffusion_pytorch_model.safetensors"
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


def _is_count(value: Any) -> bool:
    return is_integer(value) and value >= 1


def _are_counts(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) > 0 and all(map(_is_count, value))


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


Rule = tuple[Callable[[Any], bool], str]
COUNT: Rule = (_is_count, "be an integer >= 1")
COUNT_OR_NONE: Rule = (lambda value: value is None or _is_count(value), "be None or an integer >= 1")
FLAG: Rule = (_is_flag, "be true or false")
LIST: Rule = (lambda value: isinstance(value, list | tuple), "be a list")
# Values of all other keys.
RULES: dict[str, Rule] = {
    "in_channels": COUNT,
    "out_channels": COUNT,
    "sample_size": (
        lambda value: COUNT_OR_NONE[0](value) or (_are_counts(value) and len(value) == 2),
        "be None, an integer >= 1 or a pair of them",
    ),
    "freq_shift": (is_number, "be a number"),
    "flip_sin_to_cos": FLAG,
    "down_block_types": LIST,
    "up_block_types": LIST,
    "block_out_channels": (_are_counts, "be a list of integers >= 1"),
    "layers_per_block": COUNT,
    "dropout": (lambda value: is_number(value) and 0 <= value < 1, "be in [0, 1)"),
    "attention_head_dim": COUNT_OR_NONE,
    "norm_num_groups": COUNT,
    "norm_eps": (lambda value: is_number(value) and value > 0, "be > 0"),
    "add_attention": FLAG,
    "num_class_embeds": COUNT_OR_NONE,
}
LARGEST_IMAGE = 2**16  # pixels along a side; no weight bears witness to it

BLOCK = {"norm_1": "norm1", "conv_1": "conv1", "dense": "time_emb_proj", "norm_2": "norm2", "conv_2": "conv2"}
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


def read_diffusers(source: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns the configuration and the weights by name of a folder or a `UNet2DModel`."""
    if hasattr(source, "config") and hasattr(source, "state_dict"):
        tensors = {name: tensor.detach().cpu().float().numpy() for name, tensor in source.state_dict().items()}
        return {"_class_name": type(source).__name__, **source.config}, tensors
    rule = f"be a UNet2DModel, or a folder with {CONFIG} and {WEIGHTS}"
    check(isinstance(source, str | os.PathLike), "source", rule, type(source).__name__)
    folder = pathlib.Path(source)
    check((folder / CONFIG).is_file(), "source", rule, folder)
    if not (folder / WEIGHTS).is_file():
        others = sorted(file.name for file in folder.iterdir() if file.suffix in (".bin", ".safetensors", ".pt"))
        check(False, "source", f"{rule}: other files are not read, pickles in particular", f"{folder} with {others}")
    with reading("source", folder / CONFIG, "have a configuration in JSON", *DAMAGE):
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        check(isinstance(config, dict), "config", "be an object with keys and values", repr(config))
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    except ImportError as error:
        raise ImportError(f"Reading {WEIGHTS} needs `pip install safetensors`") from error
    with reading("source", folder / WEIGHTS, "have a whole file of weights", *DAMAGE, SafetensorError):
        tensors = load_file(folder / WEIGHTS)
        # NumPy supports bfloat16 because Keras imports ml_dtypes.
        integers = {name: tensor.dtype.name for name, tensor in tensors.items() if "float" not in tensor.dtype.name}
        check(not integers, "weights", "be floating-point", integers)
        return config, {name: tensor.astype("float32") for name, tensor in tensors.items()}


def part_of(source: Any, file: str) -> Any:
    """Returns the path of a file in the folder `source`, or the class's name of a model: where an error is."""
    return pathlib.Path(source) / file if isinstance(source, str | os.PathLike) else type(source).__name__


def unet_arguments(config: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Returns the arguments of `UNet`, those of its conventions as a dict, and whether cosines come before sines."""
    for key, values in POSSIBLE.items():
        value = config.get(key, values[0])
        check(value in values, key, f"be {' or '.join(map(repr, values))} for a UNet", repr(value))
    config = {**DEFAULTS, **config}
    for key, (is_valid, rule) in RULES.items():
        check(is_valid(config[key]), key, rule, repr(config[key]))
    widths, size = tuple(config["block_out_channels"]), config["sample_size"]
    attention_levels = _attention_levels(config)
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
    attending = [widths[level] for level in attention_levels] + [widths[-1]] * (middle == "attention")
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
    }
    height, width = (size, size) if size is None or isinstance(size, int) else size
    arguments = {
        "image_shape": (height, width, config["in_channels"]),
        "widths": widths,
        "blocks_per_level": config["layers_per_block"],
        "attention_levels": attention_levels,
        "num_classes": config["num_class_embeds"],
        "out_channels": config["out_channels"],
        "dropout": config["dropout"],
        "conventions": conventions,
    }
    return arguments, config["flip_sin_to_cos"]


def check_sizes(arguments: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
    """Checks, before a `UNet` is built, that it is not larger than its weights: numbers in a file may be anything."""
    known = {size for tensor in tensors.values() for size in tensor.shape}
    for name, sizes in (("block_out_channels", arguments["widths"]), ("in_channels", arguments["image_shape"][2:])):
        check(known.issuperset(sizes), name, "be sizes of weights", sizes)
    for name, key in (("out_channels", "out_channels"), ("num_class_embeds", "num_classes")):
        check(arguments[key] in known | {None}, name, "be a size of a weight", arguments[key])
    layers = arguments["blocks_per_level"]
    check(layers < len(tensors), "layers_per_block", f"be less than the number of weights, {len(tensors)}", layers)
    height, width, _ = arguments["image_shape"]
    is_image = max(height or 1, width or 1) <= LARGEST_IMAGE
    check(is_image, "sample_size", f"be at most {LARGEST_IMAGE}", (height, width))


def assign_weights(network: keras.Model, tensors: dict[str, np.ndarray], cos_first: bool) -> None:
    """Assigns the weights of a `UNet2DModel`, all of which must be used, to a `UNet`."""
    left = dict(tensors)
    broken = [name for name, tensor in tensors.items() if not np.isfinite(tensor).all()]
    check(not broken, "weights", "be finite", f"NaN or infinite values in {', '.join(broken)}")

    def take(*names: str) -> np.ndarray:
        found = [name for name in names if name in left]
        check(len(found) > 0, "source", f"contain the weight {names[0]}", f"{len(tensors)} weights without it")
        return left.pop(found[0])

    def assign(variable: Any, value: np.ndarray, name: str) -> None:
        same = tuple(variable.shape) == value.shape
        check(same, "source", f"contain {name} of shape {tuple(variable.shape)} (in Keras's order)", value.shape)
        variable.assign(value)

    def fill(layer: keras.Layer, *names: str) -> None:
        """Assigns `weight` and `bias` of a convolution, a dense layer or a normalization."""
        weight = take(*(f"{name}.weight" for name in names))
        weight = weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight.T
        kernel, bias = (layer.gamma, layer.beta) if isinstance(layer, GroupNorm) else (layer.kernel, layer.bias)
        if layer.name == "time_dense_1" and cos_first:
            weight = np.roll(weight, len(weight) // 2, axis=0)
        assign(kernel, weight, f"{names[0]}.weight")
        assign(bias, take(*(f"{name}.bias" for name in names)), f"{names[0]}.bias")

    for layer in network.layers:
        if not layer.weights:
            continue
        name = diffusers_name(layer.name, len(network.widths))
        if isinstance(layer, ResidualBlock):
            for ours, theirs in BLOCK.items():
                fill(getattr(layer, ours), f"{name}.{theirs}")
            if layer.shortcut is not None:
                fill(layer.shortcut, f"{name}.conv_shortcut")
        elif isinstance(layer, SelfAttention2D):
            fill(layer.norm, f"{name}.group_norm")
            *qkv, out = ([f"{name}.{new}", f"{name}.{old}"] for new, old in ATTENTION.items())
            for variable, kind in ((layer.qkv.kernel, "weight"), (layer.qkv.bias, "bias")):
                parts = [take(*(f"{prefix}.{kind}" for prefix in names)).T for names in qkv]
                assign(variable, np.concatenate(parts, axis=-1), f"{name}.to_q, to_k, to_v.{kind}")
            fill(layer.output_dense, *out)
        elif isinstance(layer, keras.layers.Embedding):
            vectors = take(f"{name}.weight")
            assign(layer.embeddings, np.pad(vectors, [(0, 1), (0, 0)]), f"{name}.weight and the null class")
        else:
            fill(layer, name)
    check(not left, "source", "contain only a UNet's weights", ", ".join(sorted(left)))


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


def _attention_levels(config: dict[str, Any]) -> tuple[int, ...]:
    has_attention = []
    for key, plain in (("down_block_types", "DownBlock2D"), ("up_block_types", "UpBlock2D")):
        types = [str(block).removeprefix("UNetRes") for block in config[key]]
        allowed = (plain, f"Attn{plain}")
        rule = f"consist of {' and '.join(allowed)} for a UNet"
        check(all(block in allowed for block in types), key, rule, config[key])
        has_attention.append([block.startswith("Attn") for block in types])
    down, up, widths = (config[key] for key in ("down_block_types", "up_block_types", "block_out_channels"))
    check(has_attention[0] == has_attention[1][::-1], "up_block_types", f"mirror {down} for a UNet", up)
    check(len(widths) == len(down), "block_out_channels", f"have {len(down)} entries", widths)
    return tuple(level for level, attends in enumerate(has_attention[0]) if attends)
