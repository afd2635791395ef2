"""Argument checks with a common error message: `name` must <rule>. Received: name=value."""

import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeGuard, TypeVar

import keras
import numpy as np
from keras import ops
from keras.tree import flatten

Given = TypeVar("Given")

NUMPY = np.ndarray | np.generic | int | float | list | tuple | range  # kinds whose values can be read
MOST_LAYERS = 10_000  # more would take hours to build: such a number is a slip


def check(is_valid: bool, name: str, rule: str, value: Any) -> None:
    """Raises `ValueError` unless `is_valid`."""
    if not is_valid:
        raise ValueError(f"`{name}` must {rule}. Received: {name}={value}")


def check_given(name: str, value: Given | None, rule: str) -> Given:
    """Checks that `value` is not `None`, and returns it."""
    if value is None:
        raise ValueError(f"`{name}` must {rule}. Received: {name}={value}")
    return value


def check_choice(name: str, value: Any, choices: Iterable[str]) -> None:
    """Checks that `value` is one of the strings `choices`."""
    check(isinstance(value, str) and value in choices, name, f"be one of {', '.join(map(repr, choices))}", repr(value))


def is_integer(value: Any) -> TypeGuard[int]:
    """Returns whether `value` is a Python or NumPy integer (a bool is not)."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool | np.bool_)


def check_integer(name: str, value: Any, at_least: int = 1) -> int:
    """Checks that `value` is an integer >= `at_least`, and returns it as a Python int."""
    check(is_integer(value) and value >= at_least, name, f"be an integer >= {at_least}", repr(value))
    return int(value)


def check_integer_or_none(name: str, value: Any, at_least: int = 1) -> int | None:
    """Checks that `value` is `None` or an integer >= `at_least`, and returns it, an integer as a Python int."""
    return None if value is None else check_integer(name, value, at_least)


def check_divides(name: str, value: int, channels: int) -> None:
    """Checks that `value`, a number of groups or heads, divides a number of channels."""
    check(channels % value == 0, name, f"divide {channels} channels", value)


def check_depth(name: str, value: Any, at_least: int = 1) -> int:
    """Checks the number of layers that are built one by one, an integer from `at_least` to `MOST_LAYERS`."""
    value = check_integer(name, value, at_least)
    check(value <= MOST_LAYERS, name, f"be at most {MOST_LAYERS:,}, as each layer is built", value)
    return value


def check_flag(name: str, value: Any) -> bool:
    """Checks that `value` is a bool, as the string "False" is true, and returns it as a Python bool."""
    check(isinstance(value, bool | np.bool_), name, "be True or False", repr(value))
    return bool(value)


def check_verbose(verbose: Any) -> None:
    """Checks that `verbose` is one of Keras's values: `"auto"`, 0, 1 or 2, or a bool."""
    is_level = is_integer(verbose) and verbose in (0, 1, 2)
    is_auto = isinstance(verbose, str) and verbose == "auto"
    check(is_level or is_auto or isinstance(verbose, bool), "verbose", "be 'auto', 0, 1 or 2", repr(verbose))


def check_units(units: Any) -> list[int]:
    """Checks the sizes of hidden layers and returns them as a list."""
    check(isinstance(units, list | tuple), "units", "be a list of integers >= 1", units)
    return [check_integer("units", size) for size in units]


def check_layer(name: str, layer: Any) -> None:
    """Checks that `layer` is a Keras layer or model."""
    check(isinstance(layer, keras.Layer), name, "be a keras.Layer or keras.Model", layer)


def is_number(value: Any) -> TypeGuard[float]:
    """Returns whether `value` is a real Python or NumPy number, neither NaN nor infinite."""
    return isinstance(value, numbers.Real) and math.isfinite(value)


def check_numbers(name: str, value: Any, at_least: int = 1) -> list[int] | list[float]:
    """Checks that `value` is a sequence of >= `at_least` numbers, and returns a list, of ints if all are integers."""
    values = np.asarray(on_host(value))
    rule = f"be a sequence of at least {at_least} numbers"
    check(values.ndim == 1 and values.dtype.kind in "iuf" and len(values) >= at_least, name, rule, value)
    return values.tolist()


