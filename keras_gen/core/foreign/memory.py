"""Memory of weights, which are read from a file without a copy and written once, to where a variable keeps them."""

import mmap
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

COLUMNS = 16  # copied at a time
CHUNK = 2**18  # values looked at together, which a processor's cache holds


def packed(array: np.ndarray, dtype: Any = None) -> np.ndarray:
    """Returns an array as one whose values are contiguous, of the given dtype."""
    dtype = array.dtype if dtype is None else np.dtype(dtype)
    if array.flags.c_contiguous:
        return array.astype(dtype, copy=False)
    result = np.empty(array.shape, dtype)
    copy_to(result, array)
    return result


def copy_to(target: np.ndarray, source: np.ndarray) -> None:
    """Copies values between arrays of one shape, of which the source may be transposed.

    A few columns at a time stay in the processor's cache: three times as fast as NumPy alone.
    """
    if source.flags.c_contiguous:
        target[...] = source
        return
    for start in range(0, source.shape[-1], COLUMNS):
        target[..., start : start + COLUMNS] = source[..., start : start + COLUMNS]


def room_for(shape: Sequence[int], dtype: Any) -> np.ndarray:
    """Returns an array to be filled, whose memory begins at a page, so that all backends take it without a copy.

    That of NumPy's own arrays begins anywhere, and consists of huge pages, which Linux needs seconds to find where the
    page cache is full of files.
    """
    dtype = np.dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    return np.ndarray(shape, dtype, mmap.mmap(-1, max(size, 1), access=mmap.ACCESS_COPY))


def is_finite(array: np.ndarray) -> bool:
    """Returns whether all values of a contiguous array are finite."""
    values = array.reshape(-1)
    return all(bool(np.isfinite(values[start : start + CHUNK]).all()) for start in range(0, values.size, CHUNK))


def as_value(array: np.ndarray) -> Any:
    """Returns an array from `room_for` as a tensor of the backend, which takes over its memory."""
    is_bfloat16 = array.dtype.name == "bfloat16"  # unknown to both `from_numpy` and NumPy's DLPack
    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        return torch.from_numpy(array.view("int16")).view(torch.bfloat16) if is_bfloat16 else torch.from_numpy(array)
    if backend == "jax":
        import jax

        return jax.device_put(array, may_alias=True)
    import tensorflow as tf

    tensor = tf.experimental.dlpack.from_dlpack((array.view("int16") if is_bfloat16 else array).__dlpack__())
    return tf.bitcast(tensor, tf.bfloat16) if is_bfloat16 else tensor
