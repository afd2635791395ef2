"""Against the pipelines of diffusers: whole images, from the same noise."""

import functools
import itertools
import json
import os
import pathlib
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

from keras_gen.core.fixtures import save_and_load
from keras_gen.models import LatentDiffusion, TextToImage
from keras_gen.samplers import ClassifierFreeGuidance, from_diffusers

pytest.importorskip("diffusers")
pytest.importorskip("transformers")
import diffusers
import torch
from diffusers.pipelines.dit import pipeline_dit
from pipelines import PIPELINES, save
from safetensors.numpy import load_file

diffusers.utils.logging.set_verbosity_error()
PROMPTS = ["the digit", "a text of 7"]
LABELS = ["one", "nought"], [1, 0]
SCHEDULERS = ("PNDMScheduler", "DDIMScheduler", "EulerDiscreteScheduler")
SQUARE, WIDE = (16, 16), (16, 24)
# pipeline, scheduler (None: its own), steps, scale of guidance, size
SHORT = [
    ("sd", None, 4, 3.0, WIDE),
    ("sdxl", None, 4, 3.0, WIDE),
    ("sd35", None, 4, 3.0, WIDE),
    ("dit", None, 4, 3.0, SQUARE),
]
ALL = [
    *itertools.product(["sd"], SCHEDULERS, (4, 20), (None, 3.0), (SQUARE, WIDE)),
    *itertools.product(["sdxl", "sd3", "sd3 without t5", "sd35"], [None], (4, 20), (None, 3.0), (SQUARE, WIDE)),
    *itertools.product(["dit"], [None], (4, 20), (None, 3.0), [SQUARE]),
]
# function -> pipelines of the short form
FEW = {
    "test_written_back": ["sd", "sd35"],
    "test_written_without_a_folder_that_was_read": ["sd35"],
    "test_after_training_diffusers_draws_what_we_draw": ["dit"],
    "test_half_precision": ["dit"],
    "test_files": ["dit"],
    "test_files_on_another_backend": [],
}


def pytest_generate_tests(metafunc):
    """All cases with `--all-cases`, and otherwise one for each pipeline."""
    every = metafunc.config.option.all_cases
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", ALL if every else SHORT, ids=str)
    if "name" in metafunc.fixturenames:
        metafunc.parametrize("name", PIPELINES if every else FEW[metafunc.function.__name__])


@pytest.fixture(scope="module", autouse=True)
def room(tmp_path_factory):
    """A folder for the pipelines."""
    folder.cache_clear(), ours.cache_clear()
    folder.room = tmp_path_factory.mktemp("pipelines")


@functools.cache
def folder(name):
    path = save(name, folder.room)
    if name == "sd":  # a part that is not used
        index = json.loads((path / "model_index.json").read_text())
        index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
        (path / "model_index.json").write_text(json.dumps(index))
        (path / "safety_checker").mkdir()
        (path / "safety_checker" / "config.json").write_text("{}")
    return path


@functools.cache
def ours(name):
    return read(folder(name))


def read(path, **options):
    return (LatentDiffusion if "dit" in path.name else TextToImage).from_diffusers(path, **options)


