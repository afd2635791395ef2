"""The parts around the diffusion model; whole pipelines are compared with diffusers in tests/peers."""

import gc
import weakref

import keras
import numpy as np
import pytest
from offenders import not_refused

from keras_gen.core.fixtures import randomize_weights, save_and_load
from keras_gen.layers import SinusoidalEmbedding
from keras_gen.models import DDPM, CLIPTextEncoder, RectifiedFlow, TextToImage, UNet, UNet2DCondition
from keras_gen.pretrained.prompts import StableDiffusion3, StableDiffusionXL, family_of
from keras_gen.samplers import ClassifierFreeGuidance, DDIMSampler, EulerSampler
from keras_gen.schedules import CosineSchedule
from keras_gen.testing.config import check_config

CFG, DDIM = ClassifierFreeGuidance(2.0), DDIMSampler(4)
IMAGES = np.random.default_rng(0).uniform(-1, 1, (6, 8, 8, 1)).astype("float32")
CAPTIONS = ["a", "bb", "", "a", "c a b", "a"]


@keras.saving.register_keras_serializable("tests")
class Letters(keras.layers.Layer):
    """A tokenizer: each letter is a token, 0 is padding."""

    max_length = 4

    def __call__(self, texts, length=None):
        ids = np.zeros((len(texts), length or self.max_length), "int32")
        for row, text in zip(ids, texts, strict=True):
            row[: len(text)] = [1 + ord(letter) % 9 for letter in text[: len(row)]]
        return ids


