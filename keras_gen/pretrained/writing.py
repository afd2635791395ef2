"""A pipeline as a folder that diffusers reads."""

import json
import os
import pathlib
import shutil
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from keras_gen.core.checks import check
from keras_gen.core.files import replacing
from keras_gen.diffusion.prediction import Prediction
from keras_gen.diffusion.schedules.base import NoiseSchedule
from keras_gen.networks.text.tokenizers import Tokenizer
from keras_gen.pretrained.pipeline import DIT, INDEX, MMDIT, PIPELINES, SCHEDULER, UNET, class_in
from keras_gen.pretrained.schedules import config_of

# Parts that pipelines may have, and that must be named in the index as absent.
NAMED = {
    "StableDiffusionPipeline": ("feature_extractor", "image_encoder", "safety_checker"),
    "StableDiffusionXLPipeline": ("feature_extractor", "image_encoder"),
    "StableDiffusion3Pipeline": ("feature_extractor", "image_encoder"),
    "DiTPipeline": (),
}


def write_pipeline(
    folder: Any,
    network: Any,
    autoencoder: Any,
    text_encoders: Sequence[Any],
    tokenizers: Sequence[Tokenizer],
    schedule: NoiseSchedule,
    prediction: Prediction,
    origin: Mapping[str, Any] | None,
    options: Mapping[str, Any],
) -> None:
    """Writes a pipeline; the index comes last, as a folder without it is no pipeline.

    Args:
        folder: path of the folder. If it does not exist, it is created.
        network: the network.
        autoencoder: the autoencoder.
        text_encoders: the text encoders, in their order.
        tokenizers: a tokenizer for each of them.
        schedule: the noise schedule.
        prediction: the prediction.
        origin: that of the `Pipeline` that was read, whose scheduler and further parts are copied, or `None`.
        options: further entries of the index.

    Raises:
        ValueError: if diffusers has no such pipeline, or `folder` is not the path of a folder.
    """
    check(isinstance(folder, str | os.PathLike), "folder", "be a path", type(folder).__name__)
    path = pathlib.Path(folder)
    check(not path.is_file(), "folder", "be the path of a folder", folder)
    name = _pipeline_of(network, len(text_encoders))
    parts = _parts(name, network, autoencoder, text_encoders, tokenizers)
    for part, thing in parts.items():
        (thing.save if isinstance(thing, Tokenizer) else thing.to_diffusers)(path / part)
    config = config_of(schedule, prediction) if origin is None else origin["scheduler"]
    _write(path / "scheduler" / SCHEDULER, config)
    index = {"_class_name": name, "scheduler": ["diffusers", config["_class_name"]]}
    index |= {part: [None, None] for part in (*PIPELINES[name], *NAMED[name])}
    index |= {part: _entry(thing) for part, thing in parts.items()}
    index |= options
    if origin is not None:
        index |= origin["index"]
        index |= {part: [None, None] for part in _not_copied(origin, path, {*parts, "scheduler"})}
    _write(path / INDEX, index)


def _pipeline_of(network: Any, encoders: int) -> str:
    """Returns the class of the pipeline of a network and a number of text encoders."""
    if isinstance(network, tuple(MMDIT.values())):
        return "StableDiffusion3Pipeline"
    if isinstance(network, tuple(UNET.values())):
        return "StableDiffusionPipeline" if encoders == 1 else "StableDiffusionXLPipeline"
    rule = "be a UNet2DCondition, an MMDiT or a DiT, to be written for diffusers"
    check(isinstance(network, tuple(DIT.values())), "network", rule, type(network).__name__)
    return "DiTPipeline"


def _parts(
    name: str, network: Any, autoencoder: Any, text_encoders: Sequence[Any], tokenizers: Sequence[Any]
) -> dict[str, Any]:
    """Returns the parts under their names."""
    parts = {"unet" if "unet" in PIPELINES[name] else "transformer": network, "vae": autoencoder}
    for number, pair in enumerate(zip(text_encoders, tokenizers, strict=True), 1):
        end = "" if number == 1 else f"_{number}"
        parts |= dict(zip((f"text_encoder{end}", f"tokenizer{end}"), pair, strict=True))
    for part, thing in parts.items():
        possible = {cls.__name__: cls for cls in PIPELINES[name][part].values()}
        rule = f"be a {' or '.join(possible)} as {part} of a {name}"
        check(isinstance(thing, tuple(possible.values())), "model", rule, type(thing).__name__)
    is_applied = name == "StableDiffusion3Pipeline" or autoencoder.shift_factor == 0
    check(is_applied, "shift_factor", f"be 0, as a {name} of diffusers applies none", autoencoder.shift_factor)
    return parts


def _entry(thing: Any) -> list[str]:
    """Returns library and class of a part."""
    if isinstance(thing, Tokenizer):
        return ["transformers", thing.classes[0]]
    config = thing.foreign_config()
    if "_class_name" in config:
        return ["diffusers", config["_class_name"]]
    return ["transformers", config["architectures"][0]]


def _not_copied(origin: Mapping[str, Any], path: pathlib.Path, written: set[str]) -> list[str]:
    """Copies the parts of the pipeline that was read which are not written, and returns those that are gone."""
    source, index = pathlib.Path(origin["folder"]), origin["index"]
    others = [part for part, entry in index.items() if isinstance(entry, list) and part not in written]
    others = [part for part in others if class_in(index, part) is not None]
    gone = [part for part in others if not (source / part).is_dir()]
    for part in set(others) - set(gone):
        if (source / part).resolve() != (path / part).resolve():
            shutil.copytree(source / part, path / part, dirs_exist_ok=True)
    if gone:
        warnings.warn(f"{', '.join(gone)} are left out: {source} no longer holds them", stacklevel=4)
    return gone


def _write(file: pathlib.Path, config: Mapping[str, Any]) -> None:
    with replacing(file) as opened:
        opened.write((json.dumps(config, indent=2, sort_keys=True) + "\n").encode("utf-8"))
