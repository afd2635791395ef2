import functools
import itertools

import keras
import numpy as np
import pytest
from keras import ops
from scipy.stats import gumbel_r, kstest

from keras_gen.core.compiled import compiled
from keras_gen.core.fixtures import to_numpy
from keras_gen.estimators import gumbel_rao, rebar, reinforce, relax, straight_through_gumbel
from keras_gen.latent.estimators.categorical import conditional_gumbels, draw
from keras_gen.latent.gumbel import gumbel_noise
from keras_gen.layers import MovingAverage
from keras_gen.ops import gradient, gumbel_softmax

ROWS = 20_000
LOGITS = np.array([[0.5, -0.3, 0.0], [-1.0, 1.0, 0.3]], "float32")
WEIGHTS = np.array([[0.9, -0.4, 0.2], [0.1, 0.8, -0.6]], "float32")


def f(b):
    """A function of two variables that does not split into a sum."""
    return ops.exp(ops.sum(ops.multiply(b, WEIGHTS), axis=(1, 2))) + b[:, 0, 0] * b[:, 1, 1]


def critic(z):
    return ops.sum(ops.tanh(ops.multiply(z, WEIGHTS)), axis=(1, 2))


AVERAGE = MovingAverage()
AVERAGE.total.assign(0.01)
AVERAGE.mass.assign(0.01)

UNBIASED = {
    "reinforce": reinforce,
    "reinforce_average": lambda f, logits, seed: reinforce(f, logits, AVERAGE, num_samples=2, seed=seed),
    "reinforce_own_baseline": lambda f, logits, seed: reinforce(f, logits, lambda values: 1.5, seed=seed),
    "reinforce_leave_one_out": lambda f, logits, seed: reinforce(f, logits, "leave_one_out", num_samples=3, seed=seed),
    "rebar": lambda f, logits, seed: rebar(f, logits, temperature=0.4, eta=0.8, seed=seed),
    "relax": lambda f, logits, seed: relax(f, logits, critic, seed=seed),
}
ALL = {
    **UNBIASED,
    "straight_through_gumbel": straight_through_gumbel,
    "gumbel_rao": lambda f, logits, seed: gumbel_rao(f, logits, num_samples=3, seed=seed),
}


def rows(logits, count=ROWS):
    return ops.convert_to_tensor(np.broadcast_to(logits, (count, *logits.shape)).astype("float32"))


def run(function, x):
    """Compiled, which on torch means without recording a gradient; and quicker than step by step on JAX."""
    model = keras.Sequential()
    model.compile()
    return keras.tree.map_structure(to_numpy, compiled(model, function)(x))


def estimates(estimator, logits=LOGITS):
    """Returns one estimate per row."""
    return run(lambda x: gradient(lambda logits: estimator(f, logits, seed=1), x), rows(logits))


@functools.cache
def estimates_of(name):
    return estimates(ALL[name])


def exact(logits=LOGITS):
    """Enumerates E f(b) and its gradient."""
    variables, classes = logits.shape
    b = np.eye(classes, dtype="float32")[list(itertools.product(range(classes), repeat=variables))]
    theta = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    weights = np.prod((b * theta).sum(-1), axis=-1) * to_numpy(f(ops.convert_to_tensor(b)))
    return weights.sum(), np.einsum("b,bvk->vk", weights, b - theta)


def assert_mean(samples, expected):
    error = samples.std(0) / np.sqrt(len(samples))
    assert np.all(np.abs(samples.mean(0) - expected) < 5 * error + 1e-6)


@pytest.mark.parametrize("name", UNBIASED)
def test_mean_is_the_enumerated_gradient(name):
    assert_mean(estimates_of(name), exact()[1])


