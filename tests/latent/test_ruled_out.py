"""Logits of -inf rule categories out: what is left is the distribution of the others."""

import numpy as np
import pytest
from keras import ops

from keras_gen import estimators, losses
from keras_gen.core.fixtures import to_numpy
from keras_gen.ops import concrete_log_prob, gradient, gumbel_softmax

LOGITS = np.array([[0.3, 1.0, -0.5], [0.2, -1.0, 0.4]], "float32")
OTHERS = np.array([[0.1, -0.3, 0.8], [0.0, 0.5, -0.2]], "float32")


def with_ruled_out(logits, value=-np.inf):
    return np.insert(logits, 1, value, axis=-1)


def squares(b):
    return ops.sum(b * ops.arange(1.0, 5.0), axis=-1) ** 2


@pytest.mark.parametrize(
    "function",
    [
        lambda q, p, log_y: losses.categorical_kl(q, p),
        lambda q, p, log_y: concrete_log_prob(log_y, q, 0.5),
        lambda q, p, log_y: losses.concrete_kl(log_y, q, 0.5, p, 0.7),
    ],
)
def test_divergences_are_those_of_the_other_categories(function):
    log_y = to_numpy(ops.log_softmax((LOGITS + OTHERS) / 0.5))
    expected = to_numpy(function(LOGITS, OTHERS, log_y))
    ruled_out = [with_ruled_out(x) for x in (LOGITS, OTHERS, log_y)]
    np.testing.assert_allclose(to_numpy(function(*ruled_out)), expected, rtol=1e-5, atol=1e-6)
    slope = to_numpy(gradient(lambda q: ops.sum(function(q, *map(ops.convert_to_tensor, ruled_out[1:]))), ruled_out[0]))
    assert np.isfinite(slope).all()
    np.testing.assert_array_equal(slope[:, 1], 0)


def test_what_p_rules_out_and_q_does_not_is_infinitely_far():
    assert np.isinf(to_numpy(losses.categorical_kl(with_ruled_out(LOGITS, 0.0), with_ruled_out(OTHERS)))).all()


@pytest.mark.parametrize(
    "estimate",
    [
        lambda logits: estimators.reinforce(squares, logits, seed=0),
        lambda logits: estimators.straight_through_gumbel(squares, logits, seed=0),
        lambda logits: estimators.rebar(squares, logits, seed=0),
        lambda logits: estimators.relax(squares, logits, critic=squares, seed=0),
        lambda logits: estimators.gumbel_rao(squares, logits, seed=0),
        lambda logits: squares(gumbel_softmax(logits, 0.5, seed=0)),
    ],
)
def test_gradients_of_the_others_are_finite(estimate):
    logits = with_ruled_out(LOGITS)
    slope = to_numpy(gradient(lambda z: ops.sum(estimate(z)), logits))
    assert np.isfinite(slope).all()
    np.testing.assert_array_equal(slope[:, 1], 0)
    values = to_numpy(ops.stop_gradient(estimate(ops.convert_to_tensor(logits))))
    assert np.isfinite(values).all()


def test_what_is_ruled_out_is_never_drawn():
    draws = to_numpy(gumbel_softmax(np.repeat(with_ruled_out(LOGITS), 200, axis=0), hard=True, seed=0))
    np.testing.assert_array_equal(draws[:, 1], 0)
