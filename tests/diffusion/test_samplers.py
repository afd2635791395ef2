import itertools
import pathlib

import numpy as np
import pytest
from gaussian import gaussian_ddpm, slope_of_x0
from laws import ddpm

from keras_gen.core.fixtures import randomize_weights
from keras_gen.diffusion.posterior import posterior
from keras_gen.samplers import DDIMSampler, DDPMSampler, DiffusionSampler
from keras_gen.schedules import CosineSchedule, KexueSchedule, LinearSchedule, ZeroTerminalSNR

REFERENCE = pathlib.Path(__file__).parent.parent / "data" / "ddim_50_steps.npz"


def closed_form_std(schedule, times, std, kind, eta=0.0):
    """The standard deviation of samples, followed step by step for an exact denoiser of N(., std^2)."""
    variance = 1.0
    for t, s in itertools.pairwise(times):
        (a_t, a_s), (b_t, b_s) = schedule.alpha([t, s]), schedule.sigma([t, s])
        of_x_t, of_x0, small = posterior(a_t, b_t, a_s, b_s)
        added = {"fixed_small": small, "fixed_large": b_t**2 - (a_t / a_s) ** 2 * b_s**2}.get(kind)
        if kind == "ddim":
            added = eta**2 * small
            of_x_t = np.sqrt(b_s**2 - added) / b_t
            of_x0 = a_s - of_x_t * a_t
        slope = of_x_t + of_x0 * slope_of_x0(schedule, t, std)
        variance = slope**2 * variance + (added if s >= 0 else 0)
    return np.sqrt(variance)


@pytest.mark.parametrize("steps", [10, 50, 1000])
@pytest.mark.parametrize("kind", ["fixed_small", "fixed_large", "ddim", "ddim_eta"])
def test_gaussian_data_get_the_closed_form_deviation(steps, kind):
    schedule, std, n = LinearSchedule(), 0.5, 2000
    eta = 0.6 if kind == "ddim_eta" else 0.0
    ddim = kind.startswith("ddim")
    model = gaussian_ddpm(schedule, std=std, variance="fixed_small" if ddim else kind)
    sampler = DDIMSampler(steps, eta, "trailing") if ddim else DDPMSampler(steps, "trailing")
    samples = model.sample(n, sampler, seed=1, batch_size=1000, verbose=0)
    expected = closed_form_std(schedule, sampler.times(schedule), std, "ddim" if ddim else kind, eta)
    # 32,000 independent numbers: five standard errors
    assert abs(samples.std() / expected - 1) < 5 / np.sqrt(2 * samples.size)


