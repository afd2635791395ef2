"""Samplers, predictions and schedules that are one and the same, with one network and the same noise."""

import itertools

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops
from mixture import PAIR, MixtureDenoiser, exact_model, gaussian

from keras_gen.core.fixtures import to_numpy
from keras_gen.diffusion.loss_weight import WEIGHTINGS, loss_weight
from keras_gen.diffusion.prediction import PREDICTIONS, as_prediction, coefficients
from keras_gen.models import DDPM, EDM, RectifiedFlow, ScoreSDE
from keras_gen.ops import convert_prediction
from keras_gen.predictions import Preconditioned
from keras_gen.samplers import (
    AnalyticDPMSampler,
    DDIMSampler,
    DDPMSampler,
    DPMSolverPPSampler,
    EulerSampler,
    HeunSampler,
    ProbabilityFlowSampler,
    ReverseSDESampler,
)
from keras_gen.schedules import (
    CosineSchedule,
    EDMSchedule,
    LinearSchedule,
    RectifiedFlowSchedule,
    Shifted,
    SubVPSchedule,
    VESchedule,
    VPSchedule,
    ZeroTerminalSNR,
)

N, STEPS, SHAPE = 3, 12, (2, 2)
NOISE = np.random.default_rng(0).normal(size=(N, *SHAPE)).astype("float32")
STEP_NOISE = np.random.default_rng(1).normal(size=(STEPS, N, *SHAPE)).astype("float32")

SCHEDULES = {
    "linear": LinearSchedule(),
    "zero_snr": ZeroTerminalSNR(LinearSchedule(100)),
    "vp": VPSchedule(),
    "ve": VESchedule(0.01, 20.0),
    "edm": EDMSchedule(),
    "rectified_flow": RectifiedFlowSchedule(),
    "shifted": Shifted(RectifiedFlowSchedule()),
}


class Wave(keras.layers.Layer):
    """No denoiser of anything: smooth, not linear, and it tells the times apart."""

    def call(self, inputs):
        x, t = inputs
        t = ops.reshape(ops.cast(t, "float32"), (-1, *[1] * (len(x.shape) - 1)))
        return 0.8 * ops.tanh(x) + 0.3 * ops.sin(3 * x) * ops.cos(t / 300)


def weight_of(weighting, prediction, schedule, t, sigma_data):
    return loss_weight(weighting, as_prediction(prediction, sigma_data), schedule, t, sigma_data)


def wave_model(schedule, prediction="v", **options):
    cls = DDPM if hasattr(schedule, "num_steps") else ScoreSDE
    model = cls(Wave(), schedule, prediction, **options)
    model.build((None, *SHAPE))
    return model


def samples(model, sampler, step_noise=None):
    return model.sample(N, sampler, noise=NOISE, step_noise=step_noise, verbose=0)


