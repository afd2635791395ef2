"""The laws that every class of the library obeys, as checks that authors of further layers and models can call too.

    check_layer(lambda: MyLayer(4), np.zeros((2, 5, 4), "float32"))

Each check raises `AssertionError` with the law that is broken. They run on whatever backend Keras runs on.
"""

import inspect
import json
import pathlib
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.compiled import compiled
from keras_gen.core.fixtures import (
    as_inputs,
    flat_numpy,
    functional,
    made_alike,
    randomize_weights,
    save_and_load,
    to_numpy,
)


def check_layer(
    make: Callable[[], keras.Layer], *arrays: np.ndarray, random: bool = False, rtol: float = 1e-5, atol: float = 1e-5
) -> None:
    """Checks a layer: configuration, files, functional use, compilation, gradients, seeds, mixed precision.

    Args:
        make: returns a new layer, with the same arguments (and the same `seed`, if it has one) each time.
        *arrays: one array for each input, batch first. Several are passed as a list.
        random: bool. Whether the layer draws also with `training=False`. Defaults to `False`.
        rtol: float. Relative tolerance between two ways to compute the same. Defaults to `1e-5`.
        atol: float. Absolute tolerance. Defaults to `1e-5`.

    Raises:
        AssertionError: with the broken law.
    """
    check_config(make)
    model = functional(make(), *arrays)
    randomize_weights(model)
    inputs = as_inputs(arrays)
    eager = flat_numpy(model(inputs, training=False))
    _check_symbolic(model, inputs)
    if not random:
        _same(eager, flat_numpy(model(inputs, training=False)), 0, 0, "training=False must be deterministic")
        run = compiled(model, lambda tensors: model(tensors, training=False))
        _same(eager, flat_numpy(run(inputs)), rtol, atol, "compiled must equal eager")
        _same(eager, flat_numpy(save_and_load(model)(inputs, training=False)), rtol, atol, "a file must restore it")
    _check_seeds(make, arrays, random)
    _check_gradients(model, arrays)
    _check_mixed_precision(make, arrays)


def check_bijector(
    make: Callable[[], keras.Layer],
    x: np.ndarray,
    condition: np.ndarray | None = None,
    tolerance: float = 1e-5,
    jacobian: bool = True,
) -> None:
    """Checks a bijector: its configuration, and with random weights the laws of `check_directions`.

    Args:
        make: returns a new bijector.
        x: `(batch, ...)`, a small batch of few dimensions, in the bijector's dtype.
        condition: `(batch, ...)` or `None`. Defaults to `None`.
        tolerance: float, relative and absolute. Defaults to `1e-5`.
        jacobian: bool. Whether the forward direction has a derivative, as that of `Dequantize` has not. Defaults to
            `True`.

    Raises:
        AssertionError: with the broken law.
    """
    check_config(make)
    bijector = make()
    bijector(x, *([] if condition is None else [condition]))
    randomize_weights(bijector)
    check_directions(bijector, x, condition, tolerance, jacobian)


def check_directions(
    bijector: keras.Layer,
    x: np.ndarray,
    condition: np.ndarray | None = None,
    tolerance: float = 1e-5,
    jacobian: bool = True,
) -> None:
    """Checks both directions of a bijector, with the weights that it has.

        inverse(forward(x)) = x,   log_det = log |det dy/dx|,   log_det of the inverse = -log_det

    The Jacobian is taken column by column by forward-mode automatic differentiation. Arguments as for `check_bijector`.

    Raises:
        AssertionError: with the broken law.
    """
    options = {} if condition is None else {"condition": ops.convert_to_tensor(condition)}
    x = ops.convert_to_tensor(x)
    y, log_det = bijector(x, **options)
    back, inverse_log_det = bijector(y, inverse=True, **options)
    batch = x.shape[0]
    _require(tuple(log_det.shape) == (batch,), f"log_det must have shape ({batch},), not {tuple(log_det.shape)}")
    _same([to_numpy(x)], [to_numpy(back)], tolerance, tolerance, "inverse(forward(x)) must be x")
    log_dets = [to_numpy(log_det)], [-to_numpy(inverse_log_det)]
    _same(*log_dets, tolerance, tolerance, "the inverse's log_det must be minus the forward's")
    if jacobian:
        expected = _log_det_of_jacobian(lambda x: bijector(x, **options)[0], x)
        _same([expected], [to_numpy(log_det)], tolerance, tolerance, "log_det must be that of the Jacobian")


