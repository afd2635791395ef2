import keras
import numpy as np
import pytest
from bijecting import images, run, vectors

from keras_gen.core.fixtures import functional, randomize_weights, save_and_load, to_numpy
from keras_gen.layers import (
    ActNorm,
    AffineCoupling,
    Chain,
    Scale,
)
from keras_gen.models import Flow

Dense = keras.layers.Dense


def standardized(y):
    axes = tuple(range(y.ndim - 1))
    np.testing.assert_allclose(y.mean(axes), 0, atol=1e-3)
    np.testing.assert_allclose(y.std(axes), 1, rtol=1e-3)


@pytest.mark.parametrize("shape", [(64, 3), (16, 4, 4, 3)])
def test_act_norm_standardizes_the_first_batch(shape):
    x = 5 * images(*shape) + np.array([-20, 0, 7], "float32")
    layer = ActNorm()
    np.testing.assert_array_equal(run(layer, x)[0], x)  # not before training
    y, log_det = run(layer, x, training=True)
    standardized(y)
    expected = -np.prod(shape[1:-1]) * np.log(x.std(tuple(range(x.ndim - 1)))).sum()
    np.testing.assert_allclose(log_det, np.full(shape[0], expected), rtol=1e-3)
    np.testing.assert_allclose(run(layer, x)[0], y, atol=1e-5)
    other = images(*shape, seed=1)
    np.testing.assert_allclose(run(layer, other, training=True)[0], run(layer, other)[0], atol=1e-6)
    np.testing.assert_allclose(run(layer, x)[0], y, atol=1e-5)


@pytest.mark.parametrize("offset", [0.0, 1000.1])
def test_act_norm_of_data_far_from_zero(offset):
    x = vectors(64, 3) + np.float32(offset)
    standardized(run(ActNorm(), x, training=True)[0])


@pytest.mark.parametrize("n", [64, 4096])
@pytest.mark.parametrize("value", [0.0, 3.0, 1000.1])
def test_a_feature_without_spread_keeps_its_scale(value, n):
    x = vectors(n, 3)
    x[:, 1] = value
    layer = ActNorm()
    y, log_det = run(layer, x, training=True)
    np.testing.assert_array_equal(y[:, 1], 0)
    np.testing.assert_allclose(log_det, np.full(n, -np.log(x[:, ::2].std(0)).sum()), atol=1e-4)
    x[:, 1] += 1
    np.testing.assert_allclose(run(layer, x)[0][:, 1], 1, rtol=1e-4)


def test_a_first_batch_of_one_vector_keeps_all_scales():
    x = 3 * vectors(64, 3) + 2
    layer = ActNorm()
    y, log_det = run(layer, x[:1], training=True)
    np.testing.assert_array_equal(y, 0)
    np.testing.assert_array_equal(log_det, 0)
    np.testing.assert_allclose(run(layer, x)[0], x - x[:1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batch_size", [32, 1])
def test_a_rare_feature_costs_little(batch_size):
    """The first 1 of a feature that was always 0 costs 1/2 nat more, while other features cost 1.42 nats."""
    x = vectors(64, 4)
    x[:, 2] = 0
    x[40:, 2] = 1
    model = Flow(Chain([ActNorm(), AffineCoupling(units=[4])]), seed=0)
    model.compile(keras.optimizers.SGD(0.0))
    logs = model.fit(x, batch_size=batch_size, shuffle=False, verbose=0).history
    assert logs["loss"][0] < 8
    assert model.log_prob(x, verbose=0).min() > -40
    assert np.isfinite(model.sample(3, seed=0, verbose=0)).all()


def act_norm_flow(learning_rate=0.0):
    coupling = AffineCoupling(units=[4])
    model = Flow(Chain([ActNorm(), coupling, ActNorm(), Scale()]), seed=0)
    model.compile(keras.optimizers.SGD(learning_rate))
    model.build((None, 4))
    randomize_weights(coupling)
    return model


def statistics(model):
    layers = [layer for layer in model.bijector.bijectors if isinstance(layer, ActNorm)]
    return [to_numpy(weight).copy() for layer in layers for weight in (layer.mean, layer.log_std)]


def test_act_norms_start_inside_a_compiled_fit():
    x = 3 * vectors(32, 4) + 2
    model = act_norm_flow()
    model.fit(x, batch_size=32, epochs=2, verbose=0)
    first, coupling, second, _ = model.bijector.bijectors
    standardized(run(first, x)[0])
    standardized(run(second, run(coupling, run(first, x)[0])[0])[0])
    before = statistics(model)
    model.fit(10 * x, batch_size=8, verbose=0)
    np.testing.assert_equal(statistics(model), before)


def test_act_norm_trains_on_from_the_statistics():
    x = 3 * vectors(32, 4) + 2
    model = act_norm_flow(0.1)
    model.fit(x, batch_size=32, epochs=3, verbose=0)
    first = model.bijector.bijectors[0]
    assert np.abs(to_numpy(first.bias)).max() > 1e-4
    assert np.abs(to_numpy(first.log_scale)).max() > 1e-4
    np.testing.assert_allclose(to_numpy(first.mean), x.mean(0), rtol=1e-4)


def test_a_loaded_act_norm_does_not_start_again():
    x = 3 * vectors(32, 4) + 2
    model = act_norm_flow()
    model.fit(x, batch_size=32, verbose=0)
    loaded = save_and_load(model)
    loaded.fit(10 * x, batch_size=32, verbose=0)
    np.testing.assert_equal(statistics(loaded), statistics(model))
    layer = functional_act_norm(x)
    np.testing.assert_array_equal(to_numpy(save_and_load(layer)(x, training=True)[0]), to_numpy(layer(x)[0]))


def functional_act_norm(x):
    model = functional(ActNorm(), x)
    model(x, training=True)
    return model


def test_act_norm_takes_part_in_no_gradient_of_its_statistics():
    model = act_norm_flow()
    assert not any(weight.path.endswith(("mean", "log_std")) for weight in model.trainable_weights)