@pytest.mark.parametrize("name", ALL)
def test_value_is_f_of_draws(name):
    calls = {"reinforce_average": 2, "reinforce_leave_one_out": 3}.get(name, 1)

    def watched(logits):
        seen = []
        values = ALL[name](lambda b: seen.append(b) or f(b), logits, seed=1)
        assert len(seen) == calls or name == "rebar"  # which goes on to relaxed b
        return values, seen[:calls], [f(b) for b in seen[:calls]]

    values, drawn, expected = run(watched, rows(LOGITS))
    assert values.dtype == np.float32
    assert_mean(values, exact()[0])
    np.testing.assert_allclose(values, np.mean(expected, axis=0), rtol=1e-5)
    assert all(np.isin(b, (0, 1)).all() and (b.sum(-1) == 1).all() for b in drawn)


@pytest.mark.parametrize("name", ALL)
def test_extreme_logits_are_finite(name):
    samples = estimates(ALL[name], np.array([[1e4, -1e4, 0.0], [-80.0, 80.0, 0.0]], "float32"))
    assert np.isfinite(samples).all()
    assert np.abs(samples).max() < 1e-4  # b is certain


def test_one_variable_in_half_precision():
    values = run(
        lambda x: relax(lambda b: b[:, 0], ops.cast(x, "bfloat16"), lambda z: z[:, 1], seed=1), rows(LOGITS[0])
    )
    assert values.dtype == np.float32


def test_conditional_gumbels_have_the_distribution_of_gumbels():
    logits = rows(LOGITS[0])
    noise = gumbel_noise((2, ROWS, 3), seed=3)
    b = draw(logits, noise[0])
    z = to_numpy(conditional_gumbels(logits, b, noise[1]))
    np.testing.assert_array_equal(z.max(-1), (z * to_numpy(b)).sum(-1))
    location = LOGITS[0] - np.log(np.exp(LOGITS[0]).sum())
    for i in range(3):
        assert kstest(z[:, i], gumbel_r(loc=location[i]).cdf).pvalue > 1e-3
    gaps = (z[:, 0] - z[:, 1], to_numpy(noise[0])[:, 0] - to_numpy(noise[0])[:, 1] + location[0] - location[1])
    assert kstest(*gaps).pvalue > 1e-3


def test_straight_through_is_hard_gumbel_softmax():
    expected = estimates(lambda f, logits, seed: f(gumbel_softmax(logits, 0.7, hard=True, seed=seed)))
    actual = estimates(lambda f, logits, seed: straight_through_gumbel(f, logits, 0.7, seed))
    np.testing.assert_array_equal(actual, expected)


def test_gumbel_rao_has_the_mean_of_straight_through_and_less_variance():
    through = estimates(lambda f, logits, seed: straight_through_gumbel(f, logits, 0.5, seed))
    one, ten = (
        estimates(lambda f, logits, seed, n=n: gumbel_rao(f, logits, 0.5, num_samples=n, seed=seed)) for n in (1, 10)
    )
    for samples in (one, ten):
        error = np.sqrt((samples.var(0) + through.var(0)) / ROWS)
        assert np.all(np.abs(samples.mean(0) - through.mean(0)) < 5 * error)
    np.testing.assert_allclose(one.var(0), through.var(0), rtol=0.1)
    assert np.all(ten.var(0) < 0.9 * through.var(0))
    assert np.abs(through.mean(0) - exact()[1]).max() > 0.02  # biased, both


def test_baselines_lower_the_variance():
    variance = {name: estimates_of(name).var(0).sum() for name in UNBIASED}
    assert variance["reinforce_own_baseline"] < variance["reinforce"]
    assert variance["reinforce_leave_one_out"] < variance["reinforce"] / 3
    assert variance["rebar"] < variance["reinforce"]


def test_moving_average_gives_the_average_before():
    layer = MovingAverage(0.9)
    outputs = [to_numpy(layer(ops.full((2, 4), value), training=True)) for value in (1.0, 2.0, 3.0)]
    assert outputs[0].shape == (2, 4)
    expected = [0, 1, (0.9 * 1 + 2) / 1.9]
    np.testing.assert_allclose([output[0, 0] for output in outputs], expected, rtol=1e-6)
    now = to_numpy(layer(ops.zeros(1)))
    np.testing.assert_array_equal(to_numpy(layer(ops.zeros(1))), now)


