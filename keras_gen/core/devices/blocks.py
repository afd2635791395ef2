"""How much to compute at a time: what a CPU keeps in its caches, and a share of an accelerator's memory."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import keras
from keras import ops

from keras_gen.core.torch.kernels import map_chunks

Result = TypeVar("Result")

MOST_CELLS = 2**28  # 1 GB of float32: larger blocks keep an accelerator no busier
UNKNOWN_CELLS = 2**26  # on an accelerator that does not say how much memory is free
BYTES_PER_CELL = 64  # a cell and what is computed from it, in a quarter of the free memory
# In the messages of backends, in lower case.
OUT_OF_MEMORY = ("out of memory", "resource_exhausted", "resourceexhausted", "not enough memory")


def on_cpu(x: Any) -> bool:
    """Returns whether operations on the tensor `x` run on a CPU."""
    backend = keras.backend.backend()  # not by `match`, which AutoGraph cannot read
    if backend == "torch":
        return x.device.type in ("cpu", "meta")
    # Tensors of traced functions have no device.
    if backend == "jax":
        import jax

        return jax.default_backend() == "cpu"
    if backend == "tensorflow":
        import tensorflow as tf

        return not tf.config.list_logical_devices("GPU")
    return True


def cells_at_once(x: Any, cached: int) -> int:
    """Returns how many float32 numbers to compute from `x` at a time.

    Args:
        x: tensor.
        cached: int, the number that suits a CPU.

    Returns:
        `cached` on a CPU, else a power of two, so that few sizes of blocks are compiled.
    """
    if on_cpu(x):
        return cached
    free = _free_memory(x)
    cells = UNKNOWN_CELLS if free is None else max(1, free // BYTES_PER_CELL)
    return min(MOST_CELLS, 1 << (cells.bit_length() - 1))


def _free_memory(x: Any) -> int | None:
    """Returns how many bytes are free on the accelerator of `x`, `None` if it is not known."""
    backend = keras.backend.backend()
    if backend == "torch" and x.device.type == "cuda":
        import torch

        unused = torch.cuda.memory_reserved(x.device) - torch.cuda.memory_allocated(x.device)
        return torch.cuda.mem_get_info(x.device)[0] + unused
    if backend == "jax":
        import jax

        memory = jax.local_devices()[0].memory_stats() or {}
        if "bytes_limit" in memory and "bytes_in_use" in memory:
            return memory["bytes_limit"] - memory["bytes_in_use"]
    return None


def halved_until_it_fits(function: Callable[[int], Result], size: int) -> Result:
    """Returns `function(size)`, with half of the size after each error of too little memory."""
    while True:
        try:
            return function(size)
        except Exception as error:
            if size == 1 or not _is_out_of_memory(error):
                raise
        size //= 2  # after the handler, whose error holds the tensors of the failed call


def by_chunks(function: Callable[..., Any], rows: Sequence[Any], chunk: Any) -> Any:
    """Computes `function(*rows)`, a chunk of rows at a time.

    Args:
        function: takes tensors `(chunk, ...)`, and returns one whose rows do not depend on other rows. The result is
            small beside what is computed on the way, and has no gradient.
        rows: tensors `(n, ...)`.
        chunk: int or int tensor, number of rows at a time; at least one is computed.

    Returns:
        A tensor `(n, ...)`.
    """
    n = ops.shape(rows[0])[0]
    if isinstance(n, int):
        chunk = max(1, chunk)
        if n <= chunk:
            return function(*rows)
    else:  # TensorFlow traces for any batch size
        chunk = ops.maximum(ops.minimum(chunk, n), 1)
    padding = -n % chunk
    whole = [ops.concatenate([x, ops.zeros((padding, *x.shape[1:]), x.dtype)]) for x in rows]
    results = map_chunks(function, *(ops.reshape(x, (-1, chunk, *x.shape[1:])) for x in whole))
    return ops.reshape(results, (-1, *results.shape[2:]))[:n]


def _is_out_of_memory(error: Exception) -> bool:
    """Returns whether a backend says that it has no memory left: each has an error of its own, some several."""
    text = f"{type(error).__name__}: {error}".lower()
    return isinstance(error, MemoryError) or any(mark in text for mark in OUT_OF_MEMORY)
