"""Folders of whole pipelines in the format of diffusers: an index, `model_index.json`, and a folder for each part.

    unet or transformer                 the denoising network
    vae                                 the autoencoder
    text_encoder, text_encoder_2, _3    the text encoders
    tokenizer, tokenizer_2, _3          their tokenizers
    scheduler                           the schedule, the prediction and the sampler

The index gives the class of each part, and null for one that is absent. Parts that a model has no use for are copied
when it is written.
"""

import dataclasses
import os
import pathlib
import re
from typing import Any

import keras

from keras_gen.core.checks import check, is_integer
from keras_gen.core.files import reading
from keras_gen.core.foreign.files import how_to_get, read_object
from keras_gen.diffusion.samplers.base import DiffusionSampler
from keras_gen.latent.autoencoder_kl import AutoencoderKL
from keras_gen.networks.backbones.dit import DiT
from keras_gen.networks.backbones.mmdit import MMDiT
from keras_gen.networks.backbones.unet2d_condition import UNet2DCondition
from keras_gen.networks.text.clip_text_encoder import CLIPTextEncoder
from keras_gen.networks.text.t5_encoder import T5Encoder
from keras_gen.networks.text.tokenizers import CLIPTokenizer, T5Tokenizer, Tokenizer
from keras_gen.pretrained.samplers import from_diffusers as sampler_of
from keras_gen.pretrained.scheduler_file import FLOW_MATCHING, scheduler_options
from keras_gen.pretrained.schedules import from_diffusers as schedule_of
from keras_gen.pretrained.schedules import prediction_of

INDEX = "model_index.json"
CONFIG = "config.json"
SCHEDULER = "scheduler_config.json"
# Classes of diffusers and transformers, and ours.
UNET = {"UNet2DConditionModel": UNet2DCondition}
MMDIT = {"SD3Transformer2DModel": MMDiT}
DIT = {"DiTTransformer2DModel": DiT}
VAE = {"AutoencoderKL": AutoencoderKL}
CLIP = {"CLIPTextModel": CLIPTextEncoder, "CLIPTextModelWithProjection": CLIPTextEncoder}
T5 = {"T5EncoderModel": T5Encoder}
BYTE_PAIRS = {"CLIPTokenizer": CLIPTokenizer, "CLIPTokenizerFast": CLIPTokenizer}
UNIGRAMS = {"T5Tokenizer": T5Tokenizer, "T5TokenizerFast": T5Tokenizer}
# A pipeline's parts and their possible classes.
_ONE: dict[str, dict[str, Any]] = {"vae": VAE, "text_encoder": CLIP, "tokenizer": BYTE_PAIRS}
_TWO = {**_ONE, "text_encoder_2": CLIP, "tokenizer_2": BYTE_PAIRS}
PIPELINES: dict[str, dict[str, dict[str, Any]]] = {
    "StableDiffusionPipeline": {"unet": UNET, **_ONE},
    "StableDiffusionXLPipeline": {"unet": UNET, **_TWO},
    "StableDiffusion3Pipeline": {"transformer": MMDIT, **_TWO, "text_encoder_3": T5, "tokenizer_3": UNIGRAMS},
    "DiTPipeline": {"transformer": DIT, "vae": VAE},
}
DROPOUT = 0.1  # of conditions in training, where a network has a null condition of its own
THIRD = "text_encoder_3"  # may be absent, with its tokenizer
READERS = {
    "TextToImage": ("StableDiffusionPipeline", "StableDiffusionXLPipeline", "StableDiffusion3Pipeline"),
    "LatentDiffusion": ("DiTPipeline",),
}


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """The parts of a pipeline.

    Args:
        network: the network.
        autoencoder: the autoencoder.
        text_encoders: the text encoders, in their order.
        tokenizers: a tokenizer for each of them.
        schedule: the noise schedule.
        prediction: short form of the prediction.
        variance: that of `DDPM`.
        sampler: the sampler.
        image_size: height and width of the images that the network is made for, in pixels, or `None`.
        origin: dict of the path of the `"folder"`, its `"index"` and the configuration of its `"scheduler"`.
    """

    network: keras.Model
    autoencoder: AutoencoderKL
    text_encoders: list[keras.Model]
    tokenizers: list[Tokenizer]
    schedule: Any
    prediction: str
    variance: str
    sampler: DiffusionSampler
    image_size: tuple[int, int] | None
    origin: dict[str, Any]