def theirs(path):
    absent = {"sd3_without_t5": ("text_encoder_3", "tokenizer_3"), "sd": ("safety_checker",)}.get(path.name, ())
    pipeline = diffusers.DiffusionPipeline.from_pretrained(path, **dict.fromkeys(absent))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def noise_for(model, size):
    height, width = (side // 2 for side in size)
    channels = model.diffusion.built_shape()[-1]
    return np.random.default_rng(0).normal(size=(2, height, width, channels)).astype("float32")


def our_image(model, path, noise, steps=4, scale=3.0, scheduler=None):
    config = json.loads((path / "scheduler" / "scheduler_config.json").read_text())
    config |= {"_class_name": scheduler, "clip_sample": False} if scheduler else {}
    guidance = scale and ClassifierFreeGuidance(scale)
    sampler, options = from_diffusers(config, steps), {"guidance": guidance, "noise": noise, "verbose": 0}
    if isinstance(model, LatentDiffusion):
        return np.clip(model.sample(2, sampler, LABELS[0], **options), -1, 1)
    return model.sample(PROMPTS, sampler, **options)


def their_image(pipeline, noise, steps=4, scale=3.0, scheduler=None):
    if scheduler:
        options = {} if scheduler == "PNDMScheduler" else {"clip_sample": False}
        pipeline.scheduler = getattr(diffusers, scheduler).from_config(pipeline.scheduler.config, **options)
    latents = torch.from_numpy(noise.transpose(0, 3, 1, 2).copy()).to(pipeline.vae.dtype)
    options = {"num_inference_steps": steps, "guidance_scale": scale or 1.0, "output_type": "np"}
    if isinstance(pipeline, diffusers.DiTPipeline):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pipeline_dit, "randn_tensor", lambda *args, **kwargs: latents)
            images = pipeline(LABELS[1], **options).images
    else:
        height, width = (2 * side for side in noise.shape[1:3])
        images = pipeline(PROMPTS, latents=latents, height=height, width=width, **options).images
    return 2 * images.astype("float32") - 1


def assert_close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4)


def test_images(case):
    name, scheduler, steps, scale, size = case
    noise = noise_for(ours(name), size)
    options = {"steps": steps, "scale": scale, "scheduler": scheduler}
    actual = our_image(ours(name), folder(name), noise, **options)
    assert actual.dtype == "float32"
    assert_close(actual, their_image(theirs(folder(name)), noise, **options))


def test_negative_prompts():
    model, pipeline, negatives = ours("sd"), theirs(folder("sd")), ["zero", "7 7"]
    noise = noise_for(model, WIDE)
    latents = torch.from_numpy(noise.transpose(0, 3, 1, 2).copy())
    options = {"num_inference_steps": 4, "guidance_scale": 3.0, "output_type": "np", "height": 16, "width": 24}
    expected = pipeline(PROMPTS, latents=latents, negative_prompt=negatives, **options).images
    sampler = from_diffusers(folder("sd") / "scheduler" / "scheduler_config.json", 4)
    actual = model.sample(PROMPTS, sampler, ClassifierFreeGuidance(3.0), negatives, noise=noise, verbose=0)
    assert_close(actual, 2 * expected - 1)


def test_what_diffusers_changes_in_a_scheduler_of_stable_diffusion(tmp_path):
    path = tmp_path / "sd"
    shutil.copytree(folder("sd"), path)
    index = json.loads((path / "model_index.json").read_text())
    (path / "model_index.json").write_text(json.dumps({**index, "scheduler": ["diffusers", "DDIMScheduler"]}))
    (path / "scheduler" / "scheduler_config.json").write_text("{}")
    pipeline, model = theirs(path), read(path)
    pipeline.scheduler.set_timesteps(50)
    assert model.sampler.given_times == [*pipeline.scheduler.timesteps.tolist(), -1]
    assert (model.sampler.clip_x0, pipeline.scheduler.config.clip_sample) == (None, False)


def test_what_is_taken_from_the_folder():
    for name in ("sd", "sdxl", "sd35", "dit"):
        model, path = ours(name), folder(name)
        assert model.sampler == from_diffusers(path / "scheduler" / "scheduler_config.json")
        assert name == "dit" or model.image_size == (16, 16)


def test_written_back(name, tmp_path):
    path = tmp_path / folder(name).name
    ours(name).to_diffusers(path)
    for file in folder(name).rglob("*.safetensors"):
        before, after = (load_file(each) for each in (file, path / file.relative_to(folder(name))))
        # transformers 5 leaves out the beginning of the names in one of the two classes.
        before, after = ({key.removeprefix("text_model."): all_[key] for key in all_} for all_ in (before, after))
        assert before.keys() == after.keys()
        assert not [key for key in before if not np.array_equal(before[key], after[key])]
    indices = [json.loads((each / "model_index.json").read_text()) for each in (folder(name), path)]
    assert indices[0] == indices[1]
    assert name != "sd" or (path / "safety_checker" / "config.json").is_file()
    noise = noise_for(ours(name), SQUARE)
    np.testing.assert_array_equal(their_image(theirs(path), noise), their_image(theirs(folder(name)), noise))


