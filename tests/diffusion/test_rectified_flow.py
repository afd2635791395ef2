"""Rectified flow on points of the plane: pairing, reflow, straightness."""

import keras
import numpy as np
import pytest
from keras import ops
from mixture import exact_model, gaussian
from scipy.optimize import linear_sum_assignment

from keras_gen.core.fixtures import to_numpy
from keras_gen.models import RectifiedFlow
from keras_gen.samplers import EulerSampler
from keras_gen.schedules import EDMSchedule, LogitNormalTime, RectifiedFlowSchedule, Shifted


def mlp(width=64, condition=False):
    x, t = keras.Input((2,)), keras.Input(())
    inputs = [x, t]
    h = [x, keras.layers.Reshape((1,))(keras.layers.Rescaling(1e-3)(t))]
    if condition:
        inputs.append(keras.Input((), dtype="int32"))
        h.append(keras.layers.Embedding(2, 4)(inputs[2]))
    h = keras.layers.Concatenate()(h)
    for _ in range(3):
        h = keras.layers.Dense(width, "silu")(h)
    return keras.Model(inputs, keras.layers.Dense(2)(h))


def two_spots(n, rng):
    labels = rng.integers(0, 2, n)
    centres = np.array([[-0.8, 0.0], [0.8, 0.5]])
    return (centres[labels] + 0.25 * rng.normal(size=(n, 2))).astype("float32"), labels.astype("int32")


def fitted(x, y=None, epochs=30, batch_size=256, rate=3e-3, **options):
    keras.utils.set_random_seed(0)
    model = RectifiedFlow(mlp(condition=y is not None), seed=0, **options)
    model.compile(keras.optimizers.Adam(rate))
    model.fit(x, y, batch_size=batch_size, epochs=epochs, verbose=0)
    return model


def one_step_error(model, rng):
    """RMS distance of the samples that one step and 100 steps make of the same noise."""
    options = {"noise": rng.normal(size=(256, 2)), "batch_size": 256, "verbose": 0}
    one, many = (model.sample(256, EulerSampler(steps), **options) for steps in (1, 100))
    return np.sqrt(np.mean((one - many) ** 2))


def test_reflow_straightens(rng):
    """To an eighth of the error of one step."""
    model = fitted(two_spots(2048, rng)[0], epochs=15)
    before, bend = one_step_error(model, np.random.default_rng(1)), model.straightness(256, seed=0, verbose=0)
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(5e-3, 320)))
    model.reflow(2048, sampling_seed=1, sampling_batch_size=2048, epochs=40, batch_size=256, verbose=0)
    after = one_step_error(model, np.random.default_rng(1))
    assert after < before / 8, (before, after)
    assert model.straightness(256, seed=0, verbose=0) < bend / 10
    samples = model.sample(500, EulerSampler(1), seed=0, batch_size=500, verbose=0)
    assert abs(samples.std() - two_spots(4000, rng)[0].std()) < 0.1


def test_straightness_is_the_closed_form():
    """N(0, s^2) data: x_t of one image is deviation(t) times its noise, so that S is an integral of one number."""
    s = 0.5
    model = exact_model(RectifiedFlowSchedule(), gaussian(0.0, s), "velocity")
    t = np.linspace(0, 1, 2001)
    speed = ((1 - t) * -(s**2) + t) / np.sqrt((1 - t) ** 2 * s**2 + t**2)  # d deviation / dt
    expected = np.trapezoid((1 - s - speed) ** 2, t)  # times E eps^2 = 1
    assert model.straightness(4000, seed=0, batch_size=4000, verbose=0) == pytest.approx(expected, rel=0.05)
    shifted = exact_model(Shifted(RectifiedFlowSchedule()), gaussian(0.0, s), "velocity")
    assert shifted.straightness(4000, seed=0, batch_size=4000, verbose=0) == pytest.approx(expected, rel=0.1)


def test_a_straight_flow_has_straightness_0():
    """Of one point: velocity is eps - x0."""
    model = exact_model(RectifiedFlowSchedule(), gaussian(0.3, 1e-4), "velocity")
    assert model.straightness(50, steps=10, seed=0, verbose=0) < 1e-4


