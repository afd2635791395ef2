"""Laws of layers."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_gen.core.compiled import compiled
from keras_gen.core.fixtures import as_inputs, flat_numpy, functional, randomize_weights, save_and_load, to_numpy
from keras_gen.testing.common import check_frozen, require, same
from keras_gen.testing.config import check_config


def check_layer(
    make: Callable[[], keras.Layer], *arrays: Any, random: bool = False, rtol: float = 1e-5, atol: float = 1e-5
) -> None:
    """Checks a layer: configuration, files, functional use, compilation, gradients, freezing, seeds, mixed precision.

    Args:
        make: returns a new layer, with the same arguments (and the same `seed`, if it has one) each time.
        *arrays: one array, or dict of arrays, for each input, batch first. Several are passed as a list.
        random: bool. Whether the layer draws random numbers with `training=False`, too. Defaults to `False`.
        rtol: float. Relative tolerance between equivalent computations. Defaults to `1e-5`.
        atol: float. Absolute tolerance. Defaults to `1e-5`.

    Raises:
        AssertionError: with the violated law.
    """
    check_config(make)
    model = functional(make(), *arrays)
    randomize_weights(model)
    inputs = as_inputs(arrays)
    outputs = model(inputs, training=False)
    eager = flat_numpy(outputs)
    _check_symbolic(model, outputs)
    if not random:
        same(eager, flat_numpy(model(inputs, training=False)), 0, 0, "training=False must be deterministic")
        run = compiled(model, lambda tensors: model(tensors, training=False))
        same(eager, flat_numpy(run(inputs)), rtol, atol, "compiled must equal eager")
        same(eager, flat_numpy(save_and_load(model)(inputs, training=False)), rtol, atol, "a file must restore it")
    _check_seeds(make, arrays, random)
    _check_gradients(model, arrays)
    check_frozen(model)
    _check_frozen_whole(make, arrays)
    _check_mixed_precision(make, arrays)


def _check_symbolic(model: keras.Model, outputs: Any) -> None:
    for symbolic, eager in zip(model.outputs, keras.tree.flatten(outputs), strict=True):
        fits = all(a in (None, b) for a, b in zip(symbolic.shape, eager.shape, strict=True))
        require(fits, f"symbolic shape {symbolic.shape} must be the eager one, {tuple(eager.shape)}")
        dtype = keras.backend.standardize_dtype(eager.dtype)
        require(symbolic.dtype == dtype, f"symbolic dtype {symbolic.dtype} must be the eager one, {dtype}")


def _check_seeds(make: Callable[[], keras.Layer], arrays: Sequence[Any], random: bool) -> None:
    first, twin = functional(make(), *arrays), functional(make(), *arrays)
    randomize_weights(first)
    randomize_weights(twin)
    inputs = as_inputs(arrays)
    draws = [flat_numpy(model(inputs, training=True)) for model in (first, twin, first)]
    same(draws[0], draws[1], 1e-6, 1e-6, "the same seed must give the same draw")
    if random:
        moved = any(np.abs(a - b).max() > 0 for a, b in zip(draws[0], draws[2], strict=True))
        require(moved, "the next call must give another draw")


def _check_gradients(model: keras.Model, arrays: Sequence[Any]) -> None:
    if not model.trainable_weights:
        return
    generator, flat = np.random.default_rng(1), keras.tree.flatten(list(arrays))
    targets = [generator.standard_normal((len(flat[0]), *output.shape[1:])) for output in model.outputs]
    before = {weight.path: to_numpy(weight).copy() for weight in model.trainable_weights}
    model.compile(keras.optimizers.SGD(0.1), loss="mse", run_eagerly=True)
    model.train_on_batch(flat if len(flat) > 1 else flat[0], targets if len(targets) > 1 else targets[0])
    for weight in model.trainable_weights:
        require(not np.array_equal(before[weight.path], to_numpy(weight)), f"a gradient must reach {weight.path}")


def _check_frozen_whole(make: Callable[[], keras.Layer], arrays: Sequence[Any]) -> None:
    # By the configuration alone, as for a clone: before the layer has its sublayers.
    layer = type(make()).from_config({**make().get_config(), "trainable": False})
    model = functional(layer, *arrays)
    law = "`trainable=False` must reach all weights"
    require(not model.trainable_variables, f"{law}: {[v.path for v in model.trainable_variables]}")


def _check_mixed_precision(make: Callable[[], keras.Layer], arrays: Sequence[Any]) -> None:
    config = make().get_config()
    layer = type(make()).from_config({**config, "dtype": "mixed_bfloat16"})
    model = functional(layer, *arrays)
    outputs = keras.tree.flatten(model(as_inputs(arrays), training=False))
    require(all(np.isfinite(to_numpy(output)).all() for output in outputs), "mixed_bfloat16 must give finite values")
    for weight in layer.weights:
        require(weight.dtype != "bfloat16", f"mixed_bfloat16 must keep {weight.path} in float32")
