"""Laws of generative models."""

import inspect
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_gen.core.conditions import map_parts
from keras_gen.core.fixtures import made_alike, save_and_load, to_numpy
from keras_gen.testing.common import check_frozen, require, same
from keras_gen.testing.config import check_config


def check_model(make: Callable[[], keras.Model], x: np.ndarray, y: Any = None, epochs: int = 8) -> None:
    """Checks a generative model: configuration, files, training, resumed training, freezing, sampling, seeds.

    Args:
        make: returns a new compiled model, with the same arguments and the same seed each time.
        x: training data.
        y: labels or conditions, an array or a dict of arrays, if the model takes them. Defaults to `None`.
        epochs: int >= 2. Number of epochs after which the loss must have decreased. Defaults to `8`.

    Raises:
        AssertionError: with the violated law.
    """
    check_config(make)
    fit = {"x": x, "y": y, "batch_size": max(1, len(x) // 4), "shuffle": False, "verbose": 0}
    model = made_alike(make)
    losses = model.fit(epochs=epochs, callbacks=[_BuiltOptimizer()], **fit).history["loss"]
    require(np.isfinite(losses).all(), f"the loss must be finite: {losses}")
    require(min(losses[1:]) < losses[0], f"`fit` must lower the loss: {losses}")
    _check_resume(make, fit)

    options = {} if y is None else {"condition": map_parts(lambda part: part[:3], y)}
    samples = model.sample(3, seed=1, verbose=0, **options)
    require(isinstance(samples, np.ndarray), "`sample` must return NumPy")
    require(samples.shape == (3, *x.shape[1:]), f"`sample` must return the data's shape, not {samples.shape}")
    require(bool(np.isfinite(samples).all()), "samples must be finite")
    again = model.sample(3, seed=1, verbose=0, **options)
    same([samples], [again], 0, 0, "one seed must give one draw")
    fresh = [model.sample(3, verbose=0, **options) for _ in range(2)]
    require(np.abs(fresh[0] - fresh[1]).max() > 1e-3, "without a seed, the next call must give another draw")
    loaded = save_and_load(model).sample(3, seed=1, verbose=0, **options)
    same([samples], [loaded], 1e-6, 1e-6, "a file must restore the model")
    check_frozen(model)


def _check_resume(make: Callable[[], keras.Model], fit: dict[str, Any]) -> None:
    whole = made_alike(make)
    whole.fit(epochs=2, **fit)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "first.weights.h5"
        first = made_alike(make)
        first.fit(epochs=2, callbacks=[_StopAfterFirstEpoch(path)], **fit)
        keras.utils.set_random_seed(1)
        second = make()
        second.build(*_build_shapes(second, fit))
        second.optimizer.build(second.trainable_variables)
        second.load_weights(path)
        second.fit(epochs=2, initial_epoch=1, **fit)
    pairs = zip(whole.weights, second.weights, strict=True)
    for a, b in pairs:
        same([to_numpy(a)], [to_numpy(b)], 1e-4, 1e-5, f"a resumed `fit` must continue as the whole one: {a.path}")


def _build_shapes(model: keras.Model, fit: dict[str, Any]) -> list[tuple[int | None, ...]]:
    conditional = fit["y"] is not None and "condition_shape" in inspect.signature(type(model).build).parameters
    return [(None, *fit[name].shape[1:]) for name in (("x", "y") if conditional else ("x",))]


class _BuiltOptimizer(keras.callbacks.Callback):
    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        law = "before the first step: TensorFlow traces one that makes variables twice"
        require(self.model.optimizer.built, f"the optimizer must have its variables {law}")


class _StopAfterFirstEpoch(keras.callbacks.Callback):
    def __init__(self, path: pathlib.Path):
        super().__init__()
        self.path = path

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.model.save_weights(self.path)
        self.model.stop_training = True
