import itertools
import pathlib

import keras
import laws
import numpy as np
import pytest
from gaussian import gaussian_ddpm
from laws import ddpm
from mixture import exact_model, followed_moments, gaussian, slope_of_x0

from keras_gen import models
from keras_gen.core.fixtures import randomize_weights, save_and_load, to_numpy
from keras_gen.diffusion.schedules.posterior import posterior
from keras_gen.samplers import (
    AnalyticDPMSampler,
    DDIMSampler,
    DDPMSampler,
    DiffusionSampler,
    DPMSolverPPSampler,
    EulerSampler,
    HeunSampler,
    ProbabilityFlowSampler,
    ReverseSDESampler,
)
from keras_gen.schedules import (
    CosineSchedule,
    EDMSchedule,
    KexueSchedule,
    LinearSchedule,
    RectifiedFlowSchedule,
    SubVPSchedule,
    VESchedule,
    VPSchedule,
    ZeroTerminalSNR,
)

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
    schedule, std, n = LinearSchedule(), 0.5, 1000
    eta = 0.6 if kind == "ddim_eta" else 0.0
    ddim = kind.startswith("ddim")
    model = gaussian_ddpm(schedule, std=std, variance="fixed_small" if ddim else kind)
    sampler = DDIMSampler(steps, eta, "trailing") if ddim else DDPMSampler(steps, "trailing")
    samples = model.sample(n, sampler, seed=1, batch_size=n, verbose=0)
    expected = closed_form_std(schedule, sampler.times(schedule), std, "ddim" if ddim else kind, eta)
    # 16,000 independent numbers: five standard errors
    assert abs(samples.std() / expected - 1) < 5 / np.sqrt(2 * samples.size)


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


# --- in continuous time ---

SDE_SCHEDULES = {
    "vp": VPSchedule(),
    "sub_vp": SubVPSchedule(),
    "ve": VESchedule(0.01, 20.0),
    "edm": EDMSchedule(0.01, 20.0),
}


@pytest.mark.parametrize("name", SDE_SCHEDULES)
def test_reverse_sde_has_the_moments_of_the_data(name):
    schedule, mean, std = SDE_SCHEDULES[name], 0.3, 0.5
    sampler = ReverseSDESampler(300)
    model = exact_model(schedule, gaussian(mean, std), "epsilon", (4, 4))
    samples = model.sample(1000, sampler, seed=0, batch_size=1000, verbose=0)
    start = 0.0, max(1.0, float(schedule.sigma(schedule.t_max)))
    m, deviation = followed_moments(schedule, sampler, mean, std, start)
    # 16,000 independent numbers: five standard errors
    assert abs(samples.mean() - m) < 5 * deviation / np.sqrt(16_000)
    assert abs(samples.std() / deviation - 1) < 5 / np.sqrt(32_000)
    assert (m, deviation) == pytest.approx((mean, std), abs=0.03)  # the error of 300 steps


def test_corrector_leads_to_the_right_distribution():
    """From a wrong one, which a few steps give; in each sample its steps are random, by 1 / dimensions."""
    std = 0.5
    model = exact_model(VPSchedule(), gaussian(0.3, std), "epsilon", (256,))
    errors = []
    for corrections in (0, 4):
        sampler = ReverseSDESampler(15, corrections, spacing="log_snr")
        samples = model.sample(100, sampler, seed=0, batch_size=100, verbose=0)
        errors.append(abs(samples.std() / std - 1))
    assert errors[1] < 0.3 * errors[0], errors


def test_corrector_keeps_the_right_distribution():
    """Of N(0, 1) data, x_t is N(0, 1) at all times."""
    model = exact_model(VPSchedule(), gaussian(0.0, 1.0), "epsilon", (256,))
    path = model.denoising_path(100, 10, ReverseSDESampler(100, 2), seed=0, batch_size=100, verbose=0)
    assert np.abs(path[:-1].std(axis=(1, 2)) - 1).max() < 0.03


def test_corrector_stays_near_the_data_where_the_score_vanishes():
    """In one dimension, and with a noise at the end of which float32 finds no score in some samples."""
    model = exact_model(SubVPSchedule(), gaussian(0.3, 0.5), "epsilon", (1,))
    samples = model.sample(2000, ReverseSDESampler(50, 1, spacing="linspace"), seed=0, batch_size=2000, verbose=0)
    assert np.abs(samples - 0.3).max() < 3
    assert 0.4 < samples.std() < 1


