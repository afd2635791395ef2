"""Argument checks with a common error message: `name` must <rule>. Received: name=value."""

import numbers
from collections.abc import Iterable, Sequence
from typing import Any, TypeGuard, TypeVar

import keras
import numpy as np
from keras import ops

Given = TypeVar("Given")


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


def check_units(units: Any) -> list[int]:
    """Checks the sizes of hidden layers and returns them as a list."""
    check(isinstance(units, list | tuple), "units", "be a list of integers >= 1", units)
    return [check_integer("units", size) for size in units]


def is_number(value: Any) -> TypeGuard[float]:
    """Returns whether `value` is a real Python or NumPy number."""
    return isinstance(value, numbers.Real)


def check_numbers(name: str, value: Any, at_least: int = 1) -> list[int] | list[float]:
    """Checks that `value` is a sequence of >= `at_least` numbers, and returns a list, of ints if all are integers."""
    values = np.asarray(value)
    rule = f"be a sequence of at least {at_least} numbers"
    check(values.ndim == 1 and values.dtype.kind in "iuf" and len(values) >= at_least, name, rule, value)
    return values.tolist()


def check_fraction(name: str, value: Any, closed: bool = False) -> float:
    """Checks that `value` is in (0, 1), or in [0, 1] if `closed`, and returns it as a Python float."""
    is_inside = is_number(value) and (0 <= value <= 1 if closed else 0 < value < 1)
    check(is_inside, name, "be in [0, 1]" if closed else "be in (0, 1)", repr(value))
    return float(value)


def check_interval(name: str, value: Any) -> tuple[float, float] | None:
    """Checks that `value` is `None` or a pair with 0 <= low < high, and returns Python floats."""
    is_pair = isinstance(value, tuple | list) and len(value) == 2 and all(map(is_number, value))
    rule = "be None or a pair (low, high) with 0 <= low < high"
    check(value is None or (is_pair and 0 <= value[0] < value[1]), name, rule, value)
    return None if value is None else (float(value[0]), float(value[1]))


def same_shape(a: Any, b: Any) -> bool:
    """Returns whether two shapes agree wherever both are known."""
    return len(a) == len(b) and all(m == n or None in (m, n) for m, n in zip(a, b, strict=True))


def batch_of(shape: Iterable[Any]) -> str:
    """Formats the shape of n samples, as "(n, 8, 8, 1)"."""
    return f"({', '.join(map(str, ('n', *shape)))})"


def finite_floats(name: str, x: Any) -> np.ndarray:
    """Converts data to a float32 array; raises for an empty array, integers and non-finite values."""
    x = x if isinstance(x, np.ndarray) else np.asarray(ops.convert_to_numpy(x))  # copies arrays, too
    check(x.ndim > 0 and len(x) > 0, name, "hold at least one sample", f"shape {x.shape}")
    check(x.dtype.kind == "f", name, "be floating-point", f"dtype {x.dtype}")
    finite = np.isfinite(x).reshape(len(x), -1).all(axis=1)
    check(bool(finite.all()), name, "be finite", f"NaN or infinite values in {(~finite).sum()} of {len(x)} samples")
    return x.astype("float32", copy=False)


def is_array(x: Any) -> bool:
    """Returns whether `x` is an array or tensor, not a dataset or generator."""
    return hasattr(x, "shape") and hasattr(x, "dtype")


def check_images_dtype(name: str, images: Any) -> None:
    """Checks that images are floating-point: integer pixels most likely range over 0 .. 255."""
    dtype = keras.backend.standardize_dtype(images.dtype)
    check("float" in dtype, name, "be floating-point images, scaled to [-1, 1]", f"dtype {dtype}")


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
    images = np.asarray(ops.convert_to_numpy(images))
    check_images_dtype(name, images)
    check(len(images) > 0, name, "hold at least one image", f"shape {images.shape}")
    check(bool(np.isfinite(images).all()), name, "be finite", "NaN or infinite values")
    return images.astype("float32", copy=False)


def as_labels(name: str, labels: Any, n: int, num_classes: int | None) -> np.ndarray:
    """Converts labels in 0 .. num_classes - 1, or a single label for all samples, to an int32 array `(n,)`."""
    labels = np.asarray(ops.convert_to_numpy(labels))
    labels = np.full(n, labels) if labels.ndim == 0 else labels
    is_vector = labels.dtype.kind in "iu" and labels.shape == (n,)
    check(is_vector, name, f"be integer labels of shape ({n},)", f"{labels.dtype} of shape {labels.shape}")
    highest = np.inf if num_classes is None else num_classes - 1
    outside = np.unique(labels[(labels < 0) | (labels > highest)])
    check(outside.size == 0, name, f"be labels in 0 .. {highest}", outside)
    return labels.astype("int32")
