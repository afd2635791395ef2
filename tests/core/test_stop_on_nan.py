"""What is left of a training run that has diverged."""

import warnings

import keras
import numpy as np
import pytest

from keras_gen.callbacks import StopOnNaN
from keras_gen.core.fixtures import to_numpy
from keras_gen.models import GAN, RealNVP

X = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")


def flow(**options):
    keras.utils.set_random_seed(1)
    model = RealNVP(2, [8], seed=0)
    model.compile(keras.optimizers.Adam(0.01, **options))
    model.build((None, 4))
    return model


def rates(*of_epochs):
    return keras.callbacks.LearningRateScheduler(lambda epoch: of_epochs[epoch])


def fit(model, *callbacks, epochs=1, x=X, **options):
    return model.fit(x, batch_size=8, epochs=epochs, shuffle=False, verbose=0, callbacks=[*callbacks], **options)


def state(model):
    return [
        to_numpy(variable).copy() for variable in [*model.variables[: len(model.weights)], *model.optimizer.variables]
    ]


def assert_same(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("use_ema", [False, True])
def test_the_run_ends_at_the_step_and_the_last_good_weights_are_back(use_ema, tmp_path):
    model, seen, batches = flow(use_ema=use_ema), [], []
    after = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(state(model)),
        on_train_batch_end=lambda batch, logs: batches.append(batch),
    )
    files = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
    match = r"loss=\S+ after step \d of epoch 3; \S+ has \d+ of \d+ values not finite, the others .*; they were in \["
    with pytest.warns(UserWarning, match=match) as caught:
        history = fit(model, StopOnNaN(), rates(0.01, 0.01, 1e30, 0.01), after, files, epochs=4).history
    [message] = [str(warning.message) for warning in caught if "StopOnNaN" in str(warning.message)]
    assert "put back to those of when epoch 2 ended" in message
    assert len(seen) == 3
    assert f"step {batches[-1] + 1} of epoch 3" in message
    assert np.isfinite(history["loss"][:2]).all()
    assert not np.isfinite(history["loss"][2])
    assert_same(seen[2], seen[1])
    loaded = keras.models.load_model(tmp_path / "3.keras")
    samples = model.sample(3, seed=0, verbose=0)
    assert np.isfinite(samples).all()
    np.testing.assert_allclose(loaded.sample(3, seed=0, verbose=0), samples, rtol=1e-5, atol=1e-6)
    # training goes on as if the third epoch had not been
    fit(model)
    whole = flow(use_ema=use_ema)
    fit(whole, epochs=3)
    for a, b in zip(model.trainable_weights, whole.trainable_weights, strict=True):
        np.testing.assert_allclose(to_numpy(a), to_numpy(b), rtol=1e-4, atol=1e-5)


def test_in_the_first_epoch_the_weights_at_the_start_are_put_back():
    model = flow()
    before = state(model)[: len(model.weights)]
    with pytest.warns(UserWarning, match="epoch 1; .* of when training began"):
        fit(model, StopOnNaN(), rates(1e30))
    assert_same(state(model)[: len(model.weights)], before)


def test_finite_losses_leave_training_alone():
    watched, alone = flow(), flow()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fit(watched, StopOnNaN(), epochs=3)
    fit(alone, epochs=3)
    assert_same(state(watched), state(alone))


def test_a_last_step_that_breaks_the_weights_is_seen_at_the_end_of_the_epoch():
    """Its loss is finite: it was computed before."""
    model = flow()
    start = state(model)[: len(model.weights)]
    with pytest.warns(
        UserWarning, match="a finite loss, but weights that are not finite, at the end of epoch 1; .* began"
    ):
        history = fit(model, StopOnNaN(), rates(np.inf, 0.01), epochs=2, x=X[:8]).history
    assert np.isfinite(history["loss"]).all()
    assert len(history["loss"]) == 1
    assert_same(state(model)[: len(model.weights)], start)


def test_infinite_values_of_a_mask_are_none_of_its_business():
    class Masked(keras.layers.Layer):
        def build(self, shape):
            self.mask = self.add_weight(shape=(4,), initializer="zeros", trainable=False, name="mask")

        def call(self, x):
            return keras.ops.where(keras.ops.isfinite(self.mask), x, 0.0)

    model = keras.Sequential([keras.Input((4,)), Masked(), keras.layers.Dense(1)])
    model.layers[0].mask.assign([0, 0, 0, -np.inf])
    model.compile("sgd", "mse")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert len(fit(model, StopOnNaN(), epochs=2, y=X[:, :1]).history["loss"]) == 2


def test_any_model_of_keras_and_both_losses_of_a_gan():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, name="line")])
    model.compile(keras.optimizers.SGD(1e30), "mse")
    with pytest.warns(UserWarning, match="line/kernel has 4 of 4 values not finite, the others none; they were in"):
        fit(model, StopOnNaN(), y=X[:, :1])
    noise = keras.Input((2,))
    generator = keras.Model(noise, keras.layers.Dense(4)(noise) * np.float32(np.inf))
    gan = GAN(generator, keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)]), seed=0)
    gan.compile("adam")
    with pytest.warns(UserWarning, match="generator_loss=nan, .*after step 1 of epoch 1"):
        fit(gan, StopOnNaN())
    assert np.isfinite(np.concatenate([to_numpy(weight).ravel() for weight in gan.weights])).all()


def test_models_that_are_built_by_their_first_batch():
    model = RealNVP(2, [8], seed=0)
    model.compile(keras.optimizers.Adam(1e30))
    with pytest.warns(UserWarning, match="of when training began"):
        fit(model, StopOnNaN())
    assert np.isfinite(model.sample(3, seed=0, verbose=0)).all()