def check_fraction(name: str, value: Any, closed: bool = False) -> float:
    """Checks that `value` is in (0, 1), or in [0, 1] if `closed`, and returns it as a Python float."""
    is_inside = is_number(value) and (0 <= value <= 1 if closed else 0 < value < 1)
    check(is_inside, name, "be in [0, 1]" if closed else "be in (0, 1)", repr(value))
    return float(value)


def check_rate(name: str, value: Any) -> float:
    """Checks that `value` is in [0, 1), such as a rate of dropout, and returns it as a Python float."""
    check(is_number(value) and 0 <= value < 1, name, "be in [0, 1)", repr(value))
    return float(value)


def check_greater(name: str, value: Any, bound: int) -> float:
    """Checks that `value` is a finite number > `bound`, and returns it as a Python float."""
    check(is_number(value) and value > bound, name, f"be > {bound} and finite", repr(value))
    return float(value)


def check_positive(name: str, value: Any) -> float:
    """Checks that `value` is a finite number > 0, and returns it as a Python float."""
    return check_greater(name, value, 0)


def check_nonnegative(name: str, value: Any) -> float:
    """Checks that `value` is a finite number >= 0, and returns it as a Python float."""
    check(is_number(value) and value >= 0, name, "be >= 0 and finite", repr(value))
    return float(value)


def check_interval(name: str, value: Any) -> tuple[float, float] | None:
    """Checks that `value` is `None` or a pair with 0 <= low < high, and returns Python floats."""
    is_pair = isinstance(value, tuple | list) and len(value) == 2 and all(isinstance(x, numbers.Real) for x in value)
    rule = "be None or a pair (low, high) with 0 <= low < high"
    check(value is None or (is_pair and 0 <= value[0] < value[1]), name, rule, value)
    return None if value is None else (float(value[0]), float(value[1]))


def same_shape(a: Any, b: Any) -> bool:
    """Returns whether two shapes agree wherever both are known."""
    return len(a) == len(b) and all(m == n or None in (m, n) for m, n in zip(a, b, strict=True))


def check_broadcast(name: str, x: Any, shape: Any) -> None:
    """Checks that a number, array or tensor can be broadcast together with one of `shape`."""
    own = tuple(getattr(x, "shape", ()))
    sizes = zip(own[::-1], tuple(shape)[::-1], strict=False)
    is_broadcast = all(None in (m, n) or m == n or 1 in (m, n) for m, n in sizes)
    check(is_broadcast, name, f"broadcast with shape {tuple(shape)}", f"shape {own}")


def batch_of(shape: Iterable[Any]) -> str:
    """Formats the shape of n samples, as "(n, 8, 8, 1)"."""
    return f"({', '.join(map(str, ('n', *shape)))})"


def as_numpy(name: str, x: Any) -> np.ndarray:
    """Converts an array, a tensor or nested lists of real numbers to a NumPy array; raises for anything else."""
    check(is_numpy(x) or is_array(x), name, "be an array", type(x).__name__)
    return real_array(name, x)


def on_host(x: Any) -> Any:
    """Returns a tensor as a NumPy array, which NumPy does not make of one on an accelerator; anything else as it is."""
    return ops.convert_to_numpy(x) if is_array(x) else x


def finite_floats(name: str, x: Any) -> np.ndarray:
    """Converts data to a float32 array; raises for an empty array, integers and non-finite values."""
    x = as_numpy(name, x)
    check(x.ndim > 0 and len(x) > 0, name, "hold at least one sample", f"shape {x.shape}")
    check(x.dtype.kind == "f", name, "be floating-point", f"dtype {x.dtype}")
    finite = finite_rows(x)
    check(bool(finite.all()), name, "be finite", f"NaN or infinite values in {(~finite).sum()} of {len(x)} samples")
    return x.astype("float32", copy=False)


