"""The divergence `trace(df/dx)` of a field f, for each sample, together with f(x)."""

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_gen.core.arrays import sum_per_sample


def exact_divergence(f: Callable[..., Any], x: Any, *extras: Any) -> tuple[Any, Any]:
    """Computes derivatives in all directions, as one batch of as many copies of the samples as one has numbers.

    Args:
        f: called as `f(x, *extras)`, returns a tensor like `x`. It treats each sample alone.
        x: float tensor `(batch, ...)`, of known shape but for the batch.
        *extras: what f needs besides of each sample, such as its time or condition, copied as x is: tensors
            `(batch, ...)` or `None`, which is handed on.

    Returns:
        `f(x, *extras)`, and the divergence `(batch,)`.
    """
    n, d = ops.shape(x)[0], math.prod(x.shape[1:])
    directions = ops.reshape(ops.repeat(ops.eye(d, dtype=x.dtype), n, axis=0), (d * n, *x.shape[1:]))
    copies, *extras = (_copies(value, d) for value in (x, *extras))
    values, slopes = _jvp(lambda x: f(x, *extras), copies, directions)
    return values[:n], ops.sum(ops.reshape(sum_per_sample(slopes * directions), (d, n)), axis=0)


def hutchinson_divergence(f: Callable[..., Any], x: Any, signs: Any, *extras: Any) -> tuple[Any, Any]:
    """Estimates the divergence by `v^T (df/dx) v`, whose mean over random signs v it is: one derivative.

    Args:
        f: called as `f(x, *extras)`, returns a tensor like `x`. It treats each sample alone.
        x: float tensor `(batch, ...)`.
        signs: v, a tensor like `x`, from `random_signs`. The same v throughout an integral makes its estimate smooth.
        *extras: handed to f.

    Returns:
        `f(x, *extras)`, and the estimate `(batch,)`.
    """
    values, slopes = _jvp(lambda x: f(x, *extras), x, signs)
    return values, sum_per_sample(signs * slopes)


def random_signs(x: Any, seed: Any) -> Any:
    """Draws -1 or 1 for each number of `x`, in its dtype."""
    signs = keras.random.randint(ops.shape(x), 0, 2, dtype="int32", seed=seed)
    return ops.cast(2 * signs - 1, x.dtype)


def _jvp(f: Callable[..., Any], x: Any, v: Any) -> tuple[Any, Any]:
    """Returns `f(x)` and `(df/dx) v`."""
    if keras.backend.backend() != "torch":
        return ops.jvp(f, (x,), (v,))
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(SDPBackend.MATH):  # the fused kernels of attention have no forward-mode derivative
        return ops.jvp(f, (x,), (v,))


def _copies(value: Any, d: int) -> Any:
    return None if value is None else ops.tile(value, (d, *[1] * (len(value.shape) - 1)))
