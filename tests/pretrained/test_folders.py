"""Folders of pipelines that are refused, before any weights are read: there are none here."""

import json

import pytest
from offenders import not_refused

from keras_gen.models import LatentDiffusion, TextToImage

pytestmark = pytest.mark.one_backend

CLIP = ["transformers", "CLIPTextModel"]
INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": CLIP,
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
XL = {
    **INDEX,
    "_class_name": "StableDiffusionXLPipeline",
    "text_encoder_2": [*CLIP],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
}
THIRD = {"text_encoder_3": ["transformers", "T5EncoderModel"], "tokenizer_3": ["transformers", "T5TokenizerFast"]}
SD3 = {
    **{key: value for key, value in XL.items() if key != "unet"},
    **THIRD,
    "_class_name": "StableDiffusion3Pipeline",
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "transformer": ["diffusers", "SD3Transformer2DModel"],
}
DIT = {
    "_class_name": "DiTPipeline",
    "scheduler": ["diffusers", "DDIMScheduler"],
    "transformer": ["diffusers", "DiTTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
EULER = {"_class_name": "EulerDiscreteScheduler"}


@pytest.fixture
def refused(tmp_path):
    """Returns a case of `not_refused`: a folder whose index and scheduler are changed."""

    def case(name, match, index=INDEX, model=TextToImage, scheduler=None, without=(), **changes):
        folder = tmp_path / name
        index = {**index, **changes}
        if scheduler is not None:
            index["scheduler"] = ["diffusers", scheduler["_class_name"]]
        for part in {*index} - {"_class_name"} - set(without):
            (folder / part).mkdir(parents=True)
        if "scheduler" not in without:
            (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler or {}))
        (folder / "model_index.json").write_text(json.dumps(index))
        return name, lambda: model.from_diffusers(folder), match

    return case


def test_bad_folders(refused, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "model_index.json").write_text("[]")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model_index.json").write_text("{")
    (tmp_path / "model.safetensors").write_bytes(b"")

    def read(source):
        return lambda: TextToImage.from_diffusers(source)

    assert not not_refused(
        [
            ("number", read(3), "`folder` must be the path of a folder with model_index.json"),
            ("no index", read(tmp_path / "empty"), "model_index.json. Received"),
            ("a list", read(tmp_path / "list"), "be an object with keys and values"),
            ("broken", read(tmp_path / "broken"), "have an object in JSON"),
            ("one file", read(tmp_path / "model.safetensors"), "from_single_file"),
            ("repository", read("runwayml/stable-diffusion"), "hf download runwayml/stable-diffusion"),
            refused("unknown", "StableDiffusion3Pipeline for `TextToImage`", _class_name="KandinskyPipeline"),
            refused("no class", "StableDiffusionXLPipeline", _class_name=None),
            refused("dit", "`LatentDiffusion.from_diffusers` reads a DiTPipeline", DIT),
            refused("text", "`TextToImage.from_diffusers` reads a StableDiffusionP", model=LatentDiffusion),
            refused("other class", "a unet that is a UNet2DConditionModel", unet=["diffusers", "UNet2DModel"]),
            refused("absent", "a vae that is a AutoencoderKL", vae=[None, None]),
            refused("left out", "a tokenizer that is", tokenizer=None),
            refused("outside", "name parts beside model_index.json", without=("../up",), **{"../up": CLIP}),
            refused("no list", "give a library and a class for unet", unet="UNet2DConditionModel"),
            refused("no folder", "hold the folders of its parts.*unet", without=("unet",)),
            refused("no scheduler's folder", "hold the folders of its parts.*scheduler", without=("scheduler",)),
            refused("flow", "another one than FlowMatchEuler", scheduler={"_class_name": SD3["scheduler"][1]}),
            refused(
                "no flow", "be FlowMatchEulerDiscreteScheduler for", SD3, scheduler={"_class_name": "DDIMScheduler"}
            ),
            refused("unknown scheduler", "_class_name among", scheduler={"_class_name": "LCMScheduler"}),
            refused("karras", "use_karras_sigmas", scheduler={**EULER, "use_karras_sigmas": True}),
            refused("one encoder", "have a text_encoder_2", XL, text_encoder_2=[None, None]),
            refused("no third tokenizer", "have a tokenizer_3 that is a T5Tokenizer", SD3, tokenizer_3=[None, None]),
        ]
    )