def test_optimal_pairing_moves_noise_and_leaves_data(rng):
    x, _ = two_spots(64, rng)
    pairs = []
    for pairing in ("random", "optimal"):
        model = RectifiedFlow(mlp(8), pairing=pairing, seed=0)
        x0, eps = map(to_numpy, model.draw_pair(ops.convert_to_tensor(x)))
        np.testing.assert_array_equal(x0, x)
        pairs.append(eps)
    # the same noise, in another order
    np.testing.assert_allclose(np.sort(pairs[0], axis=0), np.sort(pairs[1], axis=0), rtol=1e-6)
    random, optimal = (np.sum((x - eps) ** 2) for eps in pairs)
    cost = np.sum((x[:, None] - pairs[0]) ** 2, axis=-1)
    least = cost[linear_sum_assignment(cost)].sum()
    assert least - 1e-3 <= optimal < 1.02 * least < 0.8 * random


def test_labels_stay_with_their_data(rng):
    """torchcfm's issues 30 and 33: with them shuffled, both labels would give both spots."""
    x, labels = two_spots(512, rng)
    model = fitted(x, labels, pairing="optimal", batch_size=8, epochs=2, rate=1e-2)
    means = [
        model.sample(200, EulerSampler(10), condition=label, seed=0, batch_size=200, verbose=0)[:, 0].mean()
        for label in (0, 1)
    ]
    # Pairing lets few noises of the right meet data of the left, so that the means are a little drawn together.
    assert means[0] < -0.3
    assert means[1] > 0.3


def test_fit_on_pairs_learns_their_line(rng):
    """All data at one point c, noise at d: the velocity is d - c wherever the network is asked."""
    c, d = np.tile([[0.5, -0.5]], (256, 1)).astype("float32"), np.tile([[1.0, 1.0]], (256, 1)).astype("float32")
    keras.utils.set_random_seed(0)
    model = RectifiedFlow(mlp(16), time_sampler=LogitNormalTime(), seed=0)
    model.compile(keras.optimizers.Adam(1e-2))
    losses = model.fit((c, d), epochs=30, batch_size=64, verbose=0).history["loss"]
    assert losses[-1] < 1e-3 * losses[0]
    np.testing.assert_allclose(model.sample(1, EulerSampler(4), noise=d[:1], verbose=0), c[:1], atol=0.05)


def test_reflow_takes_conditions(rng):
    x, labels = two_spots(256, rng)
    model = fitted(x, labels, epochs=1)
    history = model.reflow(64, condition=np.arange(64) % 2, sampler=EulerSampler(2), epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()


def test_loss_is_that_of_the_velocity(rng):
    """Of the exact denoiser, E |velocity|^2 - E |its estimate|^2 = mean over t of std^2 / (alpha^2 std^2 + sigma^2)."""
    for schedule in (RectifiedFlowSchedule(), Shifted(RectifiedFlowSchedule())):
        model = exact_model(schedule, gaussian(0.3, 0.5), "velocity")
        x = rng.normal(0.3, 0.5, (20_000, 2)).astype("float32")
        loss = float(model.compute_loss(ops.convert_to_tensor(x), training=False))
        t = np.linspace(1e-5, 1, 2001)
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        assert loss == pytest.approx(np.mean(0.25 / (alpha**2 * 0.25 + sigma**2)), rel=0.05)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: RectifiedFlow(mlp(4), EDMSchedule()), "`schedule` must be a RectifiedFlowSchedule"),
        (lambda: RectifiedFlow(mlp(4), pairing="ot"), "`pairing` must be one of 'random', 'optimal'"),
        (lambda: RectifiedFlow(mlp(4), time_sampler="uniform"), "`time_sampler` must be a TimeSampler or None"),
        (lambda: RectifiedFlow(mlp(4)).reflow(0), "`n` must be an integer >= 1"),
        (lambda: RectifiedFlow(mlp(4)).straightness(10, steps=0), "`steps` must be an integer >= 1"),
        (lambda: RectifiedFlow(mlp(4, True)).reflow(8, verbose=0), "`condition` must be given"),
        (
            lambda: RectifiedFlow(mlp(4)).fit((np.zeros((4, 2), "float32"), np.zeros((4, 3), "float32"))),
            r"`x` must have shape \(n, 2\)",
        ),
    ],
)
def test_bad_input(call, match):
    with pytest.raises(ValueError, match=match):
        call()
