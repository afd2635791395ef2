"""What the weights are when an optimizer keeps averages of them: see `keras_gen/core/averages.py`."""

import keras
import numpy as np
import pytest

from keras_gen.models import GAN, RealNVP

X = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")


def flow(**options):
    keras.utils.set_random_seed(1)
    model = RealNVP(2, [8], seed=0)
    model.compile(keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.9), **options)
    model.build((None, 4))
    return model


def fit(model, epochs=1, callbacks=(), **options):
    return model.fit(X, batch_size=16, epochs=epochs, shuffle=False, verbose=0, callbacks=[*callbacks], **options)


def weights(model):
    return np.concatenate([keras.ops.convert_to_numpy(weight).ravel() for weight in model.trainable_weights])


def assign(model, values):
    ends = np.cumsum([np.prod(weight.shape, dtype=int) for weight in model.trainable_weights])
    for weight, value in zip(model.trainable_weights, np.split(values, ends[:-1]), strict=True):
        weight.assign(value.reshape(weight.shape))


def at_epoch_ends(function):
    return keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: function())


def expected():
    """The averages after one epoch and after two, and the weights of training after two: Keras's own numbers."""
    model, seen = flow(), []
    optimizer = model.optimizer

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.jax_state_sync() if keras.backend.backend() == "jax" else None
            averages = [keras.ops.convert_to_numpy(v).ravel() for v in optimizer._model_variables_moving_average]
            seen.append((np.concatenate(averages), weights(self.model)))

    fit(model, 2, [Watch()])
    return seen[1][0], seen[3][0], seen[3][1]


def test_callbacks_and_what_is_left_are_the_averages():
    first, second, _ = expected()
    model, seen, drawn = flow(), [], []
    fit(model, 2, [at_epoch_ends(lambda: seen.append(weights(model)))])
    np.testing.assert_allclose(seen, [first, second], rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(weights(model), seen[1])
    fit(model, 1, [at_epoch_ends(lambda: drawn.append(model.sample(3, seed=0, verbose=0)))])
    np.testing.assert_array_equal(drawn[0], model.sample(3, seed=0, verbose=0))


def test_fits_in_a_row_are_one_fit_also_through_a_file(tmp_path):
    whole, parts = flow(), flow()
    fit(whole, 3)
    fit(parts, 1)
    samples = parts.sample(3, seed=0, verbose=0)
    parts.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.sample(3, seed=0, verbose=0), samples, rtol=1e-5, atol=1e-6)
    fit(loaded, 1)
    fit(loaded, 1)
    np.testing.assert_allclose(weights(loaded), weights(whole), rtol=1e-4, atol=1e-6)


def test_a_file_saved_after_a_batch_holds_the_averages_and_the_weights(tmp_path):
    whole, model = flow(), flow()
    fit(whole, 1)
    every_batch = keras.callbacks.ModelCheckpoint(tmp_path / "model.keras", save_freq=1)
    light = keras.callbacks.ModelCheckpoint(tmp_path / "model.weights.h5", save_freq=2, save_weights_only=True)
    fit(model, 1, [every_batch, light])
    np.testing.assert_allclose(weights(model), weights(whole), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(weights(keras.models.load_model(tmp_path / "model.keras")), weights(model))
    other = flow()
    other.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(weights(other), weights(model))


def test_the_best_are_the_averages_and_judged_by_them():
    """Also with Keras's callback for this, which would evaluate the weights of training."""
    model, losses, kept = flow(), [], []
    best = keras.callbacks.EarlyStopping(monitor="val_loss", patience=5, restore_best_weights=True)
    watch = at_epoch_ends(lambda: kept.append(weights(model)))
    callbacks = [keras.callbacks.SwapEMAWeights(), best, watch]
    history = fit(model, 3, callbacks, validation_data=(X, None)).history
    np.testing.assert_array_equal(weights(model), kept[int(np.argmin(history["val_loss"]))])
    for value in kept:
        assign(model, value)
        losses.append(model.evaluate(X, batch_size=16, verbose=0)[0])
    np.testing.assert_allclose(history["val_loss"], losses, rtol=1e-4)


def test_an_interrupted_fit_leaves_the_averages():
    first, _, _ = expected()
    model = flow()

    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(model, 1, [Interrupt()])
    np.testing.assert_allclose(weights(model), first, rtol=1e-4, atol=1e-6)


def test_weights_that_are_assigned_are_those_from_which_training_goes_on():
    model, seen = flow(), []
    fit(model, 1)
    values = weights(model) * 0 + np.float32(0.01)
    assign(model, values)
    fit(model, 1, [keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: seen.append(weights(model)))])
    np.testing.assert_array_equal(seen[0], values)
    assert np.abs(weights(model) - 0.01).max() < 0.05


def test_averaged_weights():
    model, during = flow(), []
    with model.averaged_weights():  # before the first step there are none
        before = weights(model)
    np.testing.assert_array_equal(before, weights(model))

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raw = weights(self.model)
            with model.averaged_weights():
                during.append(weights(model))
                with model.averaged_weights():
                    np.testing.assert_array_equal(weights(model), during[-1])
            np.testing.assert_array_equal(weights(model), raw)
            assert np.abs(raw - during[-1]).max() > 1e-6 or batch == 0

    fit(model, 1, [Watch()])
    np.testing.assert_array_equal(weights(model), during[-1])
    plain = RealNVP(2, [8])
    plain.build((None, 4))
    before = weights(plain)
    with plain.averaged_weights():
        np.testing.assert_array_equal(weights(plain), before)


@pytest.mark.parametrize("swap_on_epoch", [True, False])
def test_a_callback_that_swaps_them_takes_nothing_out(swap_on_epoch):
    first, second, _ = expected()
    model, seen = flow(), []
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=swap_on_epoch)
    fit(model, 2, [swap, at_epoch_ends(lambda: seen.append(weights(model)))])
    np.testing.assert_allclose(seen, [first, second], rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(weights(model), seen[1])


def test_the_optimizers_of_several_parts(tmp_path):
    keras.utils.set_random_seed(0)
    generator = keras.Sequential([keras.Input((2,)), keras.layers.Dense(4)])
    discriminator = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model = GAN(generator, discriminator, seed=0)
    model.compile(keras.optimizers.Adam(0.01), keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.9))
    fit(model, 2)
    averaged = discriminator.get_weights()[0]
    begin = []
    watch = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: begin.append(discriminator.get_weights()))
    fit(model, 1, [watch])
    assert np.abs(begin[0][0] - averaged).max() > 1e-4