def is_numpy(x: Any) -> bool:
    """Returns whether `x` is a number, a NumPy array or nested lists of these, whose values can be read."""
    if isinstance(x, list | tuple):
        return not any(is_array(leaf) and not isinstance(leaf, NUMPY) for leaf in flatten(x))
    return isinstance(x, NUMPY)


def check_real(name: str, x: Any) -> None:
    """Checks that `x` is a real number, or that an array, a tensor or nested lists hold real numbers.

    Backends would drop the imaginary part of a complex number, and fail on strings, objects and ragged lists, each in
    its own words.
    """
    if isinstance(x, list | tuple) and not is_numpy(x):
        return  # of tensors, whose common dtype only the backend can tell
    x = x if is_array(x) else _regular(name, x)
    is_real = any(kind in str(x.dtype) for kind in ("float", "int", "bool"))
    check(is_real, name, "be real numbers", f"dtype {x.dtype}")


def _regular(name: str, x: Any) -> np.ndarray:
    try:
        return np.asarray(x)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`{name}` must be a regular array of numbers. Received: {name}={x!r}") from error


def check_finite(name: str, x: Any) -> None:
    """Checks that `x` holds real numbers, finite if they are in a NumPy array: a tensor may be of a training step."""
    check_real(name, x)
    if is_numpy(x):
        values = np.asarray(x)
        broken = values.size - np.count_nonzero(np.isfinite(values))
        check(broken == 0, name, "be finite", f"{broken} NaN or infinite values of {values.size}")


def real_tensor(name: str, x: Any, dtype: str | None = None) -> Any:
    """Converts real numbers to a tensor, of `dtype` if it is given; raises for anything else."""
    check_real(name, x)
    return ops.convert_to_tensor(x) if dtype is None else ops.cast(x, dtype)


def check_floats(name: str, x: Any) -> None:
    """Checks that a tensor is floating-point."""
    dtype = keras.backend.standardize_dtype(x.dtype)
    check("float" in dtype, name, "be floating-point", f"dtype {dtype}")


def float_tensors(named: dict[str, Any]) -> list[Any]:
    """Converts real numbers to tensors of one dtype, the widest of the floating-point tensors, or else float32."""
    for name, x in named.items():
        check_real(name, x)
    of_tensors = {keras.backend.standardize_dtype(x.dtype) for x in named.values() if not isinstance(x, NUMPY)}
    floats = {dtype for dtype in of_tensors if "float" in dtype}  # `result_type` of Keras 3.15 makes float64 float32
    widest = "float64" if "float64" in floats else "float32"
    dtype = floats.pop() if len(floats) == 1 else widest
    return [ops.cast(x, dtype) for x in named.values()]


def real_array(name: str, x: Any) -> np.ndarray:
    """Converts real numbers to a NumPy array; raises for anything else."""
    check_real(name, x)
    return x if isinstance(x, np.ndarray) else np.asarray(ops.convert_to_numpy(x))  # which also copies arrays


def finite_array(name: str, x: Any) -> np.ndarray:
    """Converts finite real numbers to a NumPy array; raises for anything else."""
    x = real_array(name, x)
    check_finite(name, x)
    return x


def check_entries(name: str, values: Any, is_valid: np.ndarray, rule: str) -> None:
    """Checks that all entries of an array are valid, by its first axes; an error shows five that are not."""
    check(bool(is_valid.all()), name, rule, np.asarray(values)[~is_valid][:5])


def check_scalar(name: str, value: Any) -> None:
    """Checks that `value` is a real number, or a tensor of one."""
    check_real(name, value)
    shape = tuple(getattr(value, "shape", np.shape(value)))
    check(shape == (), name, "be a number or a scalar tensor", f"shape {shape}")


def check_positive_values(name: str, value: Any) -> None:
    """Checks that a number, or each number of a NumPy array, is > 0 and finite; of tensors only that they are real."""
    check_real(name, value)
    is_positive = not is_numpy(value) or bool(np.all(np.isfinite(value) & (np.asarray(value) > 0)))
    check(is_positive, name, "be > 0 and finite", repr(value))


