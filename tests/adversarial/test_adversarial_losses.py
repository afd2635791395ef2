import keras
import numpy as np
import pytest
from keras import ops
from scipy.special import log_expit

from keras_gen.adversarial.losses import AdversarialLoss
from keras_gen.adversarial.penalties import Penalty
from keras_gen.core.fixtures import to_numpy
from keras_gen.losses import (
    GradientPenalty,
    HingeLoss,
    NonSaturatingLoss,
    R1Penalty,
    RelativisticLoss,
    WassersteinLoss,
)
from keras_gen.ops import gradient

# loss -> (what the discriminator wants, what the generator wants), both to be minimized
DEFINITIONS = {
    HingeLoss: (lambda r, f: np.maximum(0, 1 - r) + np.maximum(0, 1 + f), lambda r, f: -f),
    NonSaturatingLoss: (lambda r, f: -log_expit(r) - log_expit(-f), lambda r, f: -log_expit(f)),
    RelativisticLoss: (lambda r, f: -log_expit(r - f), lambda r, f: -log_expit(f - r)),
    WassersteinLoss: (lambda r, f: f - r, lambda r, f: -f),
}


@pytest.mark.parametrize("kind", DEFINITIONS)
def test_definitions(kind, rng):
    real, fake = (10 * rng.normal(size=(2, 50))).astype("float32")
    loss = kind()
    for player, define in zip((loss.discriminator, loss.generator), DEFINITIONS[kind], strict=True):
        found = to_numpy(player(ops.convert_to_tensor(real), ops.convert_to_tensor(fake)))
        assert found.shape == (50,)
        np.testing.assert_allclose(found, define(real.astype("float64"), fake.astype("float64")), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", DEFINITIONS)
def test_a_sure_discriminator_gives_finite_losses_and_slopes(kind):
    sure = ops.convert_to_tensor(np.array([-1e4, 1e4], "float32"))
    for player in (kind().discriminator, kind().generator):
        assert np.isfinite(to_numpy(player(sure, -sure))).all()
        assert np.isfinite(to_numpy(gradient(lambda x: player(x, -sure), sure))).all()  # noqa: B023 (used at once)
        assert np.isfinite(to_numpy(gradient(lambda x: player(-sure, x), sure))).all()  # noqa: B023
    # the generator learns most where its samples are told from data
    slope = to_numpy(gradient(lambda x: kind().generator(ops.zeros(2), x), -ops.abs(sure)))
    np.testing.assert_allclose(slope, -1, rtol=1e-5)


# Penalties

W = np.array([[0.5, -1.0], [1.5, 0.3], [-0.2, 0.8]], "float32")
A = np.array([2.0, -1.0], "float32")


def curved(x):
    return ops.matmul(ops.tanh(ops.matmul(x, W)), A)


def slope_of_curved(x):
    return ((1 - np.tanh(x @ W) ** 2) * A) @ W.T


def test_r1_is_the_squared_slope_on_average():
    point = np.array([0.3, -0.5, 1.0], "float32")
    x = ops.convert_to_tensor(np.repeat(point[None], 20_000, axis=0))
    found = to_numpy(R1Penalty(3.0)(curved, x, 0 * x, keras.random.SeedGenerator(0)))
    assert found.shape == (20_000,)
    assert len(np.unique(found.round(4))) == 4  # signs in three dimensions; opposite ones give the same
    expected = 1.5 * (slope_of_curved(point) ** 2).sum()
    assert abs(found.mean() - expected) < 5 * found.std() / np.sqrt(len(found))


def test_r1_is_exact_in_one_dimension(rng):
    x = ops.convert_to_tensor(rng.normal(size=(6, 1)).astype("float32"))
    found = R1Penalty(4.0)(lambda x: ops.sum(x**3 / 3, axis=1), x, x, keras.random.SeedGenerator(0))
    np.testing.assert_allclose(to_numpy(found), 2 * to_numpy(x)[:, 0] ** 4, rtol=1e-5)


def test_r1_draws_anew_and_works_on_images(rng):
    x = ops.convert_to_tensor(rng.normal(size=(3, 4, 4, 2)).astype("float32"))
    weight = ops.convert_to_tensor(rng.normal(size=(4, 4, 2)).astype("float32"))
    seed = keras.random.SeedGenerator(0)
    draws = [to_numpy(R1Penalty()(lambda x: ops.sum(x * weight, axis=(1, 2, 3)), x, x, seed)) for _ in range(2)]
    assert draws[0].shape == (3,)
    assert np.abs(draws[0] - draws[1]).min() > 0


@pytest.mark.parametrize("weight", [0.0, 10.0])
def test_gradient_penalty_of_a_plane(weight, rng):
    x, fake = (ops.convert_to_tensor(rng.normal(size=(5, 2)).astype("float32")) for _ in range(2))
    for w in ([3.0, 4.0], [0.6, 0.8], [0.0, 0.0]):
        found = GradientPenalty(weight)(lambda x, w=w: ops.matmul(x, w), x, fake, keras.random.SeedGenerator(0))
        np.testing.assert_allclose(to_numpy(found), weight * (np.linalg.norm(w) - 1) ** 2, rtol=1e-4, atol=1e-6)


def test_gradient_penalty_is_taken_between_data_and_samples():
    """D(y) = y^2 / 2 has the slope y, which is uniform on [0, 4]: E (4 u - 1)^2 = 7/3."""
    x = ops.convert_to_tensor(np.full((20_000, 1), 4, "float32"))
    found = GradientPenalty(1.0)(lambda x: ops.sum(x**2 / 2, axis=1), x, 0 * x, keras.random.SeedGenerator(0))
    found = to_numpy(found)
    assert abs(found.mean() - 7 / 3) < 5 * found.std() / np.sqrt(len(found))
    assert found.max() < 9
    assert found.max() > 8.9
    # one u for all of a sample's dimensions
    x = ops.convert_to_tensor(np.full((50, 3, 2), 4, "float32"))
    places = []
    GradientPenalty()(lambda x: places.append(to_numpy_of(x)) or ops.sum(x, axis=(1, 2)), x, 0 * x, 0)
    assert len(np.unique(places[0])) == 50


def to_numpy_of(x):
    """The value of a tensor in the midst of a differentiation."""
    if keras.backend.backend() == "jax":
        import jax

        while isinstance(x, jax.core.Tracer):
            x = x.primal
    return ops.convert_to_numpy(ops.stop_gradient(x))


def test_gradient_penalty_of_a_curve_on_its_samples(rng):
    x = rng.normal(size=(7, 3)).astype("float32")
    tensor = ops.convert_to_tensor(x)
    found = to_numpy(GradientPenalty(2.0)(curved, tensor, tensor, keras.random.SeedGenerator(0)))
    norms = np.linalg.norm(slope_of_curved(x), axis=1)
    np.testing.assert_allclose(found, 2 * (norms - 1) ** 2, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("weight", [-1, "1", None, np.nan])
@pytest.mark.parametrize("kind", [R1Penalty, GradientPenalty])
def test_bad_weight(kind, weight):
    with pytest.raises(ValueError, match="`weight` must be >= 0 and finite. Received: weight="):
        kind(weight)


@pytest.mark.parametrize("kind", [AdversarialLoss, Penalty])
def test_base_classes_say_what_is_missing(kind):
    with pytest.raises(TypeError, match="abstract"):
        kind()
