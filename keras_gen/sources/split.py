"""Data for training and for testing."""

from typing import Any

import numpy as np

from keras_gen.core.checks import check, check_fraction, check_integer, real_array
from keras_gen.core.conditions import map_parts, names_of
from keras_gen.export import keras_gen_export

Part = tuple[np.ndarray, Any]


@keras_gen_export("keras_gen.data.train_test_split")
def train_test_split(x: Any, y: Any = None, fraction: float = 0.2, seed: int = 0) -> tuple[Part, Part]:
    """Splits arrays at random into those for training and those for testing.

    Args:
        x: array `(n, ...)`, n >= 2.
        y: array `(n, ...)` of labels or conditions, or a dict of such arrays. Defaults to `None`.
        fraction: float in (0, 1). Part of the samples that is for testing: at least one, and not all. Defaults to
            `0.2`.
        seed: int >= 0. The same seed gives the same split. Defaults to `0`.

    Returns:
        `(x_train, y_train), (x_test, y_test)`, in the order of `x`; without `y`, `None` in its places.

    Raises:
        ValueError: if an argument is outside its range, or there are fewer than two samples, or no numbers.

    Example:

    >>> (x_train, y_train), (x_test, y_test) = keras_gen.data.train_test_split(images, labels, fraction=0.1)
    """
    x = real_array("x", x)
    check(x.ndim > 0 and len(x) >= 2, "x", "hold at least two samples", f"shape {x.shape}")
    fraction, seed = check_fraction("fraction", fraction), check_integer("seed", seed, at_least=0)
    if y is not None:
        y = map_parts(lambda name, part: _rows(name, part, len(x)), names_of("y", y), y)
    tested = min(max(1, round(fraction * len(x))), len(x) - 1)
    is_tested = np.zeros(len(x), "bool")
    is_tested[np.random.default_rng(seed).permutation(len(x))[:tested]] = True
    train, test = (
        (x[rows], None if y is None else map_parts(lambda part, rows=rows: part[rows], y))
        for rows in (~is_tested, is_tested)
    )
    return train, test


def _rows(name: str, y: Any, n: int) -> np.ndarray:
    y = real_array(name, y)
    check(y.shape[:1] == (n,), name, f"have one entry for each of {n} samples", f"shape {y.shape}")
    return y