def read_pipeline(model: str, folder: Any, variant: str | None, dtype: Any) -> Pipeline:
    """Reads a pipeline. Index, scheduler and the presence of all parts are checked before any weights are read.

    Args:
        model: str. Name of the model that is made of it, a key of `READERS`.
        folder: path of the folder.
        variant: str or `None`. Variant of the files of weights; a part without it is read from its plain files.
        dtype: the dtype policy of all networks.

    Raises:
        ValueError: if the folder is not that of such a pipeline, or what it holds is not supported.
    """
    path = _checked_folder(folder)
    index = read_object(path / INDEX, "folder")
    classes = _classes_of(path, index, model)
    scheduler = path / "scheduler" / SCHEDULER
    # The class is that of the index: as in diffusers, the file's own does not count.
    config = {**read_object(scheduler, "folder"), "_class_name": class_in(index, "scheduler")}
    with reading("folder", scheduler, "hold a scheduler that is supported", ValueError):
        options = scheduler_options(config)
        _check_scheduler(options["_class_name"], index["_class_name"])
        # diffusers changes these two in the schedulers of Stable Diffusion 1 and 2, whatever their files say.
        is_first = index["_class_name"] == "StableDiffusionPipeline"
        changes = {"steps_offset": 1, "clip_sample": False} if is_first else {}
        sampler = sampler_of({**config, **changes})

    def read(part: str) -> Any:
        if part.startswith("tokenizer"):
            return classes[part].from_folder(path / part)
        has_variant = variant is not None and any(f".{variant}." in file.name for file in (path / part).iterdir())
        return classes[part].from_diffusers(path / part, variant if has_variant else None, dtype)

    encoders = [part for part in classes if part.startswith("text_encoder")]
    tokenizers = [read(part.replace("text_encoder", "tokenizer")) for part in encoders]
    network = "unet" if "unet" in classes else "transformer"
    autoencoder = read("vae")
    return Pipeline(
        read(network),
        autoencoder,
        [read(part) for part in encoders],
        tokenizers,
        schedule_of(config),
        prediction_of(options),
        options.get("variance_type") or "fixed_small",
        sampler,
        _image_size(read_object(path / network / CONFIG, "folder").get("sample_size"), autoencoder.multiple),
        {"folder": str(path.resolve()), "index": index, "scheduler": config},
    )


def check_origin(origin: Any) -> None:
    """Checks what a model remembers of the pipeline that it was read from, or `None`."""
    keys = {"folder": str, "index": dict, "scheduler": dict}
    is_origin = isinstance(origin, dict) and all(isinstance(origin.get(key), kind) for key, kind in keys.items())
    rule = f"be None, or a dict of {', '.join(keys)}, as `from_diffusers` makes it"
    check(origin is None or is_origin, "origin", rule, repr(origin)[:80])


def _checked_folder(folder: Any) -> pathlib.Path:
    rule = f"be the path of a folder with {INDEX}"
    check(isinstance(folder, str | os.PathLike), "folder", rule, type(folder).__name__)
    path = pathlib.Path(folder)
    check((path / INDEX).is_file(), "folder", f"{rule}{how_to_get(folder)}", folder)
    return path


def _classes_of(path: pathlib.Path, index: dict[str, Any], model: str) -> dict[str, Any]:
    """Returns our class of each part that the model takes, after checking that all of them are there."""
    name = str(index.get("_class_name"))
    others = [other for other, names in READERS.items() if name in names and other != model]
    rule = f"be that of a {' or '.join(READERS[model])} for `{model}`"
    rule += "".join(f"; `{other}.from_diffusers` reads a {name}" for other in others)
    check(name in READERS[model], "folder", rule, f"{path}, a {name}")
    outside = [part for part in index if not re.fullmatch(r"\w+", part)]
    check(not outside, "folder", f"name parts beside {INDEX}", outside)
    classes = {}
    for part, possible in PIPELINES[name].items():
        own = class_in(index, part)
        if (part == THIRD and own is None) or (part == "tokenizer_3" and THIRD not in classes):
            continue
        rule = f"have a {part} that is a {' or '.join(possible)}"
        check(own in possible, "folder", rule, f"{path} with {own or 'none'}")
        classes[part] = possible[str(own)]
    check(class_in(index, "scheduler") is not None, "folder", "have a scheduler", f"{path} with none")
    missing = [part for part in (*classes, "scheduler") if not (path / part).is_dir()]
    check(not missing, "folder", f"hold the folders of its parts, {', '.join((*classes, 'scheduler'))}", missing)
    return classes


def class_in(index: dict[str, Any], part: str) -> str | None:
    """Returns the class that an index gives for a part, or `None` for an absent one."""
    entry = index.get(part)
    is_entry = entry is None or (isinstance(entry, list) and len(entry) == 2)
    check(is_entry, "folder", f"give a library and a class for {part} in {INDEX}", repr(entry)[:80])
    return None if entry is None else entry[1]


def _check_scheduler(scheduler: str, pipeline: str) -> None:
    """Checks that a scheduler is one of flow matching just where the network is."""
    is_flow = pipeline == "StableDiffusion3Pipeline"
    rule = f"be {FLOW_MATCHING if is_flow else f'another one than {FLOW_MATCHING}'} for a {pipeline}"
    check((scheduler == FLOW_MATCHING) == is_flow, "scheduler", rule, scheduler)


def _image_size(sample_size: Any, multiple: int) -> tuple[int, int] | None:
    sides = sample_size if isinstance(sample_size, list) else [sample_size] * 2
    if len(sides) != 2 or not all(is_integer(side) and side > 0 for side in sides):
        return None
    height, width = (multiple * side for side in sides)
    return height, width
