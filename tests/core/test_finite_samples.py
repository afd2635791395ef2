"""Samples that are not finite are refused, where all of a model's are collected."""

import keras
import numpy as np
import pytest
from laws.models import MODELS, autoencoder, tiny_network
from offenders import not_refused

from keras_gen import models, samplers, schedules
from keras_gen.core.checks import finite_samples

Y = np.array([0, 3, 3, 1])


def spoiled(model):
    """The model after a training that diverged."""
    model.build((None, 8, 8, 1))
    for weight in model.weights:
        if keras.backend.is_float_dtype(weight.dtype):
            weight.assign(np.full(weight.shape, np.nan))
    return model


def test_a_diverged_model_is_refused():
    """Of a model of each family: its samples, and what it decodes."""
    vae, flow = spoiled(models.VAE(*autoencoder(3, 2))), spoiled(MODELS["flow"][0]())
    vqvae, gan = spoiled(MODELS["vqvae"][0]()), spoiled(MODELS["gan"][0]())
    ddpm = spoiled(models.DDPM(tiny_network(), schedules.CosineSchedule(4)))
    sampler = samplers.DDIMSampler(2)
    x = np.zeros((2, 8, 8, 1), "float32")
    cases = {
        "vae": lambda: vae.sample(2, verbose=0),
        "vae.decode": lambda: vae.decode(np.zeros((2, 3))),
        "flow": lambda: flow.sample(2, verbose=0),
        "vqvae": lambda: vqvae.sample(2, verbose=0),
        "gan": lambda: gan.sample(2, verbose=0),
        "ddpm": lambda: ddpm.sample(2, sampler, verbose=0),
        "ddpm.denoising_path": lambda: ddpm.denoising_path(2, 2, sampler, verbose=0),
        "ddpm.image_to_image": lambda: ddpm.image_to_image(x, 0.5, sampler, verbose=0),
    }
    rule = (
        "`model` must give finite samples: has its training diverged.* Received: model=NaN or infinite values in 2 of 2"
    )
    offenders = not_refused((name, call, rule) for name, call in cases.items())
    assert not offenders, "\n".join(offenders)


def test_noise_that_is_none_is_not_laid_to_the_model():
    vae, flow, vqvae = models.VAE(*autoencoder(3, 2)), MODELS["flow"][0](), MODELS["vqvae"][0]()
    for model in (vae, flow, vqvae):
        model.build((None, 8, 8, 1))
    cases = []
    for bad, rule in ((np.nan, "be finite"), (1j, "be real numbers"), ("a", "be real numbers")):
        for model in (vae, flow):
            noise = np.full((2, *model.latent_shape), bad)
            sample = lambda model=model, noise=noise: model.sample(2, noise=noise, verbose=0)  # noqa: E731
            cases.append((f"{model.name}, {bad}", sample, f"`noise` must {rule}"))
    latents = np.full((2, *vae.latent_shape), np.nan)
    cases.append(("latents", lambda: vae.decode(latents), "`z` must be finite"))
    cases.append(("a number", lambda: vqvae.sample(2, noise=3, verbose=0), "`noise` must hold codes for 2 samples"))
    offenders = not_refused(cases)
    assert not offenders, "\n".join(offenders)


def test_the_condition_is_named():
    """On JAX an embedding returns NaN for a class that it does not have; elsewhere its backend raises an error."""
    model = models.DDPM(tiny_network(4), schedules.CosineSchedule(4), seed=0)
    errors = {"jax": ValueError, "torch": IndexError}
    with pytest.raises(errors.get(keras.backend.backend(), Exception)) as error:
        model.sample(3, samplers.DDIMSampler(2), condition=[12, 1, 12], verbose=0)
    if keras.backend.backend() == "jax":
        assert "does it not know the condition?" in str(error.value)
        assert str(error.value).endswith("NaN or infinite values in 2 of 3 samples, condition=[12]")


def test_finite_samples():
    x = np.zeros((4, 2), "float32")
    assert finite_samples(x, Y) is x
    assert finite_samples(np.zeros((4, 2), int)).dtype == int
    x[1:3, 0] = np.nan, np.inf
    with pytest.raises(ValueError, match=r"Received: model=NaN or infinite values in 2 of 4 samples, condition=\[3\]"):
        finite_samples(x, Y)
    with pytest.raises(ValueError, match="Received: model=NaN or infinite values in 2 of 4 samples$"):
        finite_samples(x, np.zeros((4, 5)))
