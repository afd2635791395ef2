import keras
import numpy as np
import pytest
from bijecting import randomized, run, vectors
from keras import ops
from scipy.linalg import expm

from keras_gen.layers import (
    ContinuousFlow,
)
from keras_gen.models import Flow

Dense = keras.layers.Dense


class Linear(keras.layers.Layer):
    """dx/dt = 2 t x A, or x A."""

    def __init__(self, matrix, timed=False):
        super().__init__()
        self.matrix = ops.convert_to_tensor(np.asarray(matrix, "float32"))
        self.timed = timed

    def call(self, inputs):
        x, t = inputs
        assert tuple(t.shape) == tuple(x.shape[:1])
        velocity = ops.matmul(x, self.matrix)
        return 2 * t[:, None] * velocity if self.timed else velocity


A = np.array([[0.3, -1.0, 0.2], [0.8, -0.5, 0.4], [0.1, 0.6, 0.4]])


@pytest.mark.parametrize("timed", [False, True])
@pytest.mark.parametrize("tolerance", [None, 1e-6])
def test_a_linear_field_is_a_matrix_exponential(timed, tolerance):
    x = vectors(4, 3)
    flow = ContinuousFlow(Linear(A, timed), tolerance=tolerance)
    y, log_det = run(flow, x)
    np.testing.assert_allclose(y, x @ expm(A), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(log_det, np.full(4, np.trace(A)), rtol=1e-4)
    back, log_det = run(flow, y, inverse=True)
    np.testing.assert_allclose(back, x, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(log_det, np.full(4, -np.trace(A)), rtol=1e-4)


def test_hutchinson_is_right_on_average():
    x = np.repeat(vectors(1, 3), 4000, axis=0)
    flow = ContinuousFlow(Linear(A), steps=4, trace="hutchinson", seed=0)
    (y, first), (_, second) = run(flow, x), run(flow, x)
    np.testing.assert_allclose(y, x @ expm(A), rtol=1e-3, atol=1e-4)
    assert 0.1 < first.std() < 3
    assert np.abs(first.mean() - np.trace(A)) < 5 * first.std() / np.sqrt(len(x))
    assert np.abs(first - second).max() > 0.1  # drawn anew


def test_hutchinson_of_a_network_is_right_on_average():
    x = vectors(1, 3)
    exact = randomized(ContinuousFlow(units=[8], steps=4), x, 1.0)
    estimate = ContinuousFlow(exact.network, steps=4, trace="hutchinson", seed=0)
    values = run(estimate, np.repeat(x, 4000, axis=0))[1]
    assert np.abs(values.mean() - run(exact, x)[1][0]) < 5 * values.std() / np.sqrt(4000) + 1e-5


def test_adaptive_steps_agree_with_fixed_ones():
    x = vectors(4, 2)
    fixed = randomized(ContinuousFlow(units=[8], steps=32), x, 2.0)
    reference = run(fixed, x)
    errors = []
    for tolerance in (1e-2, 1e-5):
        results = run(ContinuousFlow(fixed.network, tolerance=tolerance), x)
        errors.append(max(np.abs(a - b).max() for a, b in zip(results, reference, strict=True)))
        assert errors[-1] < 10 * tolerance
    assert errors[-1] < 1e-4


@pytest.mark.parametrize("options", [{}, {"tolerance": 1e-3}, {"trace": "hutchinson"}])
def test_training_through_a_continuous_flow_lowers_the_loss(options):
    x = (2 * vectors(64, 2) + 1) * np.array([1, 0.3], "float32")
    model = Flow(ContinuousFlow(units=[8], steps=2, seed=0, **options), seed=0)
    model.compile(keras.optimizers.Adam(3e-2))
    losses = model.fit(x, batch_size=32, epochs=8, verbose=0, shuffle=False).history["loss"]
    assert losses[-1] < losses[0] - 0.1
    assert np.isfinite(model.log_prob(x, verbose=0, seed=0)).all()


def test_a_network_that_adds_losses_trains():
    """What it adds inside the solver's loop cannot leave the loop, and is dropped."""
    x, t = keras.Input((2,)), keras.Input(())
    h = keras.layers.Concatenate()([x, keras.layers.Reshape((1,))(t)])
    y = keras.layers.Dense(2, activity_regularizer=keras.regularizers.L2(1e6))(h)
    model = Flow(ContinuousFlow(keras.Model([x, t], y), steps=2), seed=0)
    model.compile(keras.optimizers.SGD(0.0))
    points = np.random.default_rng(0).normal(size=(8, 2)).astype("float32")
    assert model.fit(points, verbose=0).history["loss"][0] < 1000
