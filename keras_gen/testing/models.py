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
    with tempfile.TemporaryDirectory() as folder:
        model, first_epochs = made_alike(make), _FirstEpochs(pathlib.Path(folder) / "first.weights.h5")
        losses = model.fit(epochs=epochs, callbacks=[_BuiltOptimizer(), first_epochs], **fit).history["loss"]
        require(np.isfinite(losses).all(), f"the loss must be finite: {losses}")
        require(min(losses[1:]) < losses[0], f"`fit` must lower the loss: {losses}")
        _check_resume(make, fit, first_epochs)

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


def _check_resume(make: Callable[[], keras.Model], fit: dict[str, Any], uninterrupted: "_FirstEpochs") -> None:
    keras.utils.set_random_seed(1)
    resumed = make()
    resumed.build(*_build_shapes(resumed, fit))
    resumed.optimizer.build(resumed.trainable_variables)
    resumed.load_weights(uninterrupted.path)
    resumed.fit(epochs=2, initial_epoch=1, **fit)
    for weight, expected in zip(resumed.weights, uninterrupted.weights, strict=True):
        law = f"a resumed `fit` must continue as the whole one: {weight.path}"
        same([expected], [to_numpy(weight)], 1e-4, 1e-5, law)


def _build_shapes(model: keras.Model, fit: dict[str, Any]) -> list[tuple[int | None, ...]]:
    conditional = fit["y"] is not None and "condition_shape" in inspect.signature(type(model).build).parameters
    return [(None, *fit[name].shape[1:]) for name in (("x", "y") if conditional else ("x",))]


class _BuiltOptimizer(keras.callbacks.Callback):
    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        law = "before the first step: TensorFlow traces one that makes variables twice"
        require(self.model.optimizer.built, f"the optimizer must have its variables {law}")


class _FirstEpochs(keras.callbacks.Callback):
    """Writes the weights after the first epoch to a file, and keeps those after the second one."""

    def __init__(self, path: pathlib.Path):
        super().__init__()
        self.path = path

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if epoch == 0:
            self.model.save_weights(self.path)
        elif epoch == 1:
            self.weights = [to_numpy(weight).copy() for weight in self.model.weights]