@pytest.mark.parametrize("name", SCHEDULES)
def test_ddim_at_eta_1_is_ddpm_is_the_first_order_sde_solver(name):
    model = wave_model(SCHEDULES[name])
    ddpm = samples(model, DDPMSampler(STEPS), STEP_NOISE)
    assert np.isfinite(ddpm).all()
    for sampler in (DDIMSampler(STEPS, eta=1.0), DPMSolverPPSampler(STEPS, order=1, sde=True)):
        np.testing.assert_allclose(samples(model, sampler, STEP_NOISE), ddpm, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", SCHEDULES)
def test_ddim_is_euler_is_the_first_order_ode_solver(name):
    model = wave_model(SCHEDULES[name])
    ddim = samples(model, DDIMSampler(STEPS))
    assert np.isfinite(ddim).all()
    for sampler in (EulerSampler(STEPS), DPMSolverPPSampler(STEPS, order=1)):
        np.testing.assert_allclose(samples(model, sampler), ddim, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("shift", [None, 3.0])
def test_euler_on_a_rectified_flow_is_the_plain_loop(shift):
    """A network of velocities is one of `eps - x0`, whatever the shift that it is sampled with."""
    inner = RectifiedFlowSchedule()
    model = RectifiedFlow(Wave(), inner if shift is None else Shifted(inner, shift))
    model.build((None, *SHAPE))
    times = np.linspace(1, 0, STEPS + 1)
    if shift is not None:
        times = shift * times / (1 + (shift - 1) * times)
    x = NOISE
    for t, s in itertools.pairwise(times):
        velocity = to_numpy(Wave()([ops.convert_to_tensor(x), ops.full((N,), 1000 * t)]))
        x = x + (s - t) * velocity
    np.testing.assert_allclose(samples(model, EulerSampler(STEPS)), x, rtol=1e-4, atol=1e-5)


def test_predictions_of_edm_are_minus_v_at_unit_deviation():
    x0, eps = np.random.default_rng(0).normal(size=(2, 5, 20))
    schedule, t = VPSchedule(), np.linspace(0.01, 1, 5)[:, None]
    x_t = schedule.alpha(t) * x0 + schedule.sigma(t) * eps
    both = [
        convert_prediction(eps, "epsilon", target, x_t, schedule.alpha(t), schedule.sigma(t), sigma_data=1.0)
        for target in ("edm", "v")
    ]
    np.testing.assert_allclose(both[0], -both[1], rtol=1e-9)
    row = coefficients(Preconditioned(1.0), schedule, t)
    np.testing.assert_allclose(row["c_in"], 1)


def test_edm_is_preconditioned_as_in_table_1():
    sigma, sigma_data = np.array([0.01, 0.5, 3.0, 80.0]), 0.7
    row = coefficients(Preconditioned(sigma_data), EDMSchedule(), sigma)
    r = np.sqrt(sigma**2 + sigma_data**2)
    np.testing.assert_allclose(row["c_skip"], sigma_data**2 / r**2)
    np.testing.assert_allclose(row["c_out"], sigma * sigma_data / r)
    np.testing.assert_allclose(row["c_in"], 1 / r)
    np.testing.assert_allclose(row["time"], np.log(sigma) / 4)


class InCoordinates(keras.layers.Layer):
    """eps_hat as a function of x / alpha and sigma / alpha alone."""

    def __init__(self, schedule):
        super().__init__()
        self.schedule = schedule

    def call(self, inputs):
        x, time = inputs
        t = time / 1000
        alpha, sigma = (ops.reshape(f(t), (-1, 1, 1)) for f in (self.schedule.alpha, self.schedule.sigma))
        return ops.tanh(x / alpha) * ops.cos(sigma / alpha)


# Not Heun's, whose correction is taken in coordinates that fit the schedule.
@pytest.mark.parametrize("sampler", [EulerSampler, DDIMSampler, DPMSolverPPSampler, DDPMSampler])
def test_ways_of_vp_and_ve_agree_in_the_coordinates_of_the_data(sampler):
    levels = np.geomspace(5.0, 0.02, STEPS)
    paths = []
    for schedule in (VPSchedule(), VESchedule(0.01, 10.0)):

        class Given(sampler):
            def times(self, schedule):
                return np.append(schedule.inverse_log_snr(-2 * np.log(levels)), schedule.t_clean)

        model = ScoreSDE(InCoordinates(schedule), schedule)
        model.build((None, *SHAPE))
        times = Given(STEPS).times(schedule)
        alpha, sigma = schedule.alpha(times[0]), schedule.sigma(times[0])
        noise = (5 * NOISE * alpha / max(1, sigma)).astype("float32")
        path = model.denoising_path(N, STEPS, Given(STEPS), noise=noise, step_noise=STEP_NOISE, verbose=0)
        paths.append(path / schedule.alpha(times).reshape(-1, 1, 1, 1))
    np.testing.assert_allclose(*paths, rtol=1e-4, atol=1e-4)


numbers = st.floats(-3, 3)
quick = settings(derandomize=True, deadline=None, max_examples=100)


@quick
@given(numbers, numbers, *[st.floats(0.05, 2)] * 5)
def test_predictions_convert_into_each_other(x0, eps, alpha, sigma, fall, d_sigma, sigma_data):
    d_alpha = -fall
    x_t = alpha * x0 + sigma * eps
    r = np.sqrt(sigma**2 + alpha**2 * sigma_data**2)
    values = {
        "epsilon": eps,
        "x0": x0,
        "v": alpha * eps - sigma * x0,
        "velocity": d_alpha * x0 + d_sigma * eps,
        "score": -eps / sigma,
        # x0 = c_skip y + c_out F, with y = x_t / alpha at level sigma / alpha
        "edm": (x0 - (alpha * sigma_data / r) ** 2 * x_t / alpha) / (sigma * sigma_data / r),
    }
    assert values.keys() == set(PREDICTIONS)
    for source in PREDICTIONS:
        for target in PREDICTIONS:
            result = convert_prediction(
                values[source], source, target, x_t, alpha, sigma, (d_alpha, d_sigma), sigma_data
            )
            np.testing.assert_allclose(result, values[target], rtol=1e-6, atol=1e-6)


def test_tensors_are_converted_as_arrays_are(rng):
    value, x_t = rng.normal(size=(2, 4, 3))
    alpha, sigma = rng.uniform(0.3, 1, (2, 4, 1))
    factors = -rng.uniform(0.3, 1, (4, 1)), rng.uniform(0.3, 1, (4, 1))
    tensors = keras.tree.map_structure(lambda a: ops.convert_to_tensor(a, "float32"), (x_t, alpha, sigma, factors))
    for source in PREDICTIONS:
        for target in PREDICTIONS:
            expected = convert_prediction(value, source, target, x_t, alpha, sigma, factors)
            actual = convert_prediction(ops.convert_to_tensor(value, "float32"), source, target, *tensors)
            np.testing.assert_allclose(to_numpy(actual), expected, rtol=1e-4, atol=1e-4)


# With fewer steps than times, and both ends where the predictions differ most.
EVERY_SAMPLER = {
    "ddpm": DDPMSampler(STEPS),
    "ddim": DDIMSampler(STEPS, eta=0.5),
    "euler": EulerSampler(STEPS),
    "heun_churn": HeunSampler(STEPS, churn=3.0),
    "dpm_solver_3": DPMSolverPPSampler(STEPS, order=3),
    "dpm_solver_sde": DPMSolverPPSampler(STEPS, order=2, sde=True),
    "reverse_sde": ReverseSDESampler(STEPS),
    "probability_flow": ProbabilityFlowSampler(),
    "analytic_dpm": AnalyticDPMSampler(STEPS),
}


@pytest.mark.parametrize("name", EVERY_SAMPLER)
def test_predictions_of_one_denoiser_sample_alike(name):
    sampler = EVERY_SAMPLER[name]
    step_noise = STEP_NOISE[:1] if name == "probability_flow" else STEP_NOISE
    schedule = CosineSchedule(100) if name == "analytic_dpm" else VPSchedule()
    # All of them by Euler's method, of the others three and in turn each.
    first = list(EVERY_SAMPLER).index(name)
    predictions = PREDICTIONS if name == "euler" else {"x0", *(list(PREDICTIONS) * 3)[2 * first : 2 * first + 2]}
    if name == "analytic_dpm":
        predictions = {"x0", "epsilon", "v"}
    results = {}
    for prediction in predictions:
        model = exact_model(schedule, PAIR, prediction, SHAPE)
        if name == "analytic_dpm":
            model.noise_power.assign(np.full(100, 0.7))
        results[prediction] = samples(model, sampler, step_noise)
    # x_t of almost pure noise, as ground of eps_hat, leaves few digits for x0.
    for prediction in predictions:
        np.testing.assert_allclose(results[prediction], results["x0"], rtol=2e-3, atol=2e-3, err_msg=prediction)


@pytest.mark.parametrize("schedule", [LinearSchedule(), RectifiedFlowSchedule()], ids=["discrete", "continuous"])
@pytest.mark.parametrize("weighting", [name for name in WEIGHTINGS if name != "simple"])
def test_weightings_mean_the_same_for_every_prediction(schedule, weighting):
    """The weighted square of an error of x0, seen through each prediction."""
    discrete = hasattr(schedule, "num_steps")
    t = np.arange(0, 1000, 111) if discrete else np.linspace(0.01, 0.99, 10)
    predictions = [p for p in PREDICTIONS if p != "velocity" or not discrete]
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    x0, eps, error = np.random.default_rng(0).normal(size=(3, 10))
    x_t = alpha * x0 + sigma * eps
    losses = {}
    for prediction in predictions:
        derivatives = schedule.derivatives(t) if prediction == "velocity" else None
        target, output = (
            convert_prediction(value, "x0", prediction, x_t, alpha, sigma, derivatives) for value in (x0, x0 + error)
        )
        losses[prediction] = weight_of(weighting, prediction, schedule, t, 0.5) * (target - output) ** 2
        tensor = weight_of(
            weighting,
            prediction,
            schedule,
            ops.convert_to_tensor(t, None if discrete else "float32"),
            0.5,
        )
        np.testing.assert_allclose(
            to_numpy(tensor),
            weight_of(weighting, prediction, schedule, t, 0.5),
            rtol=1e-4,
            err_msg=prediction,
        )
    snr = np.exp(schedule.log_snr(t))
    on_x0 = {"snr": snr, "min_snr": np.minimum(snr, 5), "edm": snr + 4}
    if weighting in on_x0:
        np.testing.assert_allclose(losses["x0"], on_x0[weighting] * error**2, rtol=1e-9)
    for prediction in predictions:
        np.testing.assert_allclose(losses[prediction], losses["x0"], rtol=1e-7, err_msg=prediction)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_simple_weight_is_1(prediction):
    np.testing.assert_array_equal(weight_of("simple", prediction, VPSchedule(), np.array([0.1, 0.9]), 0.5), 1)


def test_weights_that_are_simple_for_their_own_prediction():
    t = np.linspace(0.01, 0.99, 9)
    np.testing.assert_allclose(weight_of("edm", "edm", VPSchedule(), t, 0.3), 1)
    np.testing.assert_allclose(weight_of("edm", "edm", EDMSchedule(), t, 0.3), 1)
    np.testing.assert_allclose(weight_of("snr", "epsilon", SubVPSchedule(), t, 0.5), 1)


def test_weight_of_the_bound_in_continuous_time_is_the_derivative_of_the_snr():
    schedule, t, h = VPSchedule(), np.linspace(0.05, 0.95, 9), 1e-6
    rate = (np.exp(schedule.log_snr(t + h)) - np.exp(schedule.log_snr(t - h))) / (2 * h)
    length = schedule.t_max - schedule.t_start
    np.testing.assert_allclose(weight_of("vlb", "x0", schedule, t, 0.5), -0.5 * rate * length, rtol=1e-6)


def test_weight_of_the_bound_in_discrete_time_is_the_difference_of_snrs():
    """Its mean over t is the bound's sum over the middle terms."""
    schedule = LinearSchedule(50)
    snr = np.exp(schedule.log_snr(np.arange(50)))
    weight = weight_of("vlb", "x0", schedule, np.arange(50), 0.5)
    np.testing.assert_allclose(weight[1:], 50 * (snr[:-1] - snr[1:]) / 2, rtol=1e-9)


def test_a_network_of_edm_is_told_what_edm_says(rng):
    """`EDM` is `ScoreSDE` of these choices."""
    schedule = EDMSchedule()
    models = [
        EDM(MixtureDenoiser(gaussian(), schedule, "edm"), schedule),
        ScoreSDE(MixtureDenoiser(gaussian(), schedule, "epsilon"), schedule, "epsilon"),
    ]
    for model in models:
        model.build((None, *SHAPE))
    a, b = (model.sample(N, HeunSampler(6), noise=NOISE, verbose=0) for model in models)
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)
