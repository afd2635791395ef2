"""Models in continuous time: what they train on, what they refuse, what their files keep."""

import keras
import numpy as np
import pytest
from keras import ops
from laws import tiny_network
from mixture import PAIR, MixtureDenoiser, exact_model, gaussian

from keras_gen.core.fixtures import made_alike, randomize_weights, save_and_load
from keras_gen.models import DDPM, EDM, ScoreSDE
from keras_gen.samplers import DDIMSampler, EulerSampler, HeunSampler, ReverseSDESampler
from keras_gen.schedules import (
    EDMSchedule,
    LinearSchedule,
    LogNormalSigma,
    SubVPSchedule,
    VESchedule,
    VPSchedule,
)

T = np.linspace(1e-4, 1, 4001)


@pytest.mark.parametrize(
    ("schedule", "prediction"),
    [(VPSchedule(), "epsilon"), (SubVPSchedule(), "v"), (VESchedule(), "edm"), (VPSchedule(), "edm")],
)
def test_loss_of_the_exact_denoiser_is_the_closed_form(schedule, prediction, rng):
    """E SNR |x0 - x0_hat|^2 = mean over t of alpha^2 std^2 / (alpha^2 std^2 + sigma^2)."""
    model = exact_model(schedule, gaussian(0.3, 0.5), prediction, weighting="snr")
    x = rng.normal(0.3, 0.5, (20_000, 2)).astype("float32")
    loss = float(model.compute_loss(ops.convert_to_tensor(x), training=False))
    alpha, sigma = schedule.alpha(T), schedule.sigma(T)
    assert loss == pytest.approx(np.mean(0.25 * alpha**2 / (0.25 * alpha**2 + sigma**2)), rel=0.05)


def test_loss_of_edm_is_1_for_a_network_that_knows_nothing(rng):
    """Targets have unit variance at every level, if sigma_data is that of the data."""

    class Zero(keras.layers.Layer):
        def call(self, inputs):
            return 0.0 * inputs[0]

    model = EDM(Zero(), sigma_data=0.7, seed=0)
    x = rng.normal(0.0, 0.7, (20_000, 2)).astype("float32")
    for mean in (-4.0, 0.0, 4.0):
        model.time_sampler = LogNormalSigma(mean, 0.1)
        loss = float(model.compute_loss(ops.convert_to_tensor(x), training=False))
        assert loss == pytest.approx(1.0, rel=0.05)


def test_the_network_of_edm_is_given_inputs_of_unit_deviation(rng):
    seen = []

    class Spy(keras.layers.Layer):
        def call(self, inputs):
            seen.append([ops.convert_to_numpy(part) for part in inputs])
            return 0.0 * inputs[0]

    model = EDM(Spy(), sigma_data=0.7, seed=0)
    x = ops.convert_to_tensor(rng.normal(0.0, 0.7, (5000, 2)).astype("float32"))
    for sigma in (0.01, 0.7, 30.0):
        eps = ops.convert_to_tensor(rng.normal(size=(5000, 2)).astype("float32"))
        model.loss_at(x, eps, ops.full((5000,), sigma), None, False)
        assert seen[-1][0].std() == pytest.approx(1.0, rel=0.05)
        np.testing.assert_allclose(seen[-1][1], np.log(sigma) / 4, rtol=1e-4)


@pytest.mark.parametrize(
    ("schedule", "told"),
    [(VPSchedule(), 500.0), (VESchedule(), 500.0), (EDMSchedule(), 0.25 * np.log(0.5))],
)
def test_what_the_network_is_told_of_time(schedule, told):
    seen = []

    class Spy(keras.layers.Layer):
        def call(self, inputs):
            seen.append(ops.convert_to_numpy(inputs[1]))
            return inputs[0]

    model = ScoreSDE(Spy(), schedule, seed=0)
    x = ops.ones((3, 2))
    model.loss_at(x, x, ops.full((3,), 0.5), None, False)
    np.testing.assert_allclose(seen[-1], [told] * 3, rtol=1e-5)