def test_moving_average_without_decay_is_the_mean():
    layer = MovingAverage(decay=None)
    outputs = [to_numpy(layer(ops.full((2, 4), value), training=True))[0, 0] for value in (2.0, 4.0, 9.0)]
    np.testing.assert_array_equal([*outputs, to_numpy(layer(ops.zeros((2, 4))))[0, 0]], [0, 2, 3, 5])


def test_the_earlier_name_of_decay():
    assert MovingAverage(momentum=0.9).get_config()["decay"] == 0.9
    assert MovingAverage.from_config({"momentum": 0.9}).decay == 0.9


class Learner(keras.Model):
    """Has weights of three kinds: logits, those of f, and those of a critic (or eta, of REBAR)."""

    def __init__(self, estimator):
        super().__init__()
        self.estimator = estimator
        self.seed_generator = keras.random.SeedGenerator(1)
        self.average = MovingAverage(0.9)
        self.net = keras.Sequential([keras.Input((2, 3)), keras.layers.Flatten(), keras.layers.Dense(8, "tanh")])
        self.net.add(keras.layers.Dense(1))
        self.logits = self.add_weight(shape=(2, 3), initializer="zeros")
        self.scale = self.add_weight(shape=(), initializer="ones")
        self.eta = self.add_weight(shape=(), initializer="zeros")
        self.built = True

    def f(self, b):
        return self.scale * f(b)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        logits = ops.broadcast_to(self.logits, (ops.shape(x)[0], 2, 3))
        return ops.mean(self.estimator(self, logits, training))

    def call(self, x):
        return x


LEARNERS = {
    "reinforce": lambda model, logits, training: reinforce(
        model.f, logits, lambda values: model.average(values, training=training), seed=model.seed_generator
    ),
    "leave_one_out": lambda model, logits, training: reinforce(
        model.f, logits, "leave_one_out", 2, seed=model.seed_generator
    ),
    "rebar": lambda model, logits, training: rebar(model.f, logits, eta=model.eta, seed=model.seed_generator),
    "relax": lambda model, logits, training: relax(
        model.f, logits, lambda z: model.net(z)[:, 0], seed=model.seed_generator
    ),
    "straight_through": lambda model, logits, training: straight_through_gumbel(
        model.f, logits, seed=model.seed_generator
    ),
    "gumbel_rao": lambda model, logits, training: gumbel_rao(model.f, logits, seed=model.seed_generator),
}


def test_fit_lowers_the_objective():
    model = Learner(LEARNERS["reinforce"])
    model.scale.trainable = False
    model.logits.assign(LOGITS)
    model.compile(keras.optimizers.Adam(0.05))
    x = np.zeros((640, 1), "float32")
    first = model.evaluate(x, verbose=0)
    model.fit(x, batch_size=32, epochs=4, verbose=0)
    assert model.evaluate(x, verbose=0) < first - 0.3
    np.testing.assert_allclose(to_numpy(model.average.mass), 1 - 0.9**80, rtol=1e-4)  # not moved by evaluate


@pytest.mark.parametrize("name", ["rebar", "relax"])
def test_what_is_learned_along_lowers_the_variance(name):
    model = Learner(LEARNERS[name])
    model.logits.assign(LOGITS)
    model.logits.trainable = model.scale.trainable = False
    model.compile(keras.optimizers.Adam(0.04))

    def variance():
        def estimate(logits):
            if name == "rebar":
                return rebar(model.f, logits, eta=model.eta, seed=1)
            return relax(model.f, logits, lambda z: model.net(z)[:, 0], seed=1)

        samples = run(lambda x: gradient(estimate, x), rows(LOGITS))
        assert_mean(samples, exact()[1])
        return samples.var(0).sum()

    before = variance()
    model.fit(np.zeros((6400, 1), "float32"), batch_size=64, verbose=0)
    assert variance() < 0.5 * before


