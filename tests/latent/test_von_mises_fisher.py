import keras
import numpy as np
import pytest
from keras import ops
from laws import autoencoder, compiled
from scipy.special import gammaln, ive
from scipy.stats import kstest

from keras_gen.core.arrays import unit_vectors
from keras_gen.core.fixtures import save_and_load, to_numpy
from keras_gen.latent.von_mises_fisher import AngleTable
from keras_gen.layers import VonMisesFisherSampling
from keras_gen.models import VonMisesFisherVAE
from keras_gen.ops import gradient

DRAWS = 20_000


def log_bessel(order, kappa):
    """log(I_order(k) k^-order), by its series where k is small or scipy's scaled function is 0."""
    scaled = ive(order, kappa)
    if kappa > 1e-2 and scaled > 0:
        return np.log(scaled) + kappa - order * np.log(kappa)
    m = np.arange(200)
    log_kappa = np.log(max(kappa, 1e-300) / 2)
    return np.logaddexp.reduce(2 * m * log_kappa - gammaln(m + 1) - gammaln(m + order + 1)) - order * np.log(2)


def mean_cosine(dim, kappa):
    """I_{d/2}(k) / I_{d/2-1}(k)"""
    return kappa * np.exp(log_bessel(dim / 2, kappa) - log_bessel(dim / 2 - 1, kappa))


def divergence(dim, kappa):
    """From the uniform distribution: k A(k) + log C(k) + log |sphere|."""
    order = dim / 2 - 1
    log_c = -(dim / 2) * np.log(2 * np.pi) - log_bessel(order, kappa)
    log_surface = np.log(2) + dim / 2 * np.log(np.pi) - gammaln(dim / 2)
    return kappa * mean_cosine(dim, kappa) + log_c + log_surface


CASES = [(dim, kappa) for dim in (2, 3, 10, 300) for kappa in (0.0, 1e-3, 1.0, 20.0, 1e4)]


@pytest.mark.parametrize(("dim", "kappa"), CASES)
def test_mean_and_divergence_are_the_bessel_functions(dim, kappa):
    table = AngleTable(dim, kappa)
    assert table.mean_cosine == pytest.approx(mean_cosine(dim, kappa), rel=1e-4, abs=1e-6)
    assert table.kl == pytest.approx(divergence(dim, kappa), rel=1e-4, abs=1e-5)
    assert (np.diff(table.cdf) >= 0).all()
    assert table.cdf[[0, -1]] == pytest.approx([0, 1])


@pytest.mark.parametrize(("dim", "kappa"), CASES)
def test_draws_have_the_mean_and_unit_length(dim, kappa):
    mu = np.random.default_rng(dim).normal(size=dim)
    mu = (mu / np.linalg.norm(mu)).astype("float32")
    z = to_numpy(AngleTable(dim, kappa).draw(ops.convert_to_tensor(np.broadcast_to(mu, (DRAWS, dim))), seed=1))
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, rtol=1e-5)
    cosine = (z @ mu).astype("float64")
    assert abs(cosine.mean() - mean_cosine(dim, kappa)) < 5 * cosine.std() / np.sqrt(DRAWS) + 1e-6
    # across mu, all directions alike
    across = z - np.outer(cosine, mu)
    error = 5 * across.std(0) / np.sqrt(DRAWS) + 1e-6
    assert (np.abs(across.mean(0)) < error).all()


@pytest.mark.parametrize("kappa", [0.0, 0.5, 20.0])
def test_cosine_has_the_distribution_of_three_dimensions(kappa):
    """There its density is exp(kappa w), and the distribution function has a closed form."""
    mu = np.broadcast_to(np.array([0, 0, 1], "float32"), (DRAWS, 3))
    w = to_numpy(AngleTable(3, kappa).draw(ops.convert_to_tensor(mu), seed=2))[:, 2]

    def cdf(w):
        return (w + 1) / 2 if kappa == 0 else np.expm1(kappa * (w + 1)) / np.expm1(2 * kappa)

    assert kstest(w, cdf).pvalue > 1e-3


def test_no_concentration_is_the_uniform_distribution():
    mu = np.broadcast_to(np.array([0.6, 0.8, 0, 0], "float32"), (DRAWS, 4))
    z = to_numpy(VonMisesFisherSampling(0.0, seed=0)(ops.convert_to_tensor(mu)))
    assert np.abs(z.mean(0)).max() < 5 / np.sqrt(4 * DRAWS)
    np.testing.assert_allclose(z.T @ z / DRAWS, np.eye(4) / 4, atol=0.01)


