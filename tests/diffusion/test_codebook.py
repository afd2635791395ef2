"""Images as indices of a codebook, and thresholds that follow the image."""

import itertools

import numpy as np
import pytest
from gaussian import gaussian_ddpm
from keras import ops
from laws import ddpm

from keras_gen.core.fixtures import randomize_weights, to_numpy
from keras_gen.diffusion.samplers import codebook
from keras_gen.diffusion.samplers.codebook import Codebook
from keras_gen.samplers import (
    CodebookDiffusion,
    DDIMSampler,
    DDPMSampler,
    DPMSolverPPSampler,
    DynamicThreshold,
)
from keras_gen.schedules import LinearSchedule
from keras_gen.testing import check_config

SHAPE = (4, 4, 1)


@pytest.fixture(scope="module")
def model():
    return gaussian_ddpm(LinearSchedule(), mean=0.3, std=0.5)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(3).normal(0.3, 0.5, (5, *SHAPE)).astype("float32")


def test_codebook_depends_on_seed_and_step_alone():
    book = Codebook(3, SHAPE, 7)
    np.testing.assert_array_equal(book.chunk(2, 4, 3)[1], Codebook(3, SHAPE, 7).entries(3))
    assert np.abs(book.entries(3) - book.entries(2)).max() > 0.1
    assert np.abs(book.entries(3) - Codebook(3, SHAPE, 8).entries(3)).max() > 0.1
    assert np.abs(Codebook(4000, SHAPE, 0).entries(0).std() - 1) < 0.02


@pytest.mark.parametrize("sampler", [DDPMSampler(30), DDIMSampler(30, eta=0.8)])
def test_an_image_is_near_what_its_indices_make(model, images, sampler):
    codec = CodebookDiffusion(model, sampler, codebook_size=64, seed=1)
    indices = codec.encode(images, verbose=0)
    assert indices.shape == (5, 30)
    assert indices.min() >= 0
    assert indices.max() < 64
    assert codec.bits_per_image == 30 * 6
    decoded = codec.decode(indices, verbose=0)
    chance = codec.sample(5, seed=0, verbose=0)
    assert np.mean((decoded - images) ** 2) < 0.2 * np.mean((chance - images) ** 2)


def test_more_bits_are_nearer(model, images):
    errors = []
    for size in (2, 16, 256):
        codec = CodebookDiffusion(model, DDPMSampler(30), codebook_size=size)
        errors.append(np.mean((codec.decode(codec.encode(images, verbose=0), verbose=0) - images) ** 2))
    assert all(b < 0.8 * a for a, b in itertools.pairwise(errors))


def test_neither_batches_nor_memory_matter(model, images, monkeypatch):
    codec = CodebookDiffusion(model, DDPMSampler(30), codebook_size=16)
    indices, decoded = codec.encode(images, verbose=0), None
    decoded = codec.decode(indices, verbose=0)
    monkeypatch.setattr(codebook, "MEGABYTES", 7 * 16 * 16 * 4 / 2**20)  # seven steps at a time
    np.testing.assert_array_equal(codec.encode(images, batch_size=2, verbose=0), indices)
    in_batches = codec.decode(ops.convert_to_tensor(indices), batch_size=2, verbose=0)
    np.testing.assert_allclose(in_batches, decoded, atol=1e-5)


def test_decoding_is_the_sampler_with_that_noise(model):
    codec = CodebookDiffusion(model, DDPMSampler(12), codebook_size=8, seed=5)
    indices = np.random.default_rng(0).integers(0, 8, (3, 12))
    book = Codebook(8, SHAPE, 5)
    noise = book.entries(12)[indices[:, 0]]
    step_noise = np.stack([book.entries(t)[indices[:, min(t + 1, 11)]] for t in range(12)])
    expected = model.sample(3, DDPMSampler(12), noise=noise, step_noise=step_noise, verbose=0)
    np.testing.assert_allclose(codec.decode(indices, verbose=0), expected, atol=1e-5)


def test_samples_have_the_deviation_of_the_data(model):
    samples = CodebookDiffusion(model, DDPMSampler(100, "trailing")).sample(1000, seed=1, batch_size=500, verbose=0)
    assert abs(samples.mean() - 0.3) < 0.03
    assert abs(samples.std() - 0.5) < 0.03


def test_condition_goes_to_the_network(digits):
    model = ddpm(10)
    randomize_weights(model.network)
    codec = CodebookDiffusion(model, DDPMSampler(5), codebook_size=4)
    indices = np.zeros((1, 5), int)
    pictures = [codec.decode(indices, condition=label, verbose=0) for label in (1, 7)]
    assert np.abs(pictures[0] - pictures[1]).max() > 1e-3
    with pytest.raises(ValueError, match="`condition` must be given"):
        codec.encode(digits[0][:2], verbose=0)


def test_bad_input(model, images):
    for sampler in (DDIMSampler(5), DPMSolverPPSampler(5, sde=True)):
        with pytest.raises(ValueError, match="`sampler` must be a DDPMSampler, or a DDIMSampler with eta > 0"):
            CodebookDiffusion(model, sampler)
    with pytest.raises(ValueError, match="`codebook_size` must be an integer >= 2"):
        CodebookDiffusion(model, codebook_size=1)
    with pytest.raises(ValueError, match="`seed` must be an integer >= 0"):
        CodebookDiffusion(model, seed=-1)
    codec = CodebookDiffusion(model, DDPMSampler(5), codebook_size=4)
    with pytest.raises(ValueError, match=r"`indices` must be integers of shape \(n, 5\)"):
        codec.decode(np.zeros((2, 4), int))
    with pytest.raises(ValueError, match=r"`indices` must be integers of shape \(n, 5\)"):
        codec.decode(np.zeros((2, 5)))
    with pytest.raises(ValueError, match=r"`indices` must be in 0 .. 3. Received: indices=\[4\]"):
        codec.decode(np.full((2, 5), 4))
    with pytest.raises(ValueError, match="`x` must have shape"):
        codec.encode(images[..., 0])


def test_dynamic_threshold_formula(rng):
    x0 = rng.normal(0, 2, (3, *SHAPE)).astype("float32")
    s = np.maximum(np.quantile(np.abs(x0.reshape(3, -1)), 0.9, axis=1), 1).reshape(3, 1, 1, 1)
    np.testing.assert_allclose(to_numpy(DynamicThreshold(0.9)(x0)), np.clip(x0, -s, s) / s, atol=1e-5)
    small = (0.1 * x0).clip(-0.5, 0.5)
    np.testing.assert_allclose(to_numpy(DynamicThreshold()(small)), small, atol=1e-6)


def test_dynamic_threshold_bounds_samples():
    network = ddpm()
    randomize_weights(network.network, scale=2.0)
    sampler = DDIMSampler(5, clip_x0=DynamicThreshold(0.9))
    check_config(lambda: sampler)
    assert np.abs(network.sample(3, sampler, seed=0, verbose=0)).max() <= 1 + 1e-5
    with pytest.raises(ValueError, match=r"`percentile` must be in \(0, 1\)"):
        DynamicThreshold(1.0)
