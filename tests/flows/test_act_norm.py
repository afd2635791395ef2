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


@pytest.mark.parametrize("value", [0.0, 3.0, 1000.1])
def test_act_norm_of_a_constant_feature_is_finite(value):
    x = vectors(64, 3)
    x[:, 1] = value
    for part in run(ActNorm(), x, training=True):
        assert np.isfinite(part).all()


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
