"""Divergence `trace(df/dx)` of a vector field f for each sample, together with f(x)."""

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_gen.core.arrays import sum_per_sample
from keras_gen.core.conditions import map_parts


def exact_divergence(f: Callable[..., Any], x: Any, *extras: Any) -> tuple[Any, Any]:
    """Computes f(x) and its exact divergence: derivatives along all axes, in one batch with a copy of x per dimension.

    Args:
        f: called as `f(x, *extras)`, returns a tensor like `x`. It must act on each sample independently.
        x: float tensor `(batch, ...)`, whose shape is known except for the batch.
        *extras: further per-sample arguments of f, such as time or condition, copied like x: tensors `(batch, ...)`,
            dicts of them, or `None`, which is passed through.

    Returns:
        `f(x, *extras)`, and the divergence `(batch,)`.
    """
    n, d = ops.shape(x)[0], math.prod(x.shape[1:])
    directions = ops.reshape(ops.repeat(ops.eye(d, dtype=x.dtype), n, axis=0), (d * n, *x.shape[1:]))
    copies, *others = (map_parts(lambda part: _copies(part, d), value) for value in (x, *extras))
    values, slopes = _jvp(lambda x: f(x, *others), copies, directions)
    return values[:n], ops.sum(ops.reshape(sum_per_sample(slopes * directions), (d, n)), axis=0)


def hutchinson_divergence(f: Callable[..., Any], x: Any, signs: Any, *extras: Any) -> tuple[Any, Any]:
    """Computes f(x) and Hutchinson's estimate `v^T (df/dx) v` of the divergence, unbiased for random signs v.

    Args:
        f: called as `f(x, *extras)`, returns a tensor like `x`. It must act on each sample independently.
        x: float tensor `(batch, ...)`.
        signs: v, a tensor like `x`, from `random_signs`. The same v throughout an integral keeps the integrand smooth.
        *extras: passed to f.

    Returns:
        `f(x, *extras)`, and the estimate `(batch,)`.
    """
    values, slopes = _jvp(lambda x: f(x, *extras), x, signs)
    return values, sum_per_sample(signs * slopes)


def random_signs(x: Any, seed: Any) -> Any:
    """Draws random signs, -1 or 1, of the shape and dtype of `x` (Rademacher)."""
    signs = keras.random.randint(ops.shape(x), 0, 2, dtype="int32", seed=seed)
    return ops.cast(2 * signs - 1, x.dtype)


def _jvp(f: Callable[..., Any], x: Any, v: Any) -> tuple[Any, Any]:
    """Returns `f(x)` and `(df/dx) v`."""
    if keras.backend.backend() != "torch":
        return ops.jvp(f, (x,), (v,))
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    if torch.compiler.is_exporting():  # which would fail inside `jvp`, and leave PyTorch without derivatives
        raise NotImplementedError("PyTorch exports no derivatives")
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernels of attention have no forward-mode derivative
        return ops.jvp(f, (x,), (v,))


def _copies(value: Any, d: int) -> Any:
    return None if value is None else ops.tile(value, (d, *[1] * (len(value.shape) - 1)))