def is_array(x: Any) -> bool:
    """Returns whether `x` is an array or tensor, not a dataset or generator."""
    return hasattr(x, "shape") and hasattr(x, "dtype")


def check_images_dtype(name: str, images: Any) -> None:
    """Checks that images are floating-point: integer pixels most likely range over 0 .. 255."""
    dtype = keras.backend.standardize_dtype(images.dtype)
    check("float" in dtype, name, "be floating-point images, scaled to [-1, 1]", f"dtype {dtype}")


def check_image_range(name: str, images: Any) -> str | None:
    """Refuses images far beyond [-1, 1], as are pixels in 0 .. 255; returns a warning if they are doubtful.

    Judges nothing but floats `(n, height, width, channels)` of 1, 3 or 4 channels.
    """
    extremes = image_range(name, images)
    return None if extremes is None else check_unit_range(name, *extremes)


def image_range(name: str, images: Any) -> tuple[float, float] | None:
    """Returns the lowest and the highest value of floats `(n, height, width, channels)` of 1, 3 or 4 channels."""
    if not is_array(images) or len(images.shape) != 4 or images.shape[-1] not in (1, 3, 4) or 0 in images.shape:
        return None
    images = as_numpy(name, images)
    return (float(images.min()), float(images.max())) if images.dtype.kind == "f" else None


def check_unit_range(name: str, low: float, high: float) -> str | None:
    """Refuses a range of values far beyond [-1, 1]; returns a warning if it is doubtful."""
    received = f"values in [{low:.4g}, {high:.4g}]"
    far = max(-low, high) > 10
    check(not far, name, f"be images in [-1, 1]: of pixels in 0 .. 255, give `{name} / 127.5 - 1`", received)
    if max(-low, high) > 1.5:
        return f"`{name}` has {received}: are these images not scaled to [-1, 1]?"
    if low >= 0:
        return f"`{name}` has {received}, none below 0: images in [0, 1] are scaled to [-1, 1] by `2 * {name} - 1`"
    return None


def known_size(name: str, shape: Any) -> int:
    """Checks that the size of the last axis of `shape` is known, and returns it."""
    is_known = len(shape) > 0 and shape[-1] is not None
    check(is_known, name, "have a known number of channels", f"shape {tuple(shape)}")
    return shape[-1]


def known_shape(shape: Any, name: str, rule: str, value: Any) -> tuple[int, ...]:
    """Checks that `shape` is not `None` and has no unknown sizes, and returns it."""
    check(shape is not None and None not in shape, name, rule, value)
    return tuple(shape)


def check_image_shape(name: str, shape: Sequence[int | None], multiple: int, reason: str) -> None:
    """Checks that `shape` is that of an image whose height and width, where known, are multiples of `multiple`."""
    is_image = isinstance(shape, Sequence) and len(shape) == 3 and is_integer(shape[2]) and shape[2] >= 1
    check(is_image, name, "be images of shape (height, width, channels)", shape)
    is_divisible = all(size is None or (is_integer(size) and size >= 1 and size % multiple == 0) for size in shape[:2])
    check(is_divisible, name, f"have height and width that are multiples of {multiple}, {reason}", shape)


def as_images(name: str, images: Any) -> np.ndarray:
    """Converts images to a float32 array; raises for integer pixels, an empty batch and non-finite values."""
    is_convertible = isinstance(images, list | tuple) or hasattr(images, "dtype")
    check(is_convertible, name, "be an array of images", type(images).__name__)
    images = real_array(name, images)
    check_images_dtype(name, images)
    check(images.ndim > 0 and len(images) > 0, name, "hold at least one image", f"shape {images.shape}")
    check(bool(np.isfinite(images).all()), name, "be finite", "NaN or infinite values")
    return images.astype("float32", copy=False)