@keras.saving.register_keras_serializable("tests")
class Blocks(keras.Model):
    """An autoencoder without weights: blocks of 2 x 2 pixels become channels."""

    multiple, scaling_factor, shift_factor = 2, 0.5, 0.25

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.built = True

    def encode(self, x):
        n, height, width, _ = x.shape
        blocks = x.reshape(n, height // 2, 2, width // 2, 2, 1).transpose(0, 1, 3, 2, 4, 5)
        return blocks.reshape(n, height // 2, width // 2, 4)

    def decode(self, z):
        n, height, width, _ = z.shape
        blocks = z.reshape(n, height, width, 2, 2, 1).transpose(0, 1, 3, 2, 4, 5)
        return blocks.reshape(n, 2 * height, 2 * width, 1)


def encoder(dim=8):
    return CLIPTextEncoder(11, 4, dim, 1, 2, 8, end_id=10)


def network():
    x, t, tokens = keras.Input((None, None, 4)), keras.Input(()), keras.Input((None, 8))
    embedding = keras.layers.Dense(8)(SinusoidalEmbedding(8)(t))
    embedding = keras.layers.Add()([embedding, keras.layers.Dense(8)(keras.layers.GlobalAveragePooling1D()(tokens))])
    h = keras.layers.Conv2D(8, 3, padding="same")(x)
    h = keras.layers.Activation("silu")(keras.layers.Add()([h, keras.layers.Reshape((1, 1, 8))(embedding)]))
    return keras.Model([x, t, tokens], keras.layers.Conv2D(4, 3, padding="same")(h))


def made(**options):
    keras.utils.set_random_seed(0)
    diffusion = DDPM(network(), CosineSchedule(20), seed=1, **options)
    model = TextToImage(diffusion, encoder(), Letters(), Blocks(), DDIM, (8, 8), seed=2)
    randomize_weights(model)
    model.compile(keras.optimizers.Adam(1e-2))
    return model


@pytest.fixture(scope="module")
def model():
    return made()


def sample(model, prompts, *args, **options):
    return model.sample(prompts, *args, **{"seed": 0, "verbose": 0, **options})


def assert_same(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-5)


def test_one_image_for_each_prompt(model):
    images = sample(model, ["a", "bb", "a"], guidance=CFG)
    assert (images.shape, images.dtype) == ((3, 8, 8, 1), "float32")
    assert np.abs(images).max() <= 1
    assert_same(sample(model, ["a", "bb", "a"], guidance=CFG, batch_size=1), images)
    assert_same(sample(model, "a", guidance=CFG), images[:1])
    assert np.abs(images[0] - images[2]).max() > 1e-3  # the same prompt, another noise
    assert sample(model, ["a"], height=12, width=4).shape == (1, 12, 4, 1)


def test_equal_prompts_are_encoded_once(model, monkeypatch):
    encoded = []
    encode = model._encoded
    monkeypatch.setattr(model, "_encoded", lambda number, ids, *args: encoded.append(ids) or encode(number, ids, *args))
    sample(model, ["a", "bb", "a", ""], guidance=CFG)
    np.testing.assert_array_equal(np.concatenate(encoded), Letters()(["a", "bb", ""]))
    condition = model.encode_prompts(["a", "bb", "a"])
    np.testing.assert_array_equal(condition[0], condition[2])


def test_the_condition_that_guidance_leads_away_from(model):
    prompts, options = ["a", "bb"], {"guidance": CFG}
    usual = sample(model, prompts, **options)
    assert_same(sample(model, prompts, negative_prompts="", **options), usual)
    others = sample(model, prompts, negative_prompts=["", "c"], **options)
    assert_same(others[0], usual[0])
    assert np.abs(others[1] - usual[1]).max() > 1e-3
    only_once = ClassifierFreeGuidance(2.0, interval=(0, 1e-6))  # the level is never so low
    assert_same(sample(model, prompts, guidance=only_once), sample(model, prompts))
    with_null = made(condition_dropout=0.1)
    condition = with_null.encode_prompts(prompts)
    noise = np.random.default_rng(1).normal(size=(2, 4, 4, 4)).astype("float32")
    z = with_null.diffusion.sample(2, DDIM, condition, CFG, noise=noise, verbose=0)
    assert_same(sample(with_null, prompts, noise=noise, **options), with_null.decode(z))


def test_latents_are_scaled_and_shifted(model):
    z = model.encode(IMAGES)
    np.testing.assert_allclose(z, (Blocks().encode(IMAGES) - 0.25) * 0.5, atol=1e-6)
    np.testing.assert_allclose(model.decode(z), IMAGES, atol=1e-6)


def test_editing(model):
    x, options = IMAGES[:2], {"guidance": CFG, "verbose": 0}
    path = model.denoising_path(["a", "bb"], 2, DDIM, CFG, seed=0, verbose=0)
    assert path.shape == (3, 2, 8, 8, 1)
    assert_same(path[-1], sample(model, ["a", "bb"], guidance=CFG))
    varied = model.image_to_image(x, "a", 0.5, seed=0, **options)
    z = model.diffusion.image_to_image(model.encode(x), 0.5, DDIM, seed=0, condition=model.encode_prompts(["a"] * 2))
    assert varied.shape == x.shape
    assert np.abs(varied - model.decode(z)).max() > 1e-4  # which is without guidance
    mask = np.zeros((8, 8, 1), bool)
    mask[:, :5] = True
    painted = model.inpaint(np.where(mask, x, np.nan), mask, ["a", "bb"], seed=0, **options)
    np.testing.assert_array_equal(painted[:, :, :5], x[:, :, :5])
    assert np.isfinite(painted).all()
    between = model.interpolate(x, IMAGES[2:4], ["a", "bb"], 10, 3, negative_prompts=["", "c"], seed=0, **options)
    assert between.shape == (2, 3, 8, 8, 1)
    noise = model.invert(x, "a", DDIMSampler(20), verbose=0)
    assert noise.shape == (2, 4, 4, 4)


def test_training_and_files():
    model = made()
    frozen = [*model.text_encoders[0].weights]
    before = [keras.ops.convert_to_numpy(weight) for weight in frozen]
    options = {"batch_size": 6, "verbose": 0}
    losses = model.fit(IMAGES, CAPTIONS, epochs=10, validation_data=(IMAGES, CAPTIONS), **options).history["loss"]
    assert min(losses[-3:]) < losses[0]
    assert model.evaluate(IMAGES, CAPTIONS, **options) == model.evaluate(IMAGES, CAPTIONS, **options)
    assert all(map(np.array_equal, before, map(keras.ops.convert_to_numpy, frozen)))
    loaded = save_and_load(model)
    assert len(loaded.trainable_variables) == len(model.trainable_variables) == len(model.diffusion.trainable_variables)
    assert (loaded.sampler, loaded.image_size) == (model.sampler, model.image_size)
    np.testing.assert_array_equal(sample(loaded, ["a", "bb"]), sample(model, ["a", "bb"]))


def test_encoded_prompts_take_the_place_of_prompts(model):
    prompts, negatives = ["a", "bb"], ["", "c"]
    given, away = model.encode_prompts(prompts), model.encode_prompts(negatives)
    expected = sample(model, prompts, guidance=CFG, negative_prompts=negatives)
    np.testing.assert_array_equal(sample(model, given, guidance=CFG, negative_prompts=away), expected)
    np.testing.assert_array_equal(sample(model, prompts, guidance=CFG, negative_prompts=away), expected)
    options = {"seed": 0, "verbose": 0}
    one = model.encode_prompts("a")
    np.testing.assert_array_equal(
        model.image_to_image(IMAGES, one, **options), model.image_to_image(IMAGES, "a", **options)
    )
    np.testing.assert_array_equal(
        model.interpolate(IMAGES[:2], IMAGES[2:4], given, 10, 2, **options),
        model.interpolate(IMAGES[:2], IMAGES[2:4], prompts, 10, 2, **options),
    )
    assert model.evaluate(IMAGES, one, verbose=0) == model.evaluate(IMAGES, ["a"] * 6, verbose=0)


def test_released_encoders_are_gone(tmp_path):
    model = made()
    prompts, negative = model.encode_prompts(["a", "bb"]), model.encode_prompts("")
    model.fit(IMAGES, CAPTIONS, batch_size=6, verbose=0)
    expected = sample(model, prompts, guidance=CFG, negative_prompts=negative)
    weights = [weakref.ref(weight) for weight in model.text_encoders[0].weights]
    counts = len(model.weights), len(model.trainable_variables)
    model.release_encoders()
    gc.collect()
    assert len(weights) > 0
    assert not [weight for weight in weights if weight() is not None]
    assert (len(model.weights), len(model.trainable_variables)) == (counts[0] - len(weights), counts[1])
    np.testing.assert_array_equal(sample(model, prompts, guidance=CFG, negative_prompts=negative), expected)
    encoded = "must be encoded by `encode_prompts` before `release_encoders`"
    whole = "`model` must have its text encoders to be saved or written"
    assert not not_refused(
        [
            ("sample", lambda: model.sample("a"), f"`prompts` {encoded}.*'a'"),
            ("encode", lambda: model.encode_prompts(["a"]), f"`prompts` {encoded}"),
            ("no negative", lambda: sample(model, prompts, guidance=CFG), f"`negative_prompts` {encoded}"),
            ("fit", lambda: model.fit(IMAGES, CAPTIONS), f"`y` {encoded}"),
            ("save", lambda: model.save(tmp_path / "model.keras"), whole),
            ("write", lambda: model.to_diffusers(tmp_path / "pipeline"), whole),
        ]
    )
    assert not any(tmp_path.iterdir())
    losses = model.fit(IMAGES, prompts[[0, 1] * 3], batch_size=6, epochs=5, verbose=0).history["loss"]
    assert min(losses) < losses[0]


def test_configuration():
    check_config(lambda: made(condition_dropout=0.1))


def test_default_samplers():
    flow = TextToImage(RectifiedFlow(network(), seed=0), encoder(), Letters())
    assert flow.sampler == EulerSampler(28)
    assert TextToImage(DDPM(network(), seed=0), encoder(), Letters()).sampler == DDIMSampler(50)


@pytest.mark.one_backend
def test_conditions_of_the_families():
    """Those of Stable Diffusion 3 need its network: tests/peers."""
    xl = family_of(UNet2DCondition((8, 8, 4), 7, (4,), (0,), pooled_dim=3, size_dim=4, groups=2, num_heads=2))
    assert type(xl) is StableDiffusionXL
    generator = np.random.default_rng(0)
    first, second = (
        {"penultimate": generator.normal(size=(2, 4, dim)), "pooled": generator.normal(size=(2, 3))} for dim in (3, 4)
    )
    condition = xl.condition([first, second], (16, 24))
    np.testing.assert_array_equal(condition["sizes"], [[16, 24, 0, 0, 16, 24]] * 2)
    np.testing.assert_array_equal(condition["pooled"], second["pooled"])
    np.testing.assert_array_equal(condition["tokens"][..., 3:], second["penultimate"])
    assert {name: np.shape(part) for name, part in xl.zeros(4).items()} == {
        "tokens": (4, 7),
        "pooled": (3,),
        "sizes": (),
    }
    assert StableDiffusion3.encoders == (2, 3)


def test_bad_arguments(model, tmp_path):
    diffusion, mask = model.diffusion, np.ones((8, 8, 1), bool)
    noise = np.zeros((2, 4, 4, 4), "float32")
    labels = DDPM(UNet((8, 8, 1), (8,), num_classes=3), CosineSchedule(20))

    def new(*args, **options):
        return lambda: TextToImage(*args, **options)

    def of(method, *args, **options):
        return lambda: getattr(model, method)(*args, **{"verbose": 0, **options})

    assert not not_refused(
        [
            ("diffusion", new(network(), encoder(), Letters()), "`diffusion` must be a diffusion model"),
            ("no condition", new(DDPM(UNet((8, 8, 1), (8,))), encoder(), Letters()), "`network` must take a condition"),
            ("labels", new(labels, encoder(), Letters()), "`network` must take a condition of tokens, or a dict"),
            ("two encoders", new(diffusion, [encoder()] * 2, [Letters()] * 2), "`text_encoders` must be 1 for"),
            ("no encoder", new(diffusion, ["clip"], Letters()), "`text_encoders` must be Keras layers"),
            ("no tokenizer", new(diffusion, encoder(), []), "`tokenizers` must be 1 tokenizers"),
            ("autoencoder", new(diffusion, encoder(), Letters(), encoder()), "`autoencoder` must be"),
            ("sampler", new(diffusion, encoder(), Letters(), sampler="ddim"), "`sampler` must be"),
            ("size", new(diffusion, encoder(), Letters(), image_size=8), "`image_size` must be two integers"),
            ("numbers", of("sample", [1, 2]), "`prompts` must be a string or a sequence of strings"),
            ("none", of("sample", []), "`prompts` must be a string or a sequence"),
            ("no rows", of("sample", np.zeros((0, 4, 8), "float32")), "`prompts` must be as `encode_prompts` returns"),
            ("no tokens", of("sample", np.zeros((2, 8), "float32")), "`prompts` must have shape"),
            ("parts", of("sample", {"tokens": np.zeros((2, 4, 8), "float32")}), "`prompts` must be the network's"),
            ("strings", of("sample", {"a": "b"}), "`prompts` must be as `encode_prompts` returns"),
            ("rows", of("image_to_image", IMAGES, np.zeros((2, 4, 8), "float32")), "one for each of 6 images.*=2"),
            ("noise", of("sample", ["a"], noise=noise), "`noise` must have shape .*for 1 prompts"),
            ("noise's channels", of("sample", ["a"] * 2, noise=noise[..., :2]), "`noise` must have shape"),
            ("height", of("sample", ["a"], height=9), "`height` must be a multiple of 2"),
            ("width", of("sample", ["a"], width=-4), "`width` must be an integer >= 1"),
            ("noise and height", of("sample", ["a"] * 2, noise=noise, height=16), "`noise` must have shape"),
            ("negatives", of("sample", ["a"], guidance=CFG, negative_prompts=["", ""]), "one for each of 1 images"),
            ("no guidance", of("sample", ["a"], negative_prompts="b"), "come with a ClassifierFreeGuidance"),
            ("guidance", of("sample", ["a"], guidance=2.0), "`guidance` must be a Guidance"),
            ("batch", of("sample", ["a"], batch_size=0), "`batch_size` must be an integer >= 1"),
            (
                "captions",
                lambda: model.fit(IMAGES, CAPTIONS[:2]),
                "`y` must be one string, or one for each of 6 images",
            ),
            ("no captions", lambda: model.fit(IMAGES), "`y` must be given"),
            ("labels as captions", lambda: model.fit(IMAGES, np.arange(6)), "`y` must be a string or a sequence"),
            ("image's size", of("image_to_image", IMAGES[:, :7], "a"), "`height` must be a multiple of 2"),
            ("image's prompts", of("image_to_image", IMAGES, ["a", "b"]), "one for each of 6 images"),
            ("mask", of("inpaint", IMAGES, mask.astype("float32"), "a"), "`mask` must be boolean"),
            ("mask's shape", of("inpaint", IMAGES, mask[:3], "a"), "`mask` must broadcast"),
            ("writing", lambda: model.to_diffusers(tmp_path), "`network` must be a UNet2DCondition"),
            ("file", lambda: model.to_diffusers(__file__), "`folder` must be the path of a folder"),
        ]
    )