def test_start_is_as_wide_as_the_noisiest_level():
    """Of VE and EDM; `noise` is multiplied by it."""
    for schedule in (VESchedule(0.01, 20.0), EDMSchedule(0.01, 20.0)):
        model = exact_model(schedule, gaussian())
        path = model.denoising_path(2, 2, EulerSampler(4), noise=np.ones((2, 2)), verbose=0)
        np.testing.assert_allclose(path[0], 20.0)
    path = exact_model(VPSchedule()).denoising_path(2, 2, EulerSampler(4), noise=np.ones((2, 2)), verbose=0)
    np.testing.assert_allclose(path[0], 1.0)


@pytest.mark.parametrize(
    ("schedule", "sampler"),
    [(VPSchedule(), EulerSampler(200)), (EDMSchedule(), HeunSampler(40)), (VESchedule(), ReverseSDESampler(300))],
)
def test_samples_of_a_mixture_are_the_mixture(schedule, sampler):
    """Both modes, in their shares."""
    model = exact_model(schedule, PAIR, "edm" if isinstance(schedule, EDMSchedule) else "epsilon", (4, 4))
    samples = model.sample(500, sampler, seed=0, batch_size=500, verbose=0).astype("float64")
    from scipy import stats

    truth = PAIR.sample((200_000,), np.random.default_rng(1))
    assert stats.ks_2samp(samples.ravel(), truth).statistic < 0.03


def test_files_keep_all_choices():
    makers = [
        lambda: EDM(tiny_network(real_times=True), sigma_data=0.7, seed=0),
        lambda: ScoreSDE(tiny_network(real_times=True), VESchedule(), "edm", "min_snr", LogNormalSigma(0.0, 1.0)),
        lambda: ScoreSDE(tiny_network(real_times=True), VPSchedule(), "edm", sigma_data=0.9),
        lambda: DDPM(tiny_network(real_times=True), LinearSchedule(10), "edm", sigma_data=0.9),
    ]
    for make in makers:
        model = made_alike(make)
        randomize_weights(model)
        loaded = save_and_load(model)
        assert loaded.sigma_data == model.sigma_data
        assert loaded.weighting == model.weighting
        assert loaded.get_config()["schedule"] == model.get_config()["schedule"]
        assert loaded.time_sampler.get_config() == model.time_sampler.get_config()
        noise = np.ones((1, 8, 8, 1))
        sampler = DDIMSampler(3)
        a, b = (one.sample(1, sampler, noise=noise, verbose=0) for one in (model, loaded))
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_a_model_may_be_built_twice():
    for model in (exact_model(LinearSchedule(10)), exact_model(VPSchedule())):
        model.build((None, 2))
        assert np.isfinite(model.sample(1, EulerSampler(2), verbose=0)).all()


def integer_network():
    return tiny_network()


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: ScoreSDE(integer_network()), "`network` must have a float input t for real times"),
        (lambda: EDM(integer_network()), "`network` must have a float input t for real times"),
        (lambda: DDPM(integer_network(), LinearSchedule(10), "edm"), "`network` must have a float input t"),
        (lambda: ScoreSDE(tiny_network(real_times=True), LinearSchedule()), "`schedule` must be a ContinuousSchedule"),
        (lambda: ScoreSDE(tiny_network(real_times=True), prediction="eps"), "`prediction` must be one of 'epsilon'"),
        (lambda: ScoreSDE(tiny_network(real_times=True), weighting="p2"), "`weighting` must be one of 'simple'"),
        (
            lambda: ScoreSDE(tiny_network(real_times=True), time_sampler=3),
            "`time_sampler` must be a TimeSampler or None",
        ),
        (lambda: EDM(tiny_network(real_times=True), VPSchedule()), "`schedule` must be an EDMSchedule"),
        (lambda: EDM(tiny_network(real_times=True), sigma_data=0.0), "`sigma_data` must be > 0"),
        (lambda: ScoreSDE(MixtureDenoiser(PAIR, VPSchedule()), condition_dropout=0.1), "`condition_dropout` must be 0"),
        (lambda: ScoreSDE(lambda x: x), "`network` must be a keras.Layer"),
    ],
)
def test_bad_construction(make, match):
    with pytest.raises(ValueError, match=match):
        make()
