"""Sums over all replicas of a model, on several devices or in several processes, inside of a training step.

On JAX one program computes with the whole batch, wherever its rows lie (`keras.distribution`). On TensorFlow
(`tf.distribute`) and PyTorch (`torch.distributed`) each replica has its own rows, and what it learns outside of
gradients is that of the whole batch through `total`, `mean` and `all_rows`. These are collective: all replicas call
them, in the same order, never within a branch that depends on data. Where there is one replica, they cost nothing.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import ops

from keras_gen.core.replicas.processes import gathered, group, of_processes, replicas

SAVE: contextvars.ContextVar[Any] = contextvars.ContextVar("SAVE", default=None)  # of `keeping`, in this thread


def total(x: Any) -> Any:
    """Returns the sum of `x` over all replicas, without a gradient."""
    if replicas()[1] == 1:
        return x
    x = ops.stop_gradient(x)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with _kept():
            return tf.distribute.get_replica_context().all_reduce("SUM", x)
    result = x.clone().contiguous()
    group().all_reduce(result)
    return result


def mean(x: Any, axis: Any = None) -> Any:
    """Returns the mean of `x` over axes that include the rows, those of all replicas, without a gradient."""
    x = ops.stop_gradient(x)
    if replicas()[1] == 1:
        return ops.mean(x, axis)
    return total(ops.sum(x, axis)) / total(ops.sum(ops.ones_like(x), axis))


def mean_of_parts(x: Any, rows: Any) -> Any:
    """Returns the mean over the rows of all replicas from `x`, the mean over those of this one, without a gradient."""
    if replicas()[1] == 1:
        return x
    rows = ops.cast(rows, x.dtype)
    return total(rows * x) / total(rows)


def all_rows(x: Any) -> Any:
    """Returns the rows of all replicas, in their order, without a gradient. Their numbers may differ."""
    number = replicas()[1]
    if number == 1:
        return x
    x = ops.stop_gradient(x)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with _kept():
            rows = tf.distribute.get_replica_context().all_gather(x, axis=0)
        return tf.ensure_shape(rows, (None, *x.shape[1:]))  # `all_gather` loses the static shape
    sizes = of_processes(len(x))
    padded = ops.pad(x, [(0, max(sizes) - len(x)), *[(0, 0)] * (len(x.shape) - 1)])
    return ops.concatenate([rows[:size] for rows, size in zip(gathered(padded), sizes, strict=True)])


@contextlib.contextmanager
def keeping(save: Callable[[], Callable[[], None]]) -> Iterator[None]:
    """Context in which Python objects that replicas share hold what this replica has put there.

    TensorFlow traces the replicas of a process in threads, and changes threads where these wait for each other. Then
    `save` is called, and afterwards the function that it returns, which restores the objects.
    """
    token = SAVE.set(save)
    try:
        yield
    finally:
        SAVE.reset(token)


@contextlib.contextmanager
def _kept() -> Iterator[None]:
    save = SAVE.get()
    restore = (lambda: None) if save is None else save()
    yield
    restore()
