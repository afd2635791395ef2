import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops
from scipy.special import gammaln, log_softmax, logsumexp, softmax
from scipy.stats import chisquare, kstest

from keras_gen.core.fixtures import save_and_load, to_numpy
from keras_gen.latent.gumbel import gumbel_noise, uniform_noise
from keras_gen.layers import GaussianSampling, GumbelSoftmax
from keras_gen.losses import categorical_kl, concrete_kl
from keras_gen.ops import concrete_log_prob, gradient, gumbel_softmax, straight_through

HALVING = keras.optimizers.schedules.ExponentialDecay(1.0, 1, 0.5)


def tensor(x, dtype="float32"):
    return ops.cast(np.asarray(x), dtype)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_value_of_hard_and_gradient_of_soft(dtype):
    soft = tensor([0.1, 1e4, -3.3], dtype)
    out = straight_through(np.array([1, 0, 1]), soft)
    assert keras.backend.standardize_dtype(out.dtype) == dtype
    np.testing.assert_array_equal(to_numpy(out), [1, 0, 1])
    slope = gradient(lambda soft: straight_through(np.array([1, 0, 1]), soft) * tensor([1, 2, 3], dtype), soft)
    np.testing.assert_array_equal(to_numpy(slope), [1, 2, 3])


def test_straight_through_gives_no_gradient_to_hard():
    hard = tensor([1.0, 2.0])
    slope = gradient(lambda hard: straight_through(hard, 0 * hard), hard)
    np.testing.assert_array_equal(to_numpy(slope), [0, 0])
    with pytest.raises(ValueError, match=r"`hard` must have the shape of soft, \(3,\). Received: hard=shape \(1,\)"):
        straight_through(np.zeros(1), tensor(np.zeros(3)))


def test_noise_is_gumbel_and_never_infinite(monkeypatch):
    g = to_numpy(gumbel_noise((100_000,), seed=0))
    assert kstest(g, "gumbel_r").pvalue > 1e-3
    u = to_numpy(uniform_noise((1_000_000,), seed=0))
    assert u.min() > 0
    assert u.max() < 1
    for extreme in (0.0, 1.0):  # what a generator may give once in some millions of draws
        monkeypatch.setattr(keras.random, "uniform", lambda shape, **_: ops.full(shape, extreme))  # noqa: B023
        assert np.isfinite(to_numpy(gumbel_noise((3,), seed=0))).all()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("classes", [2, 300, 65_536])
@pytest.mark.parametrize("temperature", [1e-3, 1.0])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_values_and_gradients_are_finite(dtype, classes, temperature, scale):
    logits = np.zeros((2, classes), "float32")
    logits[:, 0], logits[:, -1] = scale, -scale
    for hard in (False, True):

        def total(x):
            return gumbel_softmax(x, temperature, hard, seed=0) * tensor(np.arange(classes) % 3, dtype)  # noqa: B023

        y = gumbel_softmax(tensor(logits, dtype), temperature, hard, seed=0)
        assert keras.backend.standardize_dtype(y.dtype) == dtype
        values = to_numpy(y)
        assert np.isfinite(values).all()
        np.testing.assert_allclose(values.sum(-1), 1, atol=0.02 if dtype != "float32" else 1e-4)
        assert np.isfinite(to_numpy(gradient(total, tensor(logits, dtype)))).all()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("axis", [-1, 1, 0])
def test_hard_is_one_hot_with_the_soft_gradient(dtype, axis, rng):
    logits, noise = tensor(rng.normal(size=(7, 4, 5)), dtype), tensor(rng.gumbel(size=(7, 4, 5)))
    weight = tensor(rng.normal(size=(7, 4, 5)), dtype)
    hard = to_numpy(gumbel_softmax(logits, 0.7, True, axis, noise))
    assert set(np.unique(hard)) == {0.0, 1.0}
    np.testing.assert_array_equal(hard.sum(axis), np.ones_like(hard.sum(axis)))
    np.testing.assert_array_equal(hard.argmax(axis), (to_numpy(logits) + to_numpy(noise)).argmax(axis))
    slopes = [
        to_numpy(gradient(lambda x: gumbel_softmax(x, 0.7, one, axis, noise) * weight, logits))  # noqa: B023
        for one in (False, True)
    ]
    np.testing.assert_array_equal(*slopes)
    assert np.abs(slopes[0]).max() > 0.01


