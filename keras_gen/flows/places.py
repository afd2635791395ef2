"""How many times what acts on the last axis acts on a sample."""

import math
from typing import Any

from keras_gen.core.checks import check


def places(x_shape: Any) -> int:
    """Returns the number of vectors in a sample: 1 for `(batch, features)`, height x width for images."""
    check(len(x_shape) > 1 and None not in x_shape[1:], "x", "have a known shape", f"shape {tuple(x_shape)}")
    return math.prod(x_shape[1:-1])
