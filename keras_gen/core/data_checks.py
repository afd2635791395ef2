"""What `fit` and `evaluate` are given, checked before the first step: whole arrays, or the first batch of a source."""

import warnings
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.checks import check, check_image_range, check_no_scalar, is_array
from keras_gen.core.conditions import map_parts, names_of
from keras_gen.core.data import first_batch, is_source


def checked_data(model: Any, x: Any, y: Any = None, sample_weight: Any = None) -> Any:
    """Checks arrays, or the first batch of a dataset or generator; returns data that still begin with it."""
    check(x is not None, "x", "be given: arrays, a dataset or a generator", None)
    x = np.asarray(x) if hasattr(x, "__array__") and not is_array(x) else x  # a table of pandas, which Keras takes too
    is_nested = isinstance(x, list | tuple | dict)
    parts: list[Any] = list(x.values() if isinstance(x, dict) else x) if is_nested else []
    is_taken = isinstance(x, model.nested_data) and len(parts) > 0 if is_nested else is_source(x)
    check(is_taken, "x", "be one array, a dataset or a generator", f"a {type(x).__name__}")
    check(all(map(is_array, parts)), "x", "hold arrays", repr(x)[:80])
    is_whole = is_array(x) or isinstance(x, model.nested_data)
    check(y is None or is_whole, "y", "be None: a dataset or a generator yields it with each batch", "a value")
    if is_array(x) and len(x.shape) > 0:
        map_parts(lambda name, part: _check_rows(name, part, len(x)), names_of("y", y), y)
    model.check_data(x, y)
    batch, x = first_batch(x)
    if batch is None:
        has_target = sample_weight is None or y is not None
        check(has_target, "sample_weight", "come with `y`: Keras drops it otherwise", "an array")
        _check_weights(x, sample_weight)
        _check_range(model, x)
    else:
        first_x, first_y, first_weight = keras.utils.unpack_x_y_sample_weight(batch)
        keys = list(first_x) if isinstance(first_x, dict) else []
        rule = f"yield (x,) or (x, y), as `keras_gen.data.Batches(x, x=<key>, y=<key>)` does with keys of {keys}"
        is_taken = not isinstance(first_x, dict) or isinstance(first_x, model.nested_data)
        check(is_taken, "x", rule, "dicts")
        model.check_data(first_x, first_y)
        _check_weights(first_x, first_weight)
        _check_range(model, first_x)
    return x


def _check_range(model: Any, x: Any) -> None:
    doubt = check_image_range("x", x) if model.takes_unit_images else None
    if doubt and not model.warned_of_range:
        warnings.warn(doubt, stacklevel=5)
        model.warned_of_range = True


def _check_weights(x: Any, sample_weight: Any) -> None:
    if sample_weight is not None:
        check(is_array(sample_weight), "sample_weight", "be an array", f"a {type(sample_weight).__name__}")
        weight = ops.convert_to_numpy(sample_weight)
        n = len(keras.tree.flatten(x)[0])
        check(weight.shape in ((n,), (n, 1)), "sample_weight", f"have shape ({n},)", f"shape {weight.shape}")
        is_weight = np.isfinite(weight) & (weight >= 0)
        check(bool(is_weight.all()), "sample_weight", "be finite and >= 0", weight[~is_weight][:5])


def _check_rows(name: str, y: Any, n: int) -> None:
    """Checks that `y`, or a part of it, is an array beside `n` samples, or `None`."""
    check_no_scalar(name, y, n)
    check(y is None or is_array(y), name, "be an array, as x is", f"a {type(y).__name__}")
