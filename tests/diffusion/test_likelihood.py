"""Densities by the probability-flow ODE, against those of mixtures of Gaussians, and the bound in discrete time."""

import keras
import numpy as np
import pytest
from keras import ops
from mixture import PAIR, Mixture, MixtureDenoiser, exact_model, gaussian

from keras_gen.layers import SelfAttention2D
from keras_gen.models import ScoreSDE
from keras_gen.schedules import (
    DiscreteSchedule,
    EDMSchedule,
    RectifiedFlowSchedule,
    Shifted,
    SubVPSchedule,
    VESchedule,
    VPSchedule,
)

# Points where the density is not next to nothing.
X = np.array([[-0.9, 0.4], [-0.6, -0.2], [0.1, 0.3], [0.9, 0.6]], "float32")
CENTRED = Mixture([0.5, 0.5], [-0.5, 0.5], [0.2, 0.2])

MODELS = {
    "vp": (VPSchedule(), "epsilon"),
    "vp_edm": (VPSchedule(), "edm"),
    "sub_vp": (SubVPSchedule(), "v"),
    "rectified_flow": (RectifiedFlowSchedule(), "velocity"),
    "shifted": (Shifted(RectifiedFlowSchedule()), "velocity"),
    "ve": (VESchedule(0.001, 50.0), "epsilon"),
    "edm": (EDMSchedule(0.001, 80.0), "edm"),
}


@pytest.mark.parametrize("name", MODELS)
def test_log_prob_is_exact(name):
    """To 1e-3 nats, what is left of the data at t_max: alpha^2 std^2 / sigma^2 of a centred mixture."""
    schedule, prediction = MODELS[name]
    model = exact_model(schedule, CENTRED, prediction)
    expected = CENTRED.log_prob(X.astype("float64"))
    np.testing.assert_allclose(model.log_prob(X, verbose=0), expected, atol=1e-3)


