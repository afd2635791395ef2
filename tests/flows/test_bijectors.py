import keras
import numpy as np
import pytest
from bijecting import images, randomized, run, vectors

from keras_gen.core.calculus.gradient import double_precision
from keras_gen.core.fixtures import to_numpy
from keras_gen.layers import (
    ActNorm,
    AffineCoupling,
    Chain,
    ContinuousFlow,
    Invertible1x1Conv,
    LogitTransform,
    MaskedAutoregressive,
    MultiScale,
    Permutation,
    Reshape,
    Scale,
    SplineCoupling,
    Squeeze,
)
from keras_gen.models import Flow
from keras_gen.testing import check_directions

Dense = keras.layers.Dense


def test_scale_is_a_diagonal_matrix():
    for x in (vectors(3, 4), images(3, 2, 5, 4)):
        scale = randomized(Scale(rate=3.0), x)
        s = 3 * to_numpy(scale.log_scale)
        y, log_det = run(scale, x)
        np.testing.assert_allclose(y, x * np.exp(s), rtol=1e-6)
        np.testing.assert_allclose(log_det, np.full(3, s.sum() * np.prod(x.shape[1:-1])), rtol=1e-5)


def test_permutation_takes_the_given_order():
    x = images(2, 2, 3, 4)
    y, log_det = run(Permutation([2, 0, 3, 1]), x)
    np.testing.assert_array_equal(y, x[..., [2, 0, 3, 1]])
    np.testing.assert_array_equal(log_det, [0, 0])
    np.testing.assert_array_equal(run(Permutation("reverse"), x)[0], x[..., ::-1])


def test_random_permutations_differ_unless_seeded():
    x = np.arange(20.0, dtype="float32")[None]
    orders = [tuple(run(Permutation(seed=seed), x)[0][0]) for seed in (0, 0, 1, None, None)]
    assert orders[0] == orders[1]
    assert len(set(orders)) == 4
    assert sorted(orders[0]) == list(range(20))