@pytest.mark.parametrize("name", LEARNERS)
def test_gradients_reach_the_right_weights(name):
    """In one step the weight of f moves by its own gradient, E f(b), although critic and eta learn too."""
    model = Learner(LEARNERS[name])
    model.logits.assign(LOGITS)
    model.eta.assign(0.5)
    model.compile(keras.optimizers.SGD(0.1))
    net = [to_numpy(weight).copy() for weight in model.net.weights]
    model.fit(np.zeros((ROWS, 1), "float32"), batch_size=ROWS, verbose=0)
    np.testing.assert_allclose(to_numpy(model.scale), 1 - 0.1 * exact()[0], atol=5e-3)
    assert np.abs(to_numpy(model.logits) - LOGITS).max() > 1e-3
    moved = any(np.abs(to_numpy(weight) - old).max() > 0 for weight, old in zip(model.net.weights, net, strict=True))
    assert moved == (name == "relax")
    assert (float(to_numpy(model.eta)) != 0.5) == (name == "rebar")


def test_eta_gets_the_gradient_of_the_squared_norm():
    def loss(eta):
        return rebar(f, rows(LOGITS), eta=eta, seed=1)

    def norm(eta):
        return np.square(estimates(lambda f, logits, seed: rebar(f, logits, eta=eta, seed=seed)), dtype="float64").sum()

    slope = (norm(0.4) - norm(0.2)) / 0.2  # exact: the norm is quadratic in eta
    actual = run(lambda eta: gradient(loss, eta), ops.convert_to_tensor(0.3))
    np.testing.assert_allclose(actual, slope, rtol=1e-3)


@pytest.mark.parametrize("name", ALL)
def test_outputs_and_logits_are_checked(name):
    with pytest.raises(ValueError, match=r"`f` must return one value per sample, shape \(20000,\)"):
        run(lambda x: ALL[name](lambda b: f(b)[:, None], x, seed=1), rows(LOGITS))
    with pytest.raises(ValueError, match="`logits` must be floating-point"):
        ALL[name](f, ops.ones((4, 3), dtype="int32"), seed=1)
    for shape in ((3,), (4, 1)):
        with pytest.raises(
            ValueError, match=r"`logits` must have shape \(batch, ..., classes\) with at least 2 classes"
        ):
            ALL[name](f, ops.ones(shape), seed=1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: reinforce(f, x, "mean"), "`baseline` must be one of 'none', 'leave_one_out'"),
        (
            lambda x: reinforce(f, x, lambda values: ops.ones((4, 1)), seed=1),
            "`baseline` must return a tensor that broadcasts to shape",
        ),
        (lambda x: reinforce(f, x, num_samples=0), "`num_samples` must be an integer >= 1"),
        (lambda x: reinforce(f, x, "leave_one_out"), "`num_samples` must be >= 2 for leave_one_out"),
        (lambda x: relax(f, x, None), "`critic` must be a function"),
        (lambda x: relax(f, x, lambda z: z, seed=1), "`critic` must return one value per sample"),
        (lambda x: rebar(f, x, temperature=0), "`temperature` must be > 0"),
        (lambda x: rebar(f, x, eta=float("nan")), "`eta` must be finite"),
        (lambda x: gumbel_rao(f, x, temperature=-1.0), "`temperature` must be > 0"),
        (lambda x: gumbel_rao(f, x, num_samples=0), "`num_samples` must be an integer >= 1"),
        (lambda x: straight_through_gumbel(f, x, temperature=0.0), "`temperature` must be > 0"),
        (lambda x: MovingAverage(1.0), r"`decay` must be in \(0, 1\)"),
    ],
)
def test_arguments_are_checked(call, message):
    with pytest.raises(ValueError, match=message):
        run(call, rows(LOGITS, 4))
