"""Images that are not in [-1, 1]: refused or, if they may be meant so, warned of once; other data are not judged."""

import re
import warnings

import keras
import numpy as np
import pytest
from laws.models import autoencoder, compiled, continuous, ddpm, gan, vqvae

from keras_gen import layers, models, schedules
from keras_gen.core.checks import check_image_range
from keras_gen.data import Batches

UNIT = np.random.default_rng(0).uniform(-1, 1, (4, 8, 8, 1)).astype("float32")
PIXELS = np.round((UNIT + 1) * 127.5)
JUDGED = {
    "ddpm": ddpm,
    "edm": lambda: continuous(models.EDM),
    "gan": gan,
    "rectified_flow": lambda: continuous(models.RectifiedFlow),
    "score_sde": lambda: continuous(models.ScoreSDE),
    "vae": lambda: compiled(models.VAE(*autoencoder(3, 2), "gaussian", seed=0)),
    "vqvae": lambda: vqvae(layers.VectorQuantizer(8, seed=0)),
}


@pytest.mark.parametrize("name", JUDGED)
def test_pixels_are_refused_with_what_mends_them(name):
    message = r"`x` must be images in \[-1, 1\]: of pixels in 0 .. 255, give `x / 127.5 - 1`. Received: x=values in \["
    for data in (PIXELS, Batches([PIXELS])):
        with pytest.raises(ValueError, match=message):
            JUDGED[name]().fit(data, verbose=0)


def test_pixels_are_refused_by_what_encodes():
    for name in ("vae", "vqvae"):
        model = JUDGED[name]()
        model.build(UNIT.shape)
        for method in (model.encode, model.reconstruct):
            with pytest.raises(ValueError, match=r"`x` must be images in \[-1, 1\]: of pixels in 0 .. 255"):
                method(PIXELS)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (2 * UNIT, r"`x` has values in \[-1\.9.*: are these images not scaled to \[-1, 1\]\?"),
        ((UNIT + 1) / 2, r"none below 0: images in \[0, 1\] are scaled to \[-1, 1\] by `2 \* x - 1`"),
    ],
)
def test_doubtful_images_cause_one_warning(images, message):
    model = ddpm()
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        model.fit(images, epochs=2, validation_data=(images,), verbose=0)
        model.fit(images, verbose=0)
    [warning] = [warning for warning in record if "`x` has" in str(warning.message)]
    assert re.search(message, str(warning.message))
    assert warning.filename == __file__


@pytest.mark.parametrize("high", [10.5, 10.0, 1.6, 1.5, 0.5])
def test_bounds(high):
    images = UNIT.copy()
    images[0, 0, 0] = -high
    if high > 10:
        with pytest.raises(ValueError, match=r"values in \[-10.5,"):
            check_image_range("x", images)
    else:
        assert (check_image_range("x", images) is None) == (high <= 1.5)


def test_what_is_no_image_is_not_judged():
    points, hidden, counts = PIXELS[..., 0], np.repeat(PIXELS, 8, axis=-1), PIXELS.astype("int32")
    for data in (points, points[:, 0], hidden, np.repeat(PIXELS, 2, axis=-1), counts, PIXELS[:0], [PIXELS], "images"):
        assert check_image_range("x", data) is None
    for channels in (1, 3, 4):
        with pytest.raises(ValueError, match=r"x / 127.5 - 1"):
            check_image_range("x", np.repeat(PIXELS, channels, axis=-1))


UNJUDGED = {
    "binary": (lambda: compiled(models.FVSBN(seed=0)), (UNIT > 0).astype("int32")),
    "edm of another scale": (lambda: continuous(models.EDM, sigma_data=70.0), PIXELS),
    "flow": (lambda: compiled(models.NICE(2, [8], None, seed=0)), PIXELS),
}


@pytest.mark.parametrize("name", UNJUDGED)
def test_models_of_other_scales_do_not_judge(name):
    make, data = UNJUDGED[name]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="`x` has values")
        make().fit(data, verbose=0)


def test_latents_are_not_judged():
    x, z = keras.Input((8, 8, 1)), keras.Input((2, 2, 4))
    encoder = keras.Model(x, [keras.layers.Conv2D(4, 4, 4)(x), keras.layers.Conv2D(4, 4, 4)(x)])
    vae = models.VAE(encoder, keras.Model(z, keras.layers.Conv2DTranspose(1, 4, 4)(z)), "gaussian", seed=1)
    vae.build((None, 8, 8, 1))
    diffusion = models.DDPM(models.UNet((2, 2, 4), (8,), 1), schedules.CosineSchedule(20), seed=2)
    model = compiled(models.LatentDiffusion(vae, diffusion, seed=0))
    model.adapt(UNIT, verbose=0)
    latents = 30 + np.random.default_rng(0).normal(size=(4, 2, 2, 4)).astype("float32")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="`x` has values")
        model.fit(Batches([latents]), verbose=0)