@pytest.mark.parametrize("temperature", [0.2, 1.0, 4.0])
def test_soft_is_the_formula(temperature, rng):
    logits, noise = rng.normal(size=(6, 5)), rng.gumbel(size=(6, 5))
    y = to_numpy(gumbel_softmax(tensor(logits), temperature, noise=tensor(noise)))
    np.testing.assert_allclose(y, softmax((logits + noise) / temperature, -1), rtol=1e-4, atol=1e-6)
    as_tensor = gumbel_softmax(tensor(logits), tensor(temperature), noise=tensor(noise))
    np.testing.assert_allclose(to_numpy(as_tensor), y, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_classes_are_drawn_as_often_as_softmax_says(dtype):
    p = np.array([0.5, 0.25, 0.125, 0.0625, 0.0625])
    logits = tensor(np.broadcast_to(np.log2(p) * np.float32(np.log(2)), (40_000, 5)), dtype)
    counts = to_numpy(gumbel_softmax(logits, 0.5, hard=True, seed=3)).sum(0)
    assert chisquare(counts, 40_000 * softmax(to_numpy(logits)[0].astype("float64"))).pvalue > 1e-3


def test_one_seed_gives_one_draw():
    logits = tensor(np.zeros((3, 4)))
    draws = [to_numpy(gumbel_softmax(logits, seed=seed)) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert np.abs(draws[0] - draws[2]).max() > 0.01
    layers = [GumbelSoftmax(seed=1) for _ in range(2)]
    first, second = (to_numpy(layer(logits)) for layer in layers)
    np.testing.assert_array_equal(first, second)
    assert np.abs(to_numpy(layers[0](logits)) - first).max() > 0.01


@pytest.mark.parametrize(
    ("use", "match"),
    [
        (lambda x: gumbel_softmax(x, 0), "`temperature` must be > 0 and finite. Received: temperature=0"),
        (lambda x: gumbel_softmax(x, -1.0), "`temperature` must be > 0 and finite. Received: temperature=-1.0"),
        (lambda x: gumbel_softmax(x, np.float32(0)), "`temperature` must be > 0"),
        (lambda x: gumbel_softmax(x, float("nan")), "`temperature` must be > 0"),
        (
            lambda x: gumbel_softmax(ops.cast(x, "int32")),
            "`logits` must be floating-point. Received: logits=dtype int32",
        ),
        (lambda x: gumbel_softmax(x[:, :1]), r"`logits` must have at least 2 classes. Received: logits=shape \(3, 1\)"),
        (lambda x: gumbel_softmax(x[:1], axis=0), "`logits` must have at least 2 classes"),
        (lambda x: gumbel_softmax(x, noise=x[0]), r"`noise` must have shape \(3, 4\). Received: noise=shape \(4,\)"),
        (lambda x: GumbelSoftmax(0.0), "`temperature` must be > 0"),
        (lambda x: GumbelSoftmax("cold"), "`temperature` must be > 0. Received: temperature='cold'"),
        (
            lambda x: GumbelSoftmax(keras.optimizers.schedules.PolynomialDecay(0.0, 10)),
            "`temperature` must be > 0. Received: temperature=0.0",
        ),
        (lambda x: GumbelSoftmax()(x[:, :1]), "`logits` must have at least 2 classes"),
        (lambda x: GumbelSoftmax()(ops.cast(x, "int32")), "`logits` must be floating-point"),
    ],
)
def test_bad_input(use, match):
    with pytest.raises(ValueError, match=match):
        use(tensor(np.zeros((3, 4))))


def temperature_model(schedule=HALVING, **options):
    inputs = keras.Input((4,))
    outputs = keras.layers.Dense(1, name="head")(GumbelSoftmax(schedule, seed=0, name="gumbel", **options)(inputs))
    model = keras.Model(inputs, outputs)
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


def temperature(model):
    layer = model.get_layer("gumbel").temperature
    return int(to_numpy(layer.step)), float(to_numpy(layer()))


@pytest.mark.parametrize("options", [{}, {"hard": True}, {"dtype": "mixed_bfloat16"}])
def test_temperature_falls_in_fit_alone_and_goes_on_from_a_file(options, rng):
    model = temperature_model(**options)
    x, y = rng.normal(size=(12, 4)).astype("float32"), np.zeros((12, 1), "float32")
    assert temperature(model) == (0, 1.0)
    model.fit(x, y, batch_size=4, verbose=0)
    assert temperature(model) == (3, 0.125)
    model.evaluate(x, y, batch_size=4, verbose=0)
    model.predict(x, verbose=0)
    assert temperature(model) == (3, 0.125)
    loaded = save_and_load(model)
    assert temperature(loaded) == (3, 0.125)
    loaded.fit(x, y, batch_size=4, epochs=2, verbose=0)
    assert temperature(loaded) == (9, pytest.approx(2**-9))
    loaded.fit(x, y, batch_size=4, epochs=2, verbose=0)
    assert temperature(loaded) == (15, pytest.approx(1e-3))  # no lower


def test_the_schedule_is_what_the_layer_uses():
    logits, noise = tensor(np.zeros((50, 4))), {}
    layer = GumbelSoftmax(HALVING, seed=0)
    for step in range(3):
        fresh = keras.random.SeedGenerator(0)
        draw = to_numpy(layer(logits, training=True))
        for _ in range(step):
            uniform_noise((50, 4), fresh)
        noise = gumbel_noise((50, 4), fresh)
        np.testing.assert_allclose(draw, softmax(to_numpy(noise) / 0.5**step, -1), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.02, 0.5, 2.0])
def test_density_integrates_to_one(temperature):
    """Two classes, over the difference of their logarithms; log y_2 = -700 is no obstacle."""
    logits = np.array([0.7, -0.4], "float32")
    width = 41 / temperature
    difference = np.linspace(-width, width, 400_001)
    log_y = log_softmax(np.stack([difference, 0 * difference], -1), -1).astype("float32")
    density = np.exp(to_numpy(concrete_log_prob(log_y, logits, temperature)).astype("float64"))
    assert density.sum() * (difference[1] - difference[0]) == pytest.approx(1, abs=1e-3)
    # d/d difference of P(difference < a): that of a logistic variable
    where = 0.3 / temperature
    z = temperature * where - (logits[0] - logits[1])
    exact = temperature * np.exp(-z) / (1 + np.exp(-z)) ** 2
    log_where = log_softmax([where, 0.0]).astype("float32")
    np.testing.assert_allclose(np.exp(to_numpy(concrete_log_prob(log_where, logits, temperature))), exact, rtol=1e-4)


def log_prob_by_hand(log_y, logits, temperature):
    a = logits - temperature[..., None] * log_y
    K = log_y.shape[-1]
    return gammaln(K) + (K - 1) * np.log(temperature) + a.sum(-1) - K * logsumexp(a, axis=-1)


@settings(max_examples=15, deadline=None)
@given(temperature=st.floats(1e-3, 10), classes=st.integers(2, 6), scale=st.floats(0, 20), seed=st.integers(0, 99))
def test_density_is_the_formula(temperature, classes, scale, seed):
    rng = np.random.default_rng(seed)
    logits = scale * rng.normal(size=(3, classes)).astype("float32")
    log_y = log_softmax((logits + rng.gumbel(size=logits.shape)) / temperature, -1).astype("float32")
    temperatures = np.full(3, temperature, "float32")
    expected = log_prob_by_hand(log_y.astype("float64"), logits.astype("float64"), temperatures.astype("float64"))
    for given_temperature in (temperature, temperatures):
        actual = to_numpy(concrete_log_prob(log_y, logits, given_temperature))
        np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-3)