@pytest.mark.parametrize("name", ["vp", "edm"])
@pytest.mark.parametrize("churn", [0.0, 15.0])
def test_heun_has_the_moments_of_the_data(name, churn):
    schedule, mean, std = SDE_SCHEDULES[name], 0.3, 0.5
    model = exact_model(schedule, gaussian(mean, std), "epsilon", (4, 4))
    sampler = HeunSampler(40, churn=churn, spacing="karras")
    samples = model.sample(1000, sampler, seed=0, batch_size=1000, verbose=0)
    assert abs(samples.mean() - mean) < 0.03
    assert abs(samples.std() / std - 1) < 0.05


def test_heun_of_given_noise_is_the_papers_algorithm(rng):
    """Algorithm 2 of EDM in plain NumPy, its network evaluated at the raised level."""
    data, schedule, n = gaussian(0.3, 0.5), EDMSchedule(), 10
    sampler = HeunSampler(n, churn=5.0, churn_range=(0.05, 50.0), churn_noise=1.007)
    noise, step_noise = rng.normal(size=(3, 2)), rng.normal(size=(n, 3, 2))
    times = sampler.times(schedule)
    x = 80 * noise
    for i in range(n):
        gain = min(5.0 / n, np.sqrt(2) - 1) if 0.05 <= times[i] <= 50.0 else 0.0
        raised = times[i] * (1 + gain)
        x = x + np.sqrt(raised**2 - times[i] ** 2) * 1.007 * step_noise[i]
        slope = data.predict(x, 1.0, raised)[1]
        euler = x + (times[i + 1] - raised) * slope
        if times[i + 1] > 0:
            slope = (slope + data.predict(euler, 1.0, times[i + 1])[1]) / 2
        x = x + (times[i + 1] - raised) * slope
    model = exact_model(schedule, data, "edm", (2,))
    samples = model.sample(3, sampler, noise=noise, step_noise=step_noise, verbose=0)
    np.testing.assert_allclose(samples, x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("churn", [0.0, 4.0])
def test_heun_evaluates_the_network_twice_a_step_but_for_the_last(churn):
    """The table tells at which times; the step rule is followed with a denoiser that writes them down."""
    schedule, seen = EDMSchedule(), []
    sampler = HeunSampler(6, churn=churn)
    times = sampler.times(schedule)
    rows = sampler.rows(schedule, times)

    def denoise(x_t, row):
        seen.append(float(row["t"]))
        return 0.5 * x_t, 0.0

    for i in range(6):
        row = keras.tree.map_structure(lambda column, i=i: column[i], rows)
        chosen = []
        original = keras.ops.cond
        keras.ops.cond = lambda holds, yes, no, chosen=chosen: chosen.append(bool(holds)) or (yes() if holds else no())
        try:
            sampler.step(denoise, np.ones((1, 2)), row, lambda k=0: np.zeros((1, 2)))
        finally:
            keras.ops.cond = original
    raised = times[:-1] * (1 + min(churn / 6, np.sqrt(2) - 1))
    expected = [time for pair in zip(raised, times[1:], strict=True) for time in pair][:-1]
    np.testing.assert_allclose(seen, expected)
    assert len(seen) == 2 * 6 - 1


@pytest.mark.parametrize("name", ["vp", "ve", "rectified_flow"])
def test_probability_flow_maps_gaussian_noise_exactly(name):
    schedule = {**SDE_SCHEDULES, "rectified_flow": RectifiedFlowSchedule()}[name]
    std, noise = 0.5, np.linspace(-3, 3, 8).reshape(4, 2)
    prediction = "v" if name == "rectified_flow" else "epsilon"
    model = exact_model(schedule, gaussian(0.0, std), prediction)
    samples = model.sample(4, ProbabilityFlowSampler(1e-6), noise=noise, verbose=0)

    def deviation(t):
        return np.sqrt((schedule.alpha(t) * std) ** 2 + schedule.sigma(t) ** 2)

    x_T = noise * max(1.0, float(schedule.sigma(schedule.t_max)))
    jump = slope_of_x0(schedule, schedule.t_min, std)
    expected = x_T / deviation(schedule.t_max) * deviation(schedule.t_min) * jump
    np.testing.assert_allclose(samples, expected, rtol=2e-4, atol=2e-4)


# --- the best variance ---


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("steps", [2, 5, 10, 50])
def test_analytic_dpm_has_the_deviation_of_gaussian_data_at_every_step_count(steps, eta, analytic):
    model, std = analytic
    samples = model.sample(2000, AnalyticDPMSampler(steps, eta, "trailing"), seed=2, batch_size=2000, verbose=0)
    # 32,000 numbers: five standard errors, and 1% for the noise of the prior instead of x_T
    assert abs(samples.std() / std - 1) < 0.01 + 5 / np.sqrt(2 * samples.size)
    plain = model.sample(2000, DDIMSampler(2, eta, "trailing"), seed=2, batch_size=2000, verbose=0)
    assert plain.std() < 0.9 * std


@pytest.fixture(scope="module")
def analytic():
    std = 0.5
    schedule = LinearSchedule(100, 1e-3, 0.2)
    model = gaussian_ddpm(schedule, 0.3, std)
    with pytest.raises(ValueError, match="`sampler` must be used after `model.adapt_variance"):
        model.sample(1, AnalyticDPMSampler(5), verbose=0)
    x = np.random.default_rng(0).normal(0.3, std, (500, 4, 4, 1)).astype("float32")
    model.adapt_variance(x, seed=0, batch_size=200, verbose=0)
    return model, std


def test_noise_power_of_gaussian_data_is_the_closed_form(analytic):
    """E eps_hat^2 = sigma^2 / (alpha^2 std^2 + sigma^2); what it is short of 1, from 8000 numbers for each time."""
    model, std = analytic
    t = np.arange(100)
    alpha, sigma = model.schedule.alpha(t), model.schedule.sigma(t)
    lack = (alpha * std) ** 2 / (alpha**2 * std**2 + sigma**2)
    np.testing.assert_allclose(1 - to_numpy(model.noise_power), lack, rtol=5 * np.sqrt(2 / 8000), atol=1e-6)


def test_noise_power_counts_each_image_once():
    """Whatever the batches: 5 images in batches of 2 are filled up with copies of the last."""
    model = gaussian_ddpm(LinearSchedule(20, 0.05, 0.4), 0.0, 1.0)
    x = np.zeros((5, 4, 4, 1), "float32")
    x[-1] = 3.0
    model.adapt_variance(x, seed=0, batch_size=2, verbose=0)
    t = np.arange(20)
    alpha, sigma = model.schedule.alpha(t), model.schedule.sigma(t)
    # eps_hat = sigma x_t, so that eps - eps_hat = alpha^2 eps - sigma alpha x0
    lack, twice = (alpha**4 + share * (sigma * alpha * 3) ** 2 for share in (1 / 5, 2 / 6))
    measured = (1 - to_numpy(model.noise_power)).sum()
    assert measured == pytest.approx(lack.sum(), rel=0.1)
    assert measured != pytest.approx(twice.sum(), rel=0.1)


def test_noise_power_of_a_network_that_knows_nothing_is_zero():
    model = models.DDPM(laws.tiny_network(), LinearSchedule(20), seed=0)  # its last layer starts at zero
    model.adapt_variance(np.random.default_rng(0).uniform(-9, 9, (5, 8, 8, 1)), seed=0, verbose=0)
    power = to_numpy(model.noise_power)
    assert (power >= 0).all()
    assert power.max() < 0.5


def test_noise_power_is_kept_in_the_file():
    model = models.DDPM(laws.tiny_network(), CosineSchedule(20), seed=0)
    randomize_weights(model)
    x = np.random.default_rng(0).uniform(-1, 1, (4, 8, 8, 1)).astype("float32")
    model.adapt_variance(x, seed=0, verbose=0)
    assert (to_numpy(model.noise_power) >= 0).all()
    loaded = save_and_load(model)
    np.testing.assert_array_equal(to_numpy(loaded.noise_power), to_numpy(model.noise_power))
    sampler, noise = AnalyticDPMSampler(4), np.zeros((1, 8, 8, 1))
    step_noise = np.ones((4, 1, 8, 8, 1))
    a, b = (m.sample(1, sampler, noise=noise, step_noise=step_noise, verbose=0) for m in (model, loaded))
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


# --- what is undefined ---


def continuous_model(prediction="epsilon", schedule=None):
    return exact_model(VPSchedule() if schedule is None else schedule, None, prediction)


def rectified_flow():
    return continuous_model("velocity", RectifiedFlowSchedule())


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: HeunSampler(5, churn=-1.0), "`churn` must be >= 0"),
        (lambda: HeunSampler(5, churn_range=(2.0, 1.0)), "`churn_range` must be None or a pair"),
        (lambda: HeunSampler(5, churn_range=3.0), "`churn_range` must be None or a pair"),
        (lambda: HeunSampler(5, churn_noise=0), "`churn_noise` must be > 0"),
        (lambda: DPMSolverPPSampler(5, order=4), r"`order` must be one of \(1, 2, 3\) with sde=False"),
        (lambda: DPMSolverPPSampler(5, order=3, sde=True), r"`order` must be one of \(1, 2\) with sde=True"),
        (lambda: DPMSolverPPSampler(5, sde=1), "`sde` must be True or False"),
        (lambda: AnalyticDPMSampler(5, eta=-0.1), r"`eta` must be in \[0, 1\]"),
        (lambda: ReverseSDESampler(None), "`steps` must be an integer >= 1"),
        (lambda: ReverseSDESampler(5, corrector_steps=-1), "`corrector_steps` must be an integer >= 0"),
        (lambda: ReverseSDESampler(5, snr=0.0), "`snr` must be > 0"),
        (lambda: ProbabilityFlowSampler(0.0), "`tolerance` must be > 0"),
        (lambda: EulerSampler(5, spacing="uniform"), "`spacing` must be one of"),
        (
            lambda: continuous_model().sample(1, DDPMSampler()),
            "`steps` must be given for a schedule in continuous time",
        ),
        (
            lambda: continuous_model().sample(1, EulerSampler(None)),
            "`steps` must be given for a schedule in continuous",
        ),
        (
            lambda: rectified_flow().sample(1, HeunSampler(5, churn=1.0)),
            "`churn` must be 0 with a schedule that ends at",
        ),
        (lambda: rectified_flow().sample(1, ReverseSDESampler(5)), "`schedule` must keep some signal"),
        (lambda: rectified_flow().sample(1, EulerSampler(5, "karras")), "`spacing` must be a different one for"),
        (lambda: continuous_model().sample(1, AnalyticDPMSampler(5)), "`sampler` must be a different one: only a DDPM"),
        (lambda: ddpm().sample(1, ReverseSDESampler(5)), "`schedule` must be a ContinuousSchedule"),
        (lambda: ddpm().sample(1, ProbabilityFlowSampler()), "`schedule` must be a ContinuousSchedule"),
        (lambda: ddpm().sample(1, EulerSampler(15, "karras")), "`steps` must be fewer: with spacing 'karras'"),
        (lambda: continuous_model("velocity", LinearSchedule(10)), "`schedule` must be a ContinuousSchedule"),
        (
            lambda: exact_model(VESchedule(), shape=(2,)).sample(1, EulerSampler(5, "trailing")),
            "`spacing` must not be 'trailing'",
        ),
        (
            lambda: continuous_model().sample(
                2, ReverseSDESampler(3, 2), noise=np.zeros((2, 2)), step_noise=np.zeros((3, 2, 2))
            ),
            r"`step_noise` must have shape \(3, 3, 2, 2\)",
        ),
        (
            lambda: continuous_model().sample(2, HeunSampler(3, churn=1.0), step_noise=np.zeros((2, 2, 2))),
            r"`step_noise` must have shape \(3, 2, 2\)",
        ),
        *[
            (
                lambda prediction=prediction, schedule=schedule: continuous_model(prediction, schedule),
                "`prediction` must be 'v', 'x0' or 'velocity' with a schedule that ends at zero signal-to-noise ratio",
            )
            for prediction in ("epsilon", "score", "edm")
            for schedule in (RectifiedFlowSchedule(), ZeroTerminalSNR(LinearSchedule(10)))
        ],
    ],
)
def test_what_is_undefined_is_refused(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def test_a_coefficient_stands_for_one_thing():
    class Odd(DDIMSampler):
        def rows(self, schedule, times):
            rows = super().rows(schedule, times)
            return {**rows, "c_skip": rows["alpha"], "sigma": 0 * rows["sigma"]}

    model = ddpm(schedule=LinearSchedule(10))
    with pytest.raises(ValueError, match=r"`rows` must agree with the model.* Received: rows=\['c_skip', 'sigma'\]"):
        model.sample(1, Odd(2), verbose=0)