def check_no_scalar(name: str, values: Any, n: int) -> None:
    """Checks that `values` are not a single number, which `sample` would repeat, for `n` samples of training."""
    is_scalar = values is not None and (values.ndim if is_array(values) else _regular(name, values).ndim) == 0
    check(not is_scalar, name, f"have one entry for each of {n} samples", values)


def as_condition(name: str, condition: Any) -> np.ndarray:
    """Converts labels or other conditions to an array of real numbers."""
    check(not isinstance(condition, Mapping), name, "be one array", "a dict")
    is_plain = isinstance(condition, np.ndarray | str) or not is_array(condition)
    condition = _regular(name, condition) if is_plain else np.asarray(ops.convert_to_numpy(condition))
    rule = "be numbers: give integers for names of classes, as `np.unique(names, return_inverse=True)[1]`"
    check(condition.dtype.kind in "biuf", name, rule, f"dtype {condition.dtype}")
    return condition


def condition_rows(name: str, condition: Any, n: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Converts the conditions of `n` samples, or one condition for all of them, to a finite array `(n, *shape)`."""
    condition = as_condition(name, condition).astype(dtype)
    if condition.shape == shape:
        condition = np.repeat(condition[None], n, axis=0)
    expected = (n, *shape)
    check(condition.shape == expected, name, f"have shape {expected}", f"shape {condition.shape}")
    check(bool(np.isfinite(condition).all()), name, "be finite", "NaN or infinite values")
    return condition


def finite_rows(x: np.ndarray) -> np.ndarray:
    """Returns which rows of `x`, `(n, ...)`, are finite: bool `(n,)`."""
    return np.isfinite(x).reshape(len(x), -1).all(axis=1)


class NotFiniteError(ValueError):
    """Error of a model whose samples are not all finite. `finite` tells which are, bool `(n,)`."""

    def __init__(self, message: str, finite: np.ndarray):
        super().__init__(message)
        self.finite = finite


def finite_samples(samples: np.ndarray, condition: Any = None) -> np.ndarray:
    """Returns samples `(n, ...)` after checking that they are finite.

    Args:
        samples: array `(n, ...)`.
        condition: the samples' conditions, or `None`. Labels are named in the error message.

    Raises:
        NotFiniteError: a `ValueError`, if they are not.
    """
    if samples.dtype.kind == "f" and not np.isfinite(samples).all():
        bad = ~finite_rows(samples)
        received = f"NaN or infinite values in {bad.sum()} of {len(bad)} samples"
        rule = "give finite samples: has its training diverged?"
        if condition is not None:
            rule = "give finite samples: has its training diverged, or does it not know the condition?"
            labels = np.unique(condition[bad])[:5].tolist() if getattr(condition, "ndim", 0) == 1 else []
            received += f", condition={labels}" if labels else ""
        raise NotFiniteError(f"`model` must {rule}. Received: model={received}", ~bad)
    return samples


def flat_labels(labels: Any) -> Any:
    """Reshapes integer labels `(n, 1)`, as those of `keras.datasets.cifar10`, to `(n,)`; returns others unchanged."""
    is_column = len(labels.shape) == 2 and labels.shape[1] == 1
    is_integer = "int" in keras.backend.standardize_dtype(labels.dtype)
    return labels[:, 0] if is_column and is_integer else labels


def as_labels(name: str, labels: Any, n: int, num_classes: int | None) -> np.ndarray:
    """Converts labels in 0 .. num_classes - 1, or a single label for all samples, to an int32 array `(n,)`.

    Labels of shape `(n, 1)` are accepted, too.
    """
    labels = flat_labels(as_condition(name, labels))
    labels = np.full(n, labels) if labels.ndim == 0 else labels
    is_vector = labels.dtype.kind in "iu" and labels.shape == (n,)
    check(is_vector, name, f"be integer labels of shape ({n},)", f"{labels.dtype} of shape {labels.shape}")
    highest = np.inf if num_classes is None else num_classes - 1
    outside = np.unique(labels[(labels < 0) | (labels > highest)])
    check(outside.size == 0, name, f"be labels in 0 .. {highest}", outside)
    return labels.astype("int32")