def test_written_without_a_folder_that_was_read(name, tmp_path):
    model, path = read(folder(name)), tmp_path / folder(name).name
    model.origin = None
    model.to_diffusers(path)
    noise = noise_for(model, SQUARE)
    assert_close(our_image(model, path, noise), their_image(theirs(path), noise))


def test_a_shift_that_diffusers_would_not_apply(tmp_path):
    model = read(folder("sd"))
    model.autoencoder.shift_factor = 0.1
    with pytest.raises(ValueError, match="`shift_factor` must be 0, as a StableDiffusionPipeline"):
        model.to_diffusers(tmp_path)


def test_after_training_diffusers_draws_what_we_draw(name, tmp_path):
    model = read(folder(name))
    model.compile(keras.optimizers.Adam(2e-3))
    x = np.random.default_rng(1).uniform(-1, 1, (4, 16, 16, 3)).astype("float32")
    y = np.array([0, 1, 0, 1]) if name == "dit" else ["the digit", "zero"] * 2
    frozen = [model.autoencoder, *getattr(model, "text_encoders", [])]
    before = [ops.convert_to_numpy(weight) for part in frozen for weight in part.weights]
    losses = model.fit(x, y, batch_size=4, epochs=10, verbose=0).history["loss"]
    assert min(losses[-3:]) < losses[0]
    after = [ops.convert_to_numpy(weight) for part in frozen for weight in part.weights]
    assert all(map(np.array_equal, before, after))
    path = tmp_path / folder(name).name
    model.to_diffusers(path)
    noise = noise_for(model, SQUARE)
    drawn = our_image(model, path, noise)
    assert np.abs(drawn - our_image(ours(name), path, noise)).max() > 1e-3
    assert_close(drawn, their_image(theirs(path), noise))


def test_half_precision(name):
    noise, path = noise_for(ours(name), SQUARE), folder(name)
    whole = our_image(ours(name), path, noise)
    half = our_image(read(path, dtype="mixed_bfloat16"), path, noise)
    difference = np.abs(half - whole).mean()
    expected = np.abs(their_image(theirs(path).to(torch.bfloat16), noise) - whole).mean()
    assert 0 < difference <= 2 * expected


def test_files(name):
    model, noise = ours(name), noise_for(ours(name), SQUARE)
    loaded = save_and_load(model)
    trainable = [len(each.trainable_variables) for each in (model, model.diffusion, loaded, loaded.diffusion)]
    assert len(set(trainable)) == 1
    np.testing.assert_array_equal(our_image(loaded, folder(name), noise), our_image(model, folder(name), noise))


ELSEWHERE = """
import pathlib, sys
import keras, numpy as np
from test_pipelines import our_image
file, path, noise, images = sys.argv[1:]
np.save(images, our_image(keras.models.load_model(file), pathlib.Path(path), np.load(noise)))
"""


def test_files_on_another_backend(name, tmp_path):
    model = ours(name)
    noise, paths = noise_for(model, SQUARE), [tmp_path / each for each in ("model.keras", "noise.npy", "images.npy")]
    model.save(paths[0])
    np.save(paths[1], noise)
    other = {"torch": "jax", "jax": "tensorflow", "tensorflow": "torch"}[keras.backend.backend()]
    here = pathlib.Path(__file__).parent
    search = os.pathsep.join([str(here), str(here.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "KERAS_BACKEND": other, "PYTHONPATH": search}
    command = [sys.executable, "-c", ELSEWHERE, str(paths[0]), str(folder(name)), *map(str, paths[1:])]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert_close(np.load(paths[2]), our_image(model, folder(name), noise))