def test_gradient_flows_to_the_direction():
    table = AngleTable(3, 20.0)
    x = np.array([[1.0, 2, -1], [3, 0, 1]], "float32")

    def along(x):
        return table.draw(unit_vectors(x), 0) * ops.convert_to_tensor([1.0, -2.0, 0.5])

    found = to_numpy(gradient(along, ops.convert_to_tensor(x)))
    assert np.abs(found).max(1).min() > 0.1
    for row, column in ((0, 0), (1, 2)):  # by differences; the draw is the same each time
        step = np.zeros((2, 3), "float32")
        step[row, column] = 1e-2
        difference = to_numpy(along(x + step)).sum() - to_numpy(along(x - step)).sum()
        assert found[row, column] == pytest.approx(difference / 2e-2, rel=0.02)


def test_zero_has_no_direction_and_no_gradient():
    x = ops.zeros((2, 3))
    table = AngleTable(3, 20.0)
    np.testing.assert_array_equal(to_numpy(unit_vectors(x)), np.zeros((2, 3)))
    assert np.isfinite(to_numpy(table.draw(unit_vectors(x), 0))).all()
    assert np.isfinite(to_numpy(gradient(lambda x: table.draw(unit_vectors(x), 0), x))).all()
    long = unit_vectors(ops.cast([[6e4, 0.0], [1e-5, 0.0]], "float16"))
    np.testing.assert_allclose(to_numpy(long), [[1, 0], [1, 0]], rtol=1e-5)


def test_layer_scales_and_samples(rng):
    x = rng.normal(size=(50, 4)).astype("float32")
    layer = VonMisesFisherSampling(1e4, seed=0)
    z = to_numpy(layer(ops.convert_to_tensor(10 * x)))
    assert ((z * x).sum(1) / np.linalg.norm(x, axis=1)).min() > 0.99
    assert layer.kl == pytest.approx(divergence(4, 1e4), rel=1e-4)
    half = VonMisesFisherSampling(20.0, seed=0, dtype="mixed_bfloat16")(ops.convert_to_tensor(x))
    np.testing.assert_allclose(np.linalg.norm(to_numpy(half), axis=1), 1, rtol=0.02)


def test_model_has_a_constant_divergence_and_goes_on_from_a_file(digits):
    images = digits[0][:64]
    model = compiled(VonMisesFisherVAE(*autoencoder(4), kappa=7.0, seed=0))
    history = model.fit(images, batch_size=16, epochs=3, verbose=0).history
    np.testing.assert_allclose(history["kl"], divergence(4, 7.0), rtol=1e-4)
    assert history["loss"][-1] < history["loss"][0]
    z = model.encode(images)
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, rtol=1e-5)
    loaded = save_and_load(model)
    np.testing.assert_allclose(loaded.encode(images), z, rtol=1e-5, atol=1e-6)
    assert np.isfinite(loaded.fit(images, verbose=0).history["loss"]).all()
    assert np.isfinite(model.elbo(images, num_samples=2, verbose=0)).all()


@pytest.mark.parametrize(
    ("use", "match"),
    [
        (lambda: VonMisesFisherSampling(-1), "`kappa` must be >= 0 and finite. Received: kappa=-1"),
        (lambda: VonMisesFisherSampling(float("nan")), "`kappa` must be >= 0"),
        (lambda: VonMisesFisherSampling("20"), "`kappa` must be >= 0"),
        (lambda: VonMisesFisherSampling()(ops.zeros((2, 1))), r"`x` must have shape \(batch, dim >= 2\). Received: x="),
        (lambda: VonMisesFisherSampling()(ops.zeros((2, 3, 4))), r"`x` must have shape \(batch, dim >= 2\)"),
        (lambda: VonMisesFisherVAE(*autoencoder(3), kappa=-1), "`kappa` must be >= 0"),
        (
            lambda: VonMisesFisherVAE(*autoencoder(1)).sample(1),
            r"`encoder` must return latents of shape \(batch, dim >= 2\)",
        ),
        (lambda: VonMisesFisherVAE(keras.layers.Dense(3), 5), "`decoder` must be a keras.Layer"),
    ],
)
def test_bad_input(use, match):
    with pytest.raises(ValueError, match=match):
        use()