def test_density_has_gradients_at_low_temperature():
    logits = tensor([[1e3, -1e3, 0.0]])
    log_y = log_softmax(np.array([[2e6, -2e6, 0.0]]), -1).astype("float32")
    assert np.isfinite(to_numpy(concrete_log_prob(log_y, logits, 1e-3))).all()
    slope = gradient(lambda logits: concrete_log_prob(log_y, logits, 1e-3), logits)
    assert np.isfinite(to_numpy(slope)).all()


def test_categorical_divergence_is_the_sum_over_classes(rng):
    logits_q, logits_p = rng.normal(0, 3, (2, 4, 5)), rng.normal(0, 3, (2, 4, 5))
    q, p = softmax(logits_q, -1), softmax(logits_p, -1)
    actual = categorical_kl(tensor(logits_q), tensor(logits_p))
    np.testing.assert_allclose(to_numpy(actual), (q * np.log(q / p)).sum(-1), rtol=1e-4, atol=1e-6)
    uniform = to_numpy(categorical_kl(tensor(logits_q)))
    np.testing.assert_allclose(uniform, (q * np.log(q)).sum(-1) + np.log(5), rtol=1e-4, atol=1e-6)
    sure = to_numpy(categorical_kl(tensor([[1e4, 0, 0, -1e4]])))
    np.testing.assert_allclose(sure, np.log(4), rtol=1e-6)
    np.testing.assert_allclose(to_numpy(categorical_kl(tensor(np.zeros((3, 7))))), 0, atol=1e-6)
    assert np.isfinite(to_numpy(gradient(categorical_kl, tensor([[1e4, 0, 0, -1e4]])))).all()


