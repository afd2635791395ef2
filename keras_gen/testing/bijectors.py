"""Laws of bijectors."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.fixtures import randomize_weights, to_numpy
from keras_gen.testing.common import require, same
from keras_gen.testing.config import check_config


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
        jacobian: bool. Whether the forward direction is differentiable, unlike `Dequantize`. Defaults to `True`.

    Raises:
        AssertionError: with the violated law.
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
    """Checks both directions of a bijector, with its current weights.

        inverse(forward(x)) = x,   log_det = log |det dy/dx|,   log_det of the inverse = -log_det

    The Jacobian is computed column by column, in forward mode. Arguments as for `check_bijector`.

    Raises:
        AssertionError: with the violated law.
    """
    options = {} if condition is None else {"condition": ops.convert_to_tensor(condition)}
    x = ops.convert_to_tensor(x)
    y, log_det = bijector(x, **options)
    back, inverse_log_det = bijector(y, inverse=True, **options)
    batch = x.shape[0]
    require(tuple(log_det.shape) == (batch,), f"log_det must have shape ({batch},), not {tuple(log_det.shape)}")
    same([to_numpy(x)], [to_numpy(back)], tolerance, tolerance, "inverse(forward(x)) must be x")
    log_dets = [to_numpy(log_det)], [-to_numpy(inverse_log_det)]
    same(*log_dets, tolerance, tolerance, "the inverse's log_det must be minus the forward's")
    if jacobian:
        expected = _log_det_of_jacobian(lambda x: bijector(x, **options)[0], x)
        same([expected], [to_numpy(log_det)], tolerance, tolerance, "log_det must be that of the Jacobian")


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