def test_invertible_1x1_conv_starts_at_the_matrix(rng):
    matrix = rng.normal(size=(4, 4)) @ np.diag([3.0, -2, 1, 0.1])
    log_volume = np.linalg.slogdet(matrix)[1]
    for x in (vectors(3, 4), images(3, 2, 5, 4)):
        layer = Invertible1x1Conv(matrix)
        y, log_det = run(layer, x)
        np.testing.assert_allclose(y, x @ matrix, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(log_det, np.full(3, log_volume * np.prod(x.shape[1:-1])), rtol=1e-4)
        np.testing.assert_allclose(run(layer, y, inverse=True)[0], x, rtol=1e-4, atol=1e-4)


def test_invertible_1x1_conv_starts_at_a_rotation_by_default():
    w = run(Invertible1x1Conv(seed=3), np.eye(5, dtype="float32"))[0]
    np.testing.assert_allclose(w @ w.T, np.eye(5), atol=1e-5)
    assert np.abs(w - run(Invertible1x1Conv(seed=4), np.eye(5, dtype="float32"))[0]).max() > 0.1


@pytest.mark.parametrize("factor", [2, 3])
def test_squeeze_is_its_formula(factor):
    x = images(2, 6, 12, 2)
    y, log_det = run(Squeeze(factor), x)
    n, h, w, c = x.shape
    expected = np.empty((n, h // factor, w // factor, factor**2 * c), "float32")
    for i, j, a, b, k in np.ndindex(h // factor, w // factor, factor, factor, c):
        expected[:, i, j, (a * factor + b) * c + k] = x[:, i * factor + a, j * factor + b, k]
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(log_det, [0, 0])


def test_logit_transform_is_its_formula(rng):
    x = rng.uniform(0, 1, (3, 4)).astype("float32")
    y, log_det = run(LogitTransform(0.1), x)
    p = 0.1 + 0.8 * x.astype("float64")
    np.testing.assert_allclose(y, np.log(p / (1 - p)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(log_det, np.log(0.8 / (p * (1 - p))).sum(1), rtol=1e-5)


@pytest.mark.parametrize("value", [-1e-3, 1.001, 1e6, -1e6])
def test_logit_transform_has_no_density_outside(value):
    y, log_det = run(LogitTransform(), np.array([[0.5, value], [0.0, 1.0]], "float32"))
    assert log_det[0] == -np.inf
    assert np.isfinite(log_det[1])
    assert np.isfinite(y).all()


def test_logit_transform_is_finite_at_the_ends_in_double_precision():
    x = np.array([[0.0, 1e-12, 1 - 1e-12, 1.0]])
    with double_precision():
        y, log_det = run(LogitTransform(0.0, dtype="float64"), x)
    assert np.isfinite(y).all()
    assert np.isfinite(log_det).all()
    np.testing.assert_allclose(y[0, 1:3], [np.log(1e-12), -np.log(1e-12)], rtol=1e-5)


def test_one_level_of_a_multi_scale_is_that_level():
    x = images(2, 4, 4, 1)
    bijector = MultiScale([Squeeze()])
    y, _ = run(bijector, x)
    np.testing.assert_array_equal(y, run(Squeeze(), x)[0].reshape(2, -1))
    np.testing.assert_array_equal(run(bijector, y, inverse=True)[0], x)


def test_multi_scale_factors_out_the_first_half_of_the_channels():
    x = images(2, 4, 4, 1)
    first, last = Scale(), Scale()
    bijector = randomized(MultiScale([Chain([Squeeze(), first]), last]), x)
    y, log_det = run(bijector, x)
    h = run(Squeeze(), x)[0] * np.exp(to_numpy(first.log_scale))
    np.testing.assert_allclose(y[:, :8], h[..., :2].reshape(2, -1), rtol=1e-5)
    np.testing.assert_allclose(y[:, 8:], (h[..., 2:] * np.exp(to_numpy(last.log_scale))).reshape(2, -1), rtol=1e-5)
    np.testing.assert_allclose(
        log_det, 4 * (to_numpy(first.log_scale).sum() + to_numpy(last.log_scale).sum()), rtol=1e-4
    )


def test_weights_of_a_bijector_are_not_read_in_half_precision():
    x = vectors(8, 4)
    for layer in (ActNorm(dtype="mixed_bfloat16"), Scale(dtype="mixed_bfloat16"), Invertible1x1Conv(seed=1)):
        twin = type(layer).from_config({**layer.get_config(), "dtype": "float32"})
        mixed = Chain([layer, Reshape()], dtype="mixed_bfloat16")
        randomized(mixed, x)
        randomized(twin, x)
        for a, b in zip(run(mixed, x), run(twin, x), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


TRAINED = {
    "coupling": lambda: Chain([ActNorm(), AffineCoupling(units=[8]), AffineCoupling(units=[8], flip=True)]),
    "spline": lambda: Chain([ActNorm(), SplineCoupling(units=[8], num_bins=4), Permutation(seed=0)]),
    "maf": lambda: Chain([MaskedAutoregressive([8]), Permutation("reverse"), MaskedAutoregressive([8])]),
    "linear": lambda: Chain([Invertible1x1Conv(), Scale(5.0)]),
    "continuous": lambda: ContinuousFlow(units=[8], steps=10),
}


@pytest.mark.parametrize("name", TRAINED)
def test_the_laws_hold_after_training(name):
    x = vectors(64, 4) @ np.array([[1, 0.5, 0, 0], [0, 1, 0.5, 0], [0, 0, 1, 0.5], [0.3, 0, 0, 1]], "float32")
    x[:, 0] += 0.5 * x[:, 1] ** 2
    x = x[:, :2] if name == "continuous" else x
    model = Flow(TRAINED[name](), seed=0)
    model.compile(keras.optimizers.Adam(2e-2))
    losses = model.fit(x, batch_size=16, epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    check_directions(model.bijector, x[:2], tolerance=1e-4)
