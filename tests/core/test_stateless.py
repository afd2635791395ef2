import keras
import numpy as np
import pytest
from keras import ops

from keras_gen.core.fixtures import randomize_weights, to_numpy
from keras_gen.core.stateless import stateless
from keras_gen.ops import gradient

layers = keras.layers
X = np.random.default_rng(0).normal(1.0, 2.0, (6, 3)).astype("float32")


def network():
    inner = [layers.SpectralNormalization(layers.Dense(4)), layers.BatchNormalization(), layers.Dropout(0.5, seed=0)]
    model = keras.Sequential([keras.Input((3,)), *inner, layers.Dense(1)])
    randomize_weights(model)
    return model


def values(layer):
    return [to_numpy(variable).copy() for variable in layer.variables]


@pytest.mark.parametrize("frozen", [False, True])
def test_calls_leave_the_layer_as_it_is(frozen):
    model, twin = network(), network()
    before = values(model)
    with stateless(model, frozen):
        draws = [to_numpy(model(X, training=True)) for _ in range(2)]
    for a, b in zip(before, values(model), strict=True):
        np.testing.assert_array_equal(a, b)
    # within the scope, state goes on as it does outside; the next scope starts from the layer's own
    outside = [to_numpy(twin(X, training=True)) for _ in range(2)]
    np.testing.assert_allclose(draws, outside, rtol=1e-4, atol=1e-5)
    assert np.abs(draws[0] - draws[1]).max() > 1e-3
    with stateless(model, frozen):
        np.testing.assert_allclose(to_numpy(model(X, training=True)), draws[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("frozen", [False, True])
def test_gradients_pass_to_the_inputs(frozen):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4, "tanh"), layers.Dense(1)])
    expected = to_numpy(gradient(model, ops.convert_to_tensor(X)))
    with stateless(model, frozen):
        found = to_numpy(gradient(model, ops.convert_to_tensor(X)))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert np.abs(found).min() > 0


class Probe(keras.Model):
    """Learns by a loss that passes through `critic` within the scope."""

    def __init__(self, frozen):
        super().__init__()
        dense = layers.Dense(3, use_bias=False, kernel_initializer="identity")
        self.first, self.critic, self.frozen = dense, network(), frozen

    def build(self, shape):
        self.first.build(shape)

    def call(self, x):
        return x

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        x = self.first(x)
        with stateless(self.critic, self.frozen):
            return ops.mean(self.critic(x, training=training))


@pytest.mark.parametrize("frozen", [False, True])
def test_in_a_compiled_fit(frozen):
    model = Probe(frozen)
    model.build((None, 3))
    critic = model.critic
    still = [variable for variable in critic.variables if not any(variable is w for w in critic.trainable_weights)]
    states, weights = ([to_numpy(v).copy() for v in group] for group in (still, critic.trainable_weights))
    model.compile(keras.optimizers.SGD(0.1))
    model.fit(X, batch_size=6, epochs=2, verbose=0)
    for a, b in zip(states, still, strict=True):
        np.testing.assert_array_equal(a, to_numpy(b))
    moved = [not np.array_equal(a, to_numpy(b)) for a, b in zip(weights, critic.trainable_weights, strict=True)]
    assert not any(moved) if frozen else sum(moved) >= 3
    assert np.abs(to_numpy(model.first.kernel) - np.eye(3)).max() > 1e-3