def test_relaxed_divergence_is_the_quadrature_on_average():
    logits_q, logits_p = np.array([1.2, -0.3], "float32"), np.array([0.0, 0.4], "float32")
    temperature_q, temperature_p = 0.6, 0.9
    a = np.linspace(-60, 60, 200_001)
    log_y = log_softmax(np.stack([a, 0 * a], -1), -1)
    log_q, log_p = (
        log_prob_by_hand(log_y, logits, np.full(len(a), t))
        for logits, t in ((logits_q, temperature_q), (logits_p, temperature_p))
    )
    exact = (np.exp(log_q) * (log_q - log_p)).sum() * (a[1] - a[0])
    rng = np.random.default_rng(0)
    draws = log_softmax((logits_q + rng.gumbel(size=(100_000, 2))) / temperature_q, -1).astype("float32")
    kl = to_numpy(concrete_kl(draws, logits_q, temperature_q, logits_p, temperature_p))
    assert abs(kl.mean() - exact) < 5 * kl.std() / np.sqrt(len(kl))
    same = to_numpy(concrete_kl(draws, logits_q, temperature_q, logits_q, temperature_q))
    np.testing.assert_allclose(same, 0, atol=1e-6)


def test_gaussian_draws_have_the_moments():
    mean, log_var = np.array([2.0, -1.0], "float32"), np.array([0.0, np.log(0.09)], "float32")
    inputs = [tensor(np.broadcast_to(part, (40_000, 2))) for part in (mean, log_var)]
    z = to_numpy(GaussianSampling(seed=0)(inputs))
    deviation = np.exp(log_var / 2)
    assert (np.abs(z.mean(0) - mean) < 5 * deviation / 200).all()
    np.testing.assert_allclose(z.std(0), deviation, rtol=0.02)
    for column in range(2):
        assert kstest((z[:, column] - mean[column]) / deviation[column], "norm").pvalue > 1e-3


@pytest.mark.parametrize("weight", [0.0, 0.7])
@pytest.mark.parametrize("shape", [(3,), (2, 3)])
def test_weight_adds_the_closed_form_to_the_loss(weight, shape, rng):
    mean, log_var = (rng.normal(size=(8, *shape)).astype("float32") for _ in range(2))
    inputs = [keras.Input(shape), keras.Input(shape)]
    # a model whose other loss is 0
    outputs = keras.layers.Rescaling(0.0)(GaussianSampling(weight, seed=0)(inputs))
    model = keras.Model(inputs, outputs)
    model.compile(keras.optimizers.SGD(), "mse")
    expected = weight * 0.5 * (np.exp(log_var) - 1 - log_var + mean**2).sum() / 8
    target = np.zeros((8, *shape))
    assert model.evaluate([mean, log_var], target, verbose=0) == pytest.approx(expected, rel=1e-4)
    history = model.fit([mean, log_var], target, batch_size=4, verbose=0).history
    assert history["loss"][0] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("use", "match"),
    [
        (lambda: GaussianSampling(kl_weight=-1), "`kl_weight` must be >= 0 and finite. Received: kl_weight=-1"),
        (lambda: GaussianSampling()(ops.zeros((2, 3))), "`inputs` must be a mean and a log_var of the same shape"),
        (lambda: GaussianSampling()([ops.zeros((2, 3))]), "`inputs` must be a mean and a log_var of the same shape"),
        (lambda: GaussianSampling()([ops.zeros((2, 3)), ops.zeros((2, 1))]), "`inputs` must be a mean and a log_var"),
    ],
)
def test_bad_gaussians(use, match):
    with pytest.raises(ValueError, match=match):
        use()