@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
def test_ddim_eta_1_is_ddpm_fixed_small(spacing, rng):
    model = gaussian_ddpm(LinearSchedule())
    noise = rng.normal(size=(5, 4, 4, 1))
    step_noise = rng.normal(size=(30, 5, 4, 4, 1))
    options = {"noise": noise, "step_noise": step_noise, "verbose": 0}
    a = model.sample(5, DDPMSampler(30, spacing), **options)
    b = model.sample(5, DDIMSampler(30, 1.0, spacing), **options)
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sampler", [DDPMSampler(20, "trailing"), DDIMSampler(20, spacing="trailing")])
def test_predictions_of_one_denoiser_sample_alike(sampler, rng):
    noise, step_noise = rng.normal(size=(3, 4, 4, 1)), rng.normal(size=(20, 3, 4, 4, 1))
    samples = [
        gaussian_ddpm(CosineSchedule(100), prediction=prediction).sample(
            3, sampler, noise=noise, step_noise=step_noise, verbose=0
        )
        for prediction in ("epsilon", "x0", "v")
    ]
    np.testing.assert_allclose(samples[0], samples[1], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(samples[1], samples[2], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("share", "variance"), [(0.0, "fixed_small"), (1.0, "fixed_large")])
def test_learned_range_ends_at_the_fixed_variances(share, variance, rng):
    noise, step_noise = rng.normal(size=(3, 4, 4, 1)), rng.normal(size=(20, 3, 4, 4, 1))
    options = {"noise": noise, "step_noise": step_noise, "verbose": 0, "sampler": DDPMSampler(20)}
    learned = gaussian_ddpm(LinearSchedule(), share=share, variance="learned_range").sample(3, **options)
    fixed = gaussian_ddpm(LinearSchedule(), variance=variance).sample(3, **options)
    np.testing.assert_allclose(learned, fixed, rtol=1e-5, atol=1e-5)


def test_zero_terminal_snr_gives_the_mean_of_the_data():
    model = gaussian_ddpm(ZeroTerminalSNR(LinearSchedule(100)), mean=0.9, std=0.1, prediction="v")
    samples = model.sample(500, DDIMSampler(10, spacing="trailing"), seed=0, batch_size=500, verbose=0)
    assert abs(samples.mean() - 0.9) < 0.01


@pytest.mark.parametrize("sampler", [DDPMSampler(), DDIMSampler(10)])
def test_last_step_adds_no_noise(sampler):
    model = gaussian_ddpm(KexueSchedule(20), mean=0.2, std=1e-4, variance="fixed_large")
    assert model.sample(50, sampler, seed=0, verbose=0).std() < 1e-3


def test_image_k_does_not_depend_on_how_the_work_is_split():
    model = ddpm()
    randomize_weights(model)
    whole = model.sample(7, DDIMSampler(5), seed=3, verbose=0)
    for batch_size in (1, 3, 4):
        parts = model.sample(7, DDIMSampler(5), seed=3, batch_size=batch_size, verbose=0)
        np.testing.assert_allclose(parts, whole, rtol=1e-4, atol=1e-4)
    fewer = model.sample(2, DDIMSampler(5), seed=3, verbose=0)
    np.testing.assert_allclose(fewer, whole[:2], rtol=1e-4, atol=1e-4)


def test_noise_differs_between_steps_batches_and_calls():
    model = gaussian_ddpm(LinearSchedule(10), std=1.0)
    noise = np.zeros((4, 4, 4, 1))
    samples = model.sample(4, DDPMSampler(), noise=noise, batch_size=2, seed=0, verbose=0)
    assert np.abs(samples[:2] - samples[2:]).min() > 1e-6
    assert np.abs(np.corrcoef(samples.reshape(4, -1)) - np.eye(4)).max() < 0.9


def test_samples_are_the_recorded_ones_on_every_backend(request):
    """The same weights and the same injected noise: equal to 1e-4 after 50 steps, whichever backend wrote the file."""
    model = ddpm(schedule=LinearSchedule())
    randomize_weights(model.network, scale=0.5)
    noise = np.random.default_rng(7).normal(size=(2, 8, 8, 1))
    samples = model.sample(2, DDIMSampler(50, spacing="trailing", clip_x0=1.0), noise=noise, verbose=0)
    stochastic = model.sample(
        2,
        DDPMSampler(50, clip_x0=1.0),
        noise=noise,
        step_noise=np.random.default_rng(8).normal(size=(50, 2, 8, 8, 1)),
        verbose=0,
    )
    if request.config.getoption("--update-references"):
        np.savez(REFERENCE, ddim=samples, ddpm=stochastic)
    with np.load(REFERENCE) as reference:
        np.testing.assert_allclose(samples, reference["ddim"], atol=1e-4)
        np.testing.assert_allclose(stochastic, reference["ddpm"], atol=1e-4)


def test_clipping_bounds_every_sample():
    model = ddpm()
    randomize_weights(model, scale=2.0)
    assert np.abs(model.sample(4, DDIMSampler(10, clip_x0=1.0), seed=0, verbose=0)).max() <= 1 + 1e-5


def test_denoise_from_continues_the_path():
    model = gaussian_ddpm(LinearSchedule())
    sampler = DDIMSampler(20)
    path = model.denoising_path(3, frames=4, sampler=sampler, seed=0, verbose=0)
    assert path.shape == (5, 3, 4, 4, 1)
    times = sampler.times(model.schedule)
    rest = model.denoise_from(path[2], int(times[10]), sampler, verbose=0)
    np.testing.assert_allclose(rest, path[-1], rtol=1e-5, atol=1e-5)
    whole = model.sample(3, sampler, seed=0, verbose=0)
    np.testing.assert_allclose(whole, path[-1], rtol=1e-5, atol=1e-5)


def test_interpolation_starts_and_ends_near_its_images(rng):
    model = gaussian_ddpm(LinearSchedule(), std=0.5)
    x_a, x_b = rng.normal(0.3, 0.5, (2, 2, 4, 4, 1))
    images = model.interpolate(x_a, x_b, t0=20, points=3, sampler=DDIMSampler(None), seed=0, verbose=0)
    assert images.shape == (2, 3, 4, 4, 1)
    np.testing.assert_allclose(images[:, 0], x_a, atol=0.3)
    np.testing.assert_allclose(images[:, 2], x_b, atol=0.3)


def test_one_program_for_one_sampler_and_shape():
    model = gaussian_ddpm(LinearSchedule())
    for options in ({}, {"verbose": 1}, {"seed": 4}, {"noise": np.zeros((2, 4, 4, 1))}):
        model.sample(2, DDIMSampler(5), **{"verbose": 0, **options})
    model.sample(8, DDIMSampler(5), batch_size=2, verbose=0)
    assert len(model.programs.by_key) == 1
    model.sample(3, DDIMSampler(5), verbose=0)
    model.sample(3, DDIMSampler(5, eta=1.0), verbose=0)
    assert len(model.programs.by_key) == 3


def test_sampling_sees_changed_weights():
    model = ddpm()
    randomize_weights(model, seed=0)
    first = model.sample(1, DDIMSampler(5), seed=0, verbose=0)
    randomize_weights(model, seed=1)
    assert np.abs(model.sample(1, DDIMSampler(5), seed=0, verbose=0) - first).max() > 1e-3


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"n": 0}, "`n` must be an integer >= 1. Received: n=0"),
        ({"sampler": DDIMSampler(21)}, "`steps` must be at most the schedule's number of steps, 20"),
        ({"seed": -1}, "`seed` must be an integer >= 0"),
        ({"noise": np.zeros((3, 8, 8, 1))}, "`noise` must hold 2 draws"),
        ({"noise": np.zeros((2, 8, 8, 3))}, "`noise` must have shape"),
        ({"step_noise": np.zeros((2, 8, 8, 1))}, "`step_noise` must have shape"),
        ({"sampler": "ddim"}, "`sampler` must be a DiffusionSampler or None. Received: sampler='ddim'"),
        ({"sampler": DDIMSampler}, "`sampler` must be a DiffusionSampler"),
        ({"batch_size": 0}, "`batch_size` must be an integer >= 1"),
        ({"condition": 1}, "`condition` must be None: the network takes no condition"),
    ],
)
def test_bad_input_to_sample(options, match):
    with pytest.raises(ValueError, match=match):
        ddpm().sample(**{"n": 2, "verbose": 0, **options})


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: DDIMSampler(0), "`steps` must be an integer >= 1"),
        (lambda: DDIMSampler(5, eta=1.5), r"`eta` must be in \[0, 1\]"),
        (lambda: DDIMSampler(5, spacing="even"), "`spacing` must be one of"),
        (lambda: DDPMSampler(clip_x0=-1.0), "`clip_x0` must be > 0"),
        (lambda: DDPMSampler(clip_x0="1"), "`clip_x0` must be > 0"),
    ],
)
def test_bad_sampler(make, match):
    with pytest.raises(ValueError, match=match):
        make()


