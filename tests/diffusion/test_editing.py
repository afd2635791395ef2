"""What a model does with given images, where the answer is known."""

import keras
import numpy as np
import pytest
from keras import ops
from mixture import PAIR, exact_model, gaussian

from keras_gen.core.fixtures import randomize_weights
from keras_gen.models import DDPM, ScoreSDE, UNet
from keras_gen.samplers import (
    AnalyticDPMSampler,
    ClassifierFreeGuidance,
    DDIMSampler,
    DDPMSampler,
    DPMSolverPPSampler,
    EulerSampler,
    HeunSampler,
    ProbabilityFlowSampler,
    ReverseSDESampler,
)
from keras_gen.schedules import (
    EDMSchedule,
    LinearSchedule,
    RectifiedFlowSchedule,
    Shifted,
    SubVPSchedule,
    VESchedule,
    VPSchedule,
    ZeroTerminalSNR,
)

SHAPE = (4, 4, 1)
X = np.clip(PAIR.sample((3, *SHAPE), np.random.default_rng(0)), -0.9, 0.9).astype("float32")

SCHEDULES = {
    "linear": (LinearSchedule(), "epsilon", None),
    "zero_snr": (ZeroTerminalSNR(LinearSchedule()), "v", "trailing"),
    "vp": (VPSchedule(), "epsilon", None),
    "sub_vp": (SubVPSchedule(), "v", None),
    "ve": (VESchedule(0.01, 20.0), "epsilon", None),
    "edm": (EDMSchedule(), "edm", None),
    "rectified_flow": (RectifiedFlowSchedule(), "velocity", None),
    "shifted": (Shifted(RectifiedFlowSchedule()), "velocity", None),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_sampling_undoes_inversion(name):
    schedule, prediction, spacing = SCHEDULES[name]
    model = exact_model(schedule, PAIR, prediction, SHAPE)
    sampler = (DDIMSampler if name in ("linear", "ve") else EulerSampler)(50, spacing=spacing)
    noise = model.invert(X, sampler, iterations=10, verbose=0)
    assert noise.shape == X.shape
    back = model.sample(3, sampler, noise=noise, verbose=0)
    np.testing.assert_allclose(back, X, atol=1e-3)


@pytest.mark.parametrize("name", ["vp", "edm", "rectified_flow"])
def test_inversion_finds_the_noise(name, rng):
    """Of which there is one, as the steps are one to one."""
    schedule, prediction, _ = SCHEDULES[name]
    model = exact_model(schedule, PAIR, prediction, SHAPE)
    noise = rng.normal(size=(2, *SHAPE)).astype("float32")
    sampler = EulerSampler(20, "karras" if name == "vp" else None)
    x = model.sample(2, sampler, noise=noise, verbose=0)
    np.testing.assert_allclose(model.invert(x, sampler, iterations=20, verbose=0), noise, atol=5e-3)


@pytest.mark.parametrize("name", ["zero_snr", "vp", "rectified_flow"])
def test_inversion_of_few_steps(name):
    """From a time without signal, too, where eps_hat is x_t itself."""
    schedule, prediction, spacing = SCHEDULES[name]
    model = exact_model(schedule, gaussian(), prediction, SHAPE)
    sampler = EulerSampler(4, spacing)
    noise = model.invert(X, sampler, iterations=30, verbose=0)
    np.testing.assert_allclose(model.sample(3, sampler, noise=noise, verbose=0), X, atol=1e-3)


def test_inversion_converges():
    model = exact_model(VPSchedule(), gaussian(), "epsilon", SHAPE)
    sampler = EulerSampler(10)
    errors = [
        np.abs(model.sample(3, sampler, noise=model.invert(X, sampler, n, verbose=0), verbose=0) - X).max()
        for n in (1, 3, 9)
    ]
    assert errors[0] > 4 * errors[1] > 16 * errors[2], errors


@pytest.mark.parametrize(
    "sampler",
    [
        HeunSampler(5),
        DDIMSampler(5, eta=0.5),
        DDPMSampler(5),
        DPMSolverPPSampler(5),
        ReverseSDESampler(5),
        ProbabilityFlowSampler(),
        None,
    ],
    ids=lambda sampler: type(sampler).__name__,
)
def test_inversion_is_refused_where_a_sampler_draws_or_corrects(sampler):
    model = exact_model(VPSchedule(), shape=SHAPE)
    with pytest.raises(ValueError, match="`sampler` must be a DDIMSampler with eta=0 or an EulerSampler"):
        model.invert(X, sampler)


MASK = np.zeros((4, 4, 1), bool)
MASK[:2] = True


@pytest.mark.parametrize(
    "sampler",
    [
        DDIMSampler(5),
        DDPMSampler(5),
        EulerSampler(5),
        HeunSampler(5, churn=1.0),
        DPMSolverPPSampler(5, order=3),
        AnalyticDPMSampler(5),
    ],
    ids=lambda sampler: type(sampler).__name__,
)
def test_known_pixels_stay_exactly(sampler):
    model = exact_model(LinearSchedule(50, 1e-3, 0.2), PAIR, "epsilon", SHAPE)
    model.noise_power.assign(np.full(50, 0.8))
    unknown = np.where(MASK, X, np.nan)  # what is there does not matter
    result = model.inpaint(unknown, MASK, sampler, seed=0, verbose=0)
    np.testing.assert_array_equal(result[:, :2], X[:, :2])
    assert np.isfinite(result).all()
    assert result[:, 2:].std() > 0.1


@pytest.mark.parametrize("name", ["ve", "edm", "rectified_flow"])
def test_known_pixels_stay_exactly_on_every_schedule(name):
    schedule, prediction, _ = SCHEDULES[name]
    model = exact_model(schedule, PAIR, prediction, SHAPE)
    result = model.inpaint(X, MASK, seed=0, verbose=0)
    np.testing.assert_array_equal(result[:, :2], X[:, :2])
    filled = model.inpaint(np.tile(X[:1], (500, 1, 1, 1)), MASK, seed=0, batch_size=500, verbose=0)[:, 2:]
    assert abs(filled.mean() - PAIR.mean) < 0.06
    assert abs(filled.std() / PAIR.std - 1) < 0.12


def test_filled_pixels_follow_the_known_ones():
    """Gaussian pairs with correlation 0.9: the mean of the one, given the other, is 0.9 times it."""
    schedule, covariance = VPSchedule(), np.array([[1.0, 0.9], [0.9, 1.0]], "float32")
    values, vectors = (part.astype("float32") for part in np.linalg.eigh(covariance))

    spread = ops.convert_to_tensor(values)

    class Pairs(keras.layers.Layer):
        """E[eps | x_t] = sigma (alpha^2 C + sigma^2)^-1 x_t"""

        def call(self, inputs):
            x, time = inputs
            alpha, sigma = (ops.reshape(f(time / 1000), (-1, 1)) for f in (schedule.alpha, schedule.sigma))
            along = ops.matmul(x, vectors) / (ops.square(alpha) * spread + ops.square(sigma))
            return sigma * ops.matmul(along, vectors.T)

    model = ScoreSDE(Pairs(), schedule, seed=0)
    model.build((None, 2))
    means = []
    for known in (-1.0, 1.0):
        x = np.tile([[known, 0.0]], (400, 1)).astype("float32")
        filled = model.inpaint(x, np.array([True, False]), DDPMSampler(200), seed=0, batch_size=400, verbose=0)
        np.testing.assert_array_equal(filled[:, 0], x[:, 0])
        means.append(filled[:, 1].mean())
    # Replacing x0 is no exact conditioning: it follows the known pixel, but not all of the way.
    assert 0.5 < (means[1] - means[0]) / 2 < 1.0


@pytest.mark.parametrize("name", SCHEDULES)
def test_add_noise(name, rng):
    schedule, prediction, _ = SCHEDULES[name]
    model = exact_model(schedule, PAIR, prediction, SHAPE)
    eps = rng.normal(size=X.shape)
    middle = (3, 40, 99) if hasattr(schedule, "num_steps") else tuple(np.linspace(0.1, 1, 3) * schedule.t_max)
    noised = model.add_noise(X, middle, noise=eps)
    assert noised.dtype == "float32"
    for k, t in enumerate(middle):
        expected = schedule.alpha(t) * X[k] + schedule.sigma(t) * eps[k]
        np.testing.assert_allclose(noised[k], expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(model.add_noise(X, t, noise=eps)[k], expected, rtol=1e-5, atol=1e-5)
    drawn = model.add_noise(np.zeros((500, *SHAPE)), middle[1], seed=0)
    assert abs(drawn.std() / schedule.sigma(middle[1]) - 1) < 0.05


@pytest.mark.parametrize("name", SCHEDULES)
def test_denoise_from_little_noise_gives_the_image_back(name):
    schedule, prediction, spacing = SCHEDULES[name]
    model = exact_model(schedule, PAIR, prediction, SHAPE)
    t = schedule.inverse_log_snr(2 * np.log(20))  # sigma / alpha = 0.05
    x_t = model.add_noise(X, t, seed=0)
    sampler = EulerSampler(100, spacing)
    assert np.abs(model.denoise_from(x_t, t, sampler, verbose=0) - X).max() < 0.3
    with pytest.raises(ValueError, match="`t` must be an? (integer|number) in"):
        model.denoise_from(x_t, schedule.t_max + 1, sampler)


def test_denoise_from_goes_on_where_sampling_was(rng):
    model = exact_model(VPSchedule(), PAIR, "epsilon", SHAPE)
    sampler = HeunSampler(6)
    path = model.denoising_path(3, 6, sampler, noise=rng.normal(size=X.shape), verbose=0)
    times = sampler.times(VPSchedule())
    rest = model.denoise_from(path[2], times[2], sampler, verbose=0)
    np.testing.assert_allclose(rest, path[-1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", SCHEDULES)
def test_image_to_image_varies_with_its_strength(name):
    schedule, prediction, spacing = SCHEDULES[name]
    model = exact_model(schedule, PAIR, prediction, SHAPE)
    sampler = EulerSampler(10, spacing)
    changes = [np.abs(model.image_to_image(X, s, sampler, seed=0, verbose=0) - X).mean() for s in (0.1, 1.0)]
    assert changes[0] < 0.2
    assert changes[1] > 1.5 * changes[0]


@pytest.mark.parametrize("spacing", ["karras", "log_snr", "linspace", "trailing"])
def test_image_to_image_at_full_strength_starts_at_the_first_time(spacing):
    """Also where it is the end of the schedule but for rounding."""
    model = exact_model(VPSchedule(0.5, 8.0), PAIR, "epsilon", SHAPE)
    assert np.isfinite(model.image_to_image(X, 1.0, EulerSampler(3, spacing), seed=0, verbose=0)).all()


@pytest.mark.parametrize("name", ["vp", "edm", "rectified_flow"])
def test_interpolation_ends_at_the_images(name):
    schedule, prediction, _ = SCHEDULES[name]
    model = exact_model(schedule, gaussian(), prediction, SHAPE)
    t0 = schedule.inverse_log_snr(2 * np.log(20))
    images = model.interpolate(X[:1], X[1:2], t0, points=3, sampler=EulerSampler(100), seed=0, verbose=0)
    assert images.shape == (1, 3, *SHAPE)
    np.testing.assert_allclose(images[:, 0], X[:1], atol=0.3)
    np.testing.assert_allclose(images[:, 2], X[1:2], atol=0.3)
    np.testing.assert_allclose(images[:, 1], (X[:1] + X[1:2]) / 2, atol=0.3)


MODEL = exact_model(VPSchedule(), shape=SHAPE)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: MODEL.add_noise(X, 1.5), "`t` must be a number in 1e-05 .. 1.0"),
        (lambda: MODEL.add_noise(X, [0.5, 0.5]), "`t` must be one time, or one for each of 3 images"),
        (lambda: MODEL.add_noise(X[:1], [0.5, 0.6]), "`t` must be one time, or one for each of 1 images"),
        (lambda: MODEL.add_noise(X, 0.5, noise=X[:1]), "`noise` must hold 3 draws"),
        (lambda: MODEL.add_noise(X[:, :2], 0.5), "`x0` must have shape"),
        (lambda: MODEL.image_to_image(X, 0.0), "`strength` must be > 0"),
        (lambda: MODEL.image_to_image(X, 1.5), r"`strength` must be in \[0, 1\]"),
        (lambda: MODEL.inpaint(X, MASK.astype(int)), "`mask` must be boolean"),
        (lambda: MODEL.inpaint(X, np.ones((4, 4, 4, 4), bool)), "`mask` must broadcast to"),
        (lambda: MODEL.inpaint(X, np.ones((2, 4, 4, 1), bool)), "`mask` must broadcast to"),
        (lambda: MODEL.invert(X, EulerSampler(3), iterations=0), "`iterations` must be an integer >= 1"),
        (lambda: MODEL.invert(X, EulerSampler(None)), "`steps` must be given for a schedule in continuous time"),
        (lambda: MODEL.denoise_from(X, "0.5"), "`t` must be a number in"),
    ],
)
def test_bad_input(call, match):
    with pytest.raises(ValueError, match=match):
        call()


@pytest.mark.parametrize("name", SCHEDULES)
def test_x0_is_predicted_at_any_times(name):
    schedule, prediction, _ = SCHEDULES[name]
    model = exact_model(schedule, PAIR, prediction, SHAPE)
    times = np.asarray(schedule.times_at(np.array([0.1, 0.5, 0.9])))
    x_t = model.add_noise(X, times, seed=0)
    column = times.reshape(3, 1, 1, 1)
    expected, _ = PAIR.predict(x_t.astype("float64"), schedule.alpha(column), schedule.sigma(column))
    np.testing.assert_allclose(model.predict_x0(x_t, times), expected, rtol=1e-3, atol=2e-3)
    np.testing.assert_allclose(model.predict_x0(x_t[1:2], times[1], batch_size=1), expected[1:2], rtol=1e-3, atol=2e-3)


def test_the_predictions_along_a_trajectory():
    model = exact_model(LinearSchedule(), PAIR, "epsilon", SHAPE)
    sampler, noise = DDIMSampler(6), np.random.default_rng(0).normal(size=X.shape).astype("float32")
    options = {"frames": 3, "sampler": sampler, "noise": noise, "seed": 0, "verbose": 0}
    path, predicted = (model.denoising_path(3, of=of, **options) for of in ("x_t", "x0"))
    times = sampler.times(model.schedule)
    for k, step in enumerate((0, 2, 4)):
        np.testing.assert_allclose(predicted[k], model.predict_x0(path[k], times[step]), atol=1e-5)
    np.testing.assert_array_equal(predicted[-1], path[-1])


def test_predictions_with_guidance_extrapolate():
    network = UNet((8, 8, 1), (4,), 1, num_classes=10)
    model = DDPM(network, LinearSchedule(10), condition_dropout=0.1)
    randomize_weights(model)
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype("float32")
    none, one, more = (model.predict_x0(images, 5, 1, ClassifierFreeGuidance(scale)) for scale in (0.0, 1.0, 2.5))
    np.testing.assert_allclose(one, model.predict_x0(images, 5, 1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(more, none + 2.5 * (one - none), rtol=1e-3, atol=1e-3)
    assert np.abs(one - none).max() > 1e-4


def test_bad_arguments_of_predictions():
    model = exact_model(LinearSchedule(), PAIR, "epsilon", SHAPE)
    for call, match in (
        (lambda: model.predict_x0(X, 1000), "`t` must be an integer in 0 .. 999"),
        (lambda: model.predict_x0(X, [1, 2]), "`t` must be one time, or one for each of 3 images"),
        (lambda: model.predict_x0(X[:, :2], 3), "`x_t` must have shape"),
        (lambda: model.denoising_path(2, of="eps"), "`of` must be one of 'x_t', 'x0'"),
    ):
        with pytest.raises(ValueError, match=match):
            call()


def test_discrete_steps():
    np.testing.assert_array_equal(LinearSchedule(4).steps, [0, 1, 2, 3])
