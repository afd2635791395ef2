"""Maps from a network's output to the logarithm of a scale."""

import math
from collections.abc import Callable
from typing import Any

from keras import ops

from keras_gen.core.checks import check

SCALE_MAPS = {
    "tanh": lambda s: 4 * ops.sigmoid(s) - 2,  # 2 tanh(s / 2); Keras 3.15 computes tanh in float32 on JAX, always
    "softclip": lambda s: s / (1 + ops.abs(s) / math.log(1000)),
    "sigmoid": lambda s: -ops.softplus(-s - 2),
    "exp": lambda s: s,
}


def get_scale_map(scale_map: Any) -> Callable[[Any], Any]:
    """Returns the map of a name, or a function as it is."""
    known = callable(scale_map) or (isinstance(scale_map, str) and scale_map in SCALE_MAPS)
    check(known, "scale_map", f"be a function or one of {', '.join(map(repr, SCALE_MAPS))}", repr(scale_map))
    return scale_map if callable(scale_map) else SCALE_MAPS[scale_map]