def test_numpy_numbers_are_numbers():
    sampler = DDIMSampler(np.int64(5), eta=np.float32(0.5), clip_x0=np.float64(1))
    assert ddpm().sample(np.int64(1), sampler, seed=np.int32(0), verbose=0).shape == (1, 8, 8, 1)


def test_other_entry_points_refuse_bad_input():
    model, image = ddpm(), np.zeros((2, 8, 8, 1))
    with pytest.raises(ValueError, match=r"`t` must be an integer in 0 .. 19"):
        model.denoise_from(image, 20)
    with pytest.raises(ValueError, match="`x_t` must have shape"):
        model.denoise_from(image[..., 0], 5)
    with pytest.raises(ValueError, match="`t0` must be an integer"):
        model.interpolate(image, image, t0=-1)
    with pytest.raises(ValueError, match="`x_b` must have the shape of x_a"):
        model.interpolate(image, image[:1], t0=5)
    with pytest.raises(ValueError, match="`points` must be"):
        model.interpolate(image, image, t0=5, points=1)
    with pytest.raises(ValueError, match="`frames` must be at most the number of steps"):
        model.denoising_path(1, frames=9, sampler=DDIMSampler(5), verbose=0)


def test_a_sampler_of_ones_own(rng):
    """What the base class promises: rows and step are all it takes."""

    class Jump(DiffusionSampler):
        def step(self, denoise, x_t, row, noise):
            return denoise(x_t, row)[0]

    model = gaussian_ddpm(LinearSchedule(), mean=0.5, std=1e-3)
    samples = model.sample(3, Jump(1, "trailing"), seed=0, verbose=0)
    np.testing.assert_allclose(samples, 0.5, atol=0.01)