def test_log_prob_of_a_gaussian_is_the_exact_one_of_its_prior():
    """With a VE schedule that ends early, the density is that of the prior it has, not that of the data."""
    schedule, std = VESchedule(0.001, 3.0), 0.5
    model = exact_model(schedule, gaussian(0.0, std), "epsilon")
    # the ODE maps the prior's N(0, 3^2) to N(0, std^2 3^2 / (std^2 + 3^2)), but for what is above t = 0
    deviation = std * 3 / np.sqrt(std**2 + 9)
    expected = -0.5 * (X**2).sum(1) / deviation**2 - 2 * np.log(deviation * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(model.log_prob(X, verbose=0), expected, atol=1e-3)


def test_attention_has_a_divergence():
    """On torch its fused kernels have no forward-mode derivative. A new network predicts 0: the field is a multiple."""
    x, t = keras.Input((2, 2, 2)), keras.Input(())
    model = ScoreSDE(keras.Model([x, t], SelfAttention2D(1, groups=2)(x)), seed=0)
    x = np.linspace(-1, 1, 16, dtype="float32").reshape(2, 2, 2, 2)
    exact, estimate = (model.log_prob(x, trace=kind, tolerance=0.01, verbose=0) for kind in ("exact", "hutchinson"))
    assert np.isfinite(exact).all()
    np.testing.assert_allclose(estimate, exact, rtol=1e-3)


def test_hutchinson_is_unbiased():
    """If the Jacobian is diagonal, the estimate is exact; if the field turns, it scatters around the truth."""
    model, exact = exact_model(VPSchedule(), CENTRED), CENTRED.log_prob(X.astype("float64"))
    np.testing.assert_allclose(model.log_prob(X, trace="hutchinson", seed=0, verbose=0), exact, atol=2e-3)
    turned = turned_model()
    exact = turned.log_prob(X, verbose=0)
    copies = np.tile(X, (128, 1))
    estimates = turned.log_prob(copies, trace="hutchinson", seed=0, batch_size=len(copies), verbose=0)
    estimates = estimates.reshape(-1, len(X))
    error = estimates.std(axis=0) / np.sqrt(len(estimates))
    assert error.min() > 1e-3
    assert (np.abs(estimates.mean(axis=0) - exact) < 4 * error + 1e-3).all()


def turned_model():
    """Data that are a rotation of independent ones: their score's Jacobian is full."""
    turn = np.array([[0.6, -0.8], [0.8, 0.6]], "float32")
    inner = MixtureDenoiser(PAIR, VPSchedule())

    class Turned(keras.layers.Layer):
        def call(self, inputs):
            x, t = inputs
            return ops.matmul(inner([ops.matmul(x, turn.T), t]), turn)

    model = ScoreSDE(Turned(), VPSchedule(), seed=0)
    model.build((None, 2))
    return model


def test_log_prob_of_turned_data_is_exact():
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    expected = PAIR.log_prob(X @ turn.T)
    np.testing.assert_allclose(turned_model().log_prob(X, verbose=0), expected, atol=3e-3)


def test_bits_per_dim_of_two_levels_of_noise():
    """-log2 of the density at the values, spread over the gap of two levels: 17 levels, 1 / 8 apart."""
    model = exact_model(VPSchedule(), gaussian(0.0, 0.5), shape=(16,))
    rng = np.random.default_rng(0)
    x = np.clip(np.round(rng.normal(0, 0.5, (200, 16)) * 8) / 8, -1, 1).astype("float32")
    bits = model.bits_per_dim(x, levels=17, seed=0, batch_size=200, trace="hutchinson", verbose=0)
    # E over the uniform noise u of -log N(x + u; 0, 0.5^2)
    nats = 0.5 * np.log(2 * np.pi * 0.25) + (x.astype("float64") ** 2 + (1 / 8) ** 2 / 12) / 0.5
    expected = (nats.mean(axis=1) - np.log(1 / 8)) / np.log(2)
    assert abs((bits - expected).mean()) < 5 * (bits - expected).std() / np.sqrt(200) + 2e-3
    with pytest.raises(ValueError, match=r"`x` must have pixel values in \[-1, 1\]"):
        model.bits_per_dim(x + 1, verbose=0)
    with pytest.raises(ValueError, match="`levels` must be an integer >= 2"):
        model.bits_per_dim(x, levels=1, verbose=0)


def test_discrete_bound_is_above_the_exact_value_and_closes_in():
    data = gaussian(0.0, 0.2)
    x = np.random.default_rng(0).normal(0.0, 0.2, (400, 16)).astype("float32")
    # -log2 of the mass of a pixel's bin
    exact = (-data.log_prob(x.astype("float64")) / 16 - np.log(2 / 255)) / np.log(2)
    gaps = []
    for steps in (10, 40, 160):
        # even steps of the log-SNR between the same ends, so that each step gets finer
        alphas = 1 / np.sqrt(1 + np.exp(np.linspace(-10, 10, steps)))
        schedule = DiscreteSchedule(1 - (alphas / np.append(1, alphas[:-1])) ** 2)
        model = exact_model(schedule, data, shape=(16,), variance="fixed_large")
        bits = model.elbo(x, clip_x0=None, seed=0, batch_size=400, verbose=0)
        gaps.append((bits - exact).mean())
    assert gaps[0] > 2 * gaps[1] > 3 * gaps[2] > 0, gaps


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"trace": "both"}, "`trace` must be one of 'exact', 'hutchinson'"),
        ({"tolerance": 0}, "`tolerance` must be > 0"),
        ({"x": X[:, :1]}, r"`x` must have shape \(n, 2\)"),
        ({"x": X + np.nan}, "`x` must be finite"),
        ({"condition": 1}, "`condition` must be None: the network takes no condition"),
        ({"batch_size": 0}, "`batch_size` must be an integer >= 1"),
        ({"seed": -1}, "`seed` must be an integer >= 0"),
    ],
)
def test_bad_input(options, match):
    model = exact_model(VPSchedule())
    with pytest.raises(ValueError, match=match):
        model.log_prob(**{"x": X, "verbose": 0, **options})
