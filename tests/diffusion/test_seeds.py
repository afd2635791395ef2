"""One seed for each image: the image of seed s is that of `sample(1, seed=s)`, whatever is sampled beside it."""

import re

import laws
import numpy as np
import pytest
from laws import ddpm

from keras_gen import models
from keras_gen.core.fixtures import randomize_weights
from keras_gen.core.random import starting_noise, step_seeds
from keras_gen.samplers import DDIMSampler, DDPMSampler, ReverseSDESampler

SEEDS = [7, 3, 2**40, 7, 0]
SAMPLERS = {
    "that draws nothing": (ddpm, DDIMSampler(4)),
    "that draws once a step": (ddpm, DDPMSampler(4)),
    "that draws twice a step": (
        lambda: laws.models.continuous(models.ScoreSDE),
        ReverseSDESampler(4, corrector_steps=1),
    ),
}


@pytest.fixture(params=SAMPLERS)
def sampling(request):
    make, sampler = SAMPLERS[request.param]
    model = make()
    randomize_weights(model)
    return lambda n, seed, **options: model.sample(n, sampler, seed=seed, verbose=0, **options)


def test_an_image_is_that_of_its_seed_alone(sampling):
    alone = {seed: sampling(1, seed)[0] for seed in set(SEEDS)}
    together = sampling(5, SEEDS)
    in_pairs = sampling(5, np.array(SEEDS), batch_size=2)  # the last batch is padded
    for seed, image, other in zip(SEEDS, together, in_pairs, strict=True):
        # The noise is the same to the last bit, the network's sums are added in another order
        np.testing.assert_allclose(image, alone[seed], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(other, alone[seed], rtol=1e-4, atol=1e-4)
    assert np.abs(alone[7] - alone[3]).max() > 0.01


def test_one_seed_draws_as_it_did(sampling):
    """A seed in a list is another thing than a seed: image 0 of both is the same, image 1 is not."""
    one, each = sampling(2, 7), sampling(2, [7, 7])
    np.testing.assert_allclose(each[0], each[1], rtol=1e-5, atol=1e-5)
    assert np.abs(one[1] - each[1]).max() > 0.01


def test_noise_of_a_row_is_that_of_its_seed():
    noise = starting_noise(3, (2, 2), (5, 9, 5))
    np.testing.assert_array_equal(noise[:2], [starting_noise(1, (2, 2), seed)[0] for seed in (5, 9)])
    np.testing.assert_array_equal(noise[0], noise[2])


def test_seeds_of_the_steps_are_those_of_a_batch_of_one():
    model = ddpm()
    of_rows = model._step_seeds((4, 2), (5, 9, 2**40), 1, np.array([2, 0]))
    dtype = model.seed_generator.state.dtype
    for column, seed in enumerate((2**40, 5)):
        np.testing.assert_array_equal(of_rows[:, :, column], step_seeds(8, seed, 0, dtype).reshape(4, 2, 2))


def test_latent_diffusion_takes_a_seed_for_each_image():
    model = laws.MODELS["latent_diffusion"][0]()
    together = model.sample(2, DDIMSampler(2), condition=[0, 1], seed=[7, 3], verbose=0)
    alone = model.sample(1, DDIMSampler(2), condition=1, seed=3, verbose=0)
    np.testing.assert_allclose(together[1], alone[0], rtol=1e-4, atol=1e-4)


def test_gan_takes_a_seed_for_each_sample():
    model = laws.MODELS["gan"][0]()
    together = model.sample(2, seed=[7, 3], verbose=0)
    np.testing.assert_allclose(together[1], model.sample(1, seed=3, verbose=0)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", [[1], [1, 2, 3], [1, -1], [1, 0.5], [1, True], [[1, 2]], np.zeros((2, 1), int), []])
def test_refused(seed):
    rule = "`seed` must be an integer >= 0, or 2 of them, one for each sample. Received: seed="
    with pytest.raises(ValueError, match=re.escape(rule)):
        ddpm().sample(2, DDIMSampler(2), seed=seed, verbose=0)