def check_model(make: Callable[[], keras.Model], x: np.ndarray, y: np.ndarray | None = None, epochs: int = 8) -> None:
    """Checks a generative model: configuration, files, training, resumed training, sampling, seeds.

    Args:
        make: returns a new compiled model, with the same arguments and the same seed each time.
        x: training data.
        y: labels or conditions, if the model takes them. Defaults to `None`.
        epochs: int >= 2. After how many the loss must have fallen. Defaults to `8`.

    Raises:
        AssertionError: with the broken law.
    """
    check_config(make)
    fit = {"x": x, "y": y, "batch_size": max(1, len(x) // 4), "shuffle": False, "verbose": 0}
    model = made_alike(make)
    losses = model.fit(epochs=epochs, callbacks=[_BuiltOptimizer()], **fit).history["loss"]
    _require(np.isfinite(losses).all(), f"the loss must be finite: {losses}")
    _require(min(losses[1:]) < losses[0], f"`fit` must lower the loss: {losses}")
    _check_resume(make, fit)

    options = {} if y is None else {"condition": y[:3]}
    samples = model.sample(3, seed=1, verbose=0, **options)
    _require(isinstance(samples, np.ndarray), "`sample` must return NumPy")
    _require(samples.shape == (3, *x.shape[1:]), f"`sample` must return the data's shape, not {samples.shape}")
    _require(bool(np.isfinite(samples).all()), "samples must be finite")
    again = model.sample(3, seed=1, verbose=0, **options)
    _same([samples], [again], 0, 0, "one seed must give one draw")
    fresh = [model.sample(3, verbose=0, **options) for _ in range(2)]
    _require(np.abs(fresh[0] - fresh[1]).max() > 1e-3, "without a seed, the next call must give another draw")
    loaded = save_and_load(model).sample(3, seed=1, verbose=0, **options)
    _same([samples], [loaded], 1e-6, 1e-6, "a file must restore the model")


def check_config(make: Callable[[], Any]) -> None:
    """Checks that `from_config` and Keras's serialization both restore an object's configuration, through JSON."""
    original = make()
    serialized = json.loads(json.dumps(keras.saving.serialize_keras_object(original)))
    key = serialized["registered_name"]
    _require(key == f"keras_gen>{type(original).__name__}" or not key.startswith("keras_gen>"), f"wrong key {key}")
    restored = keras.saving.deserialize_keras_object(serialized)
    config, other = (keras.saving.serialize_keras_object(thing)["config"] for thing in (original, restored))
    _require(json.dumps(config) == json.dumps(other), f"the configuration must survive: {config} became {other}")


def _require(holds: bool, law: str) -> None:
    if not holds:
        raise AssertionError(law)


def _same(expected: Any, actual: Any, rtol: float, atol: float, law: str) -> None:
    for a, b in zip(expected, actual, strict=True):
        np.testing.assert_allclose(b, a, rtol=rtol, atol=atol, err_msg=law)


def _log_det_of_jacobian(function: Callable[[Any], Any], x: Any) -> np.ndarray:
    batch, size = x.shape[0], int(np.prod(x.shape[1:]))
    jacobian = np.empty((batch, size, size))
    for i in range(size):
        tangent = np.zeros((batch, size))
        tangent[:, i] = 1
        direction = ops.cast(ops.reshape(ops.convert_to_tensor(tangent), x.shape), x.dtype)
        _, column = ops.jvp(function, (x,), (direction,))
        jacobian[:, :, i] = to_numpy(column).reshape(batch, size)
    return np.linalg.slogdet(jacobian)[1]


def _check_symbolic(model: keras.Model, inputs: Any) -> None:
    outputs = keras.tree.flatten(model(inputs, training=False))
    for symbolic, eager in zip(model.outputs, outputs, strict=True):
        fits = all(a in (None, b) for a, b in zip(symbolic.shape, eager.shape, strict=True))
        _require(fits, f"symbolic shape {symbolic.shape} must be the eager one, {tuple(eager.shape)}")
        dtype = keras.backend.standardize_dtype(eager.dtype)
        _require(symbolic.dtype == dtype, f"symbolic dtype {symbolic.dtype} must be the eager one, {dtype}")


def _check_seeds(make: Callable[[], keras.Layer], arrays: Sequence[np.ndarray], random: bool) -> None:
    first, twin = functional(make(), *arrays), functional(make(), *arrays)
    randomize_weights(first)
    randomize_weights(twin)
    inputs = as_inputs(arrays)
    draws = [flat_numpy(model(inputs, training=True)) for model in (first, twin, first)]
    _same(draws[0], draws[1], 1e-6, 1e-6, "the same seed must give the same draw")
    if random:
        moved = any(np.abs(a - b).max() > 0 for a, b in zip(draws[0], draws[2], strict=True))
        _require(moved, "the next call must give another draw")


def _check_gradients(model: keras.Model, arrays: Sequence[np.ndarray]) -> None:
    if not model.trainable_weights:
        return
    generator = np.random.default_rng(1)
    targets = [generator.standard_normal((len(arrays[0]), *output.shape[1:])) for output in model.outputs]
    before = {weight.path: to_numpy(weight).copy() for weight in model.trainable_weights}
    model.compile(keras.optimizers.SGD(0.1), loss="mse", run_eagerly=True)
    model.train_on_batch(list(arrays) if len(arrays) > 1 else arrays[0], targets if len(targets) > 1 else targets[0])
    for weight in model.trainable_weights:
        _require(not np.array_equal(before[weight.path], to_numpy(weight)), f"a gradient must reach {weight.path}")


def _check_mixed_precision(make: Callable[[], keras.Layer], arrays: Sequence[np.ndarray]) -> None:
    config = make().get_config()
    layer = type(make()).from_config({**config, "dtype": "mixed_bfloat16"})
    model = functional(layer, *arrays)
    outputs = keras.tree.flatten(model(as_inputs(arrays), training=False))
    _require(all(np.isfinite(to_numpy(output)).all() for output in outputs), "mixed_bfloat16 must give finite values")
    for weight in layer.weights:
        _require(weight.dtype != "bfloat16", f"mixed_bfloat16 must keep {weight.path} in float32")


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
        _same([to_numpy(a)], [to_numpy(b)], 1e-4, 1e-5, f"a resumed `fit` must continue as the whole one: {a.path}")


def _build_shapes(model: keras.Model, fit: dict[str, Any]) -> list[tuple[int | None, ...]]:
    conditional = fit["y"] is not None and "condition_shape" in inspect.signature(type(model).build).parameters
    return [(None, *fit[name].shape[1:]) for name in (("x", "y") if conditional else ("x",))]


class _BuiltOptimizer(keras.callbacks.Callback):
    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        law = "before the first step: TensorFlow traces one that makes variables twice"
        _require(self.model.optimizer.built, f"the optimizer must have its variables {law}")


class _StopAfterFirstEpoch(keras.callbacks.Callback):
    def __init__(self, path: pathlib.Path):
        super().__init__()
        self.path = path

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.model.save_weights(self.path)
        self.model.stop_training = True
