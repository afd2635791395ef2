"""Work that replicas share outside of `fit`: batches of samples, densities and encodings."""

import contextlib
import contextvars
import datetime
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.checks import check
from keras_gen.core.replicas.processes import arrays_of_processes, group, of_processes, processes, replicas_of_strategy

ALONE = contextvars.ContextVar("ALONE", default=False)  # whether this process shares no batches with others
PATIENCE = datetime.timedelta(minutes=10)  # for the other processes to call the same method: the first may write a file


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Context in which this process computes all batches itself, those of rows that the others do not have.

    Raises:
        ValueError: with several processes of JAX, whose programs are those of all.
    """
    is_possible = keras.backend.backend() != "jax" or processes()[1] == 1
    check(is_possible, "x", "be encoded before `fit`, with several processes of JAX", "data")
    token = ALONE.set(True)
    try:
        yield
    finally:
        ALONE.reset(token)


def rounds(batches: int, arrays: Sequence[np.ndarray]) -> list[tuple[list[int], list[int]]]:
    """Returns the numbers of the batches that the devices of this process compute, each with those of all meanwhile.

    Raises:
        ValueError: if the arrays differ between the processes.
    """
    if not ALONE.get():
        check_same("arguments", arrays, "be the same in all processes, which share the batches")
    index, number = (0, 1) if ALONE.get() or keras.backend.backend() == "jax" else processes()
    own = devices()
    starts = range(0, batches, number * own)
    together = [[min(start + other, batches - 1) for other in range(number * own)] for start in starts]
    return [(numbers[index * own : (index + 1) * own], numbers) for numbers in together]


def devices() -> int:
    """Returns how many devices of this process compute a batch each: those of a strategy of TensorFlow for one process.

    Elsewhere a process has one device or, on JAX, one program for all of them.
    """
    return replicas_of_strategy() if processes()[1] == 1 else 1


def on_devices(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function of what `spread` returns, which computes with each part on its device, when compiled."""
    if devices() == 1:
        return function
    import tensorflow as tf

    strategy = tf.distribute.get_strategy()
    return lambda *args: strategy.run(function, args=args)


def spread(parts: Sequence[Any]) -> Any:
    """Returns nested tensors, each one of its own for each device, from those of the devices."""
    if len(parts) == 1:
        return parts[0]
    import tensorflow as tf

    values = tf.distribute.get_strategy().experimental_distribute_values_from_function
    leaves = zip(*map(keras.tree.flatten, parts), strict=True)
    own = [values(lambda context, leaf=leaf: leaf[context.replica_id_in_sync_group]) for leaf in leaves]
    return keras.tree.pack_sequence_as(parts[0], own)


def unspread(tensors: Any) -> list[Any]:
    """Returns the nested tensors of each device of this process."""
    number = devices()
    if number == 1:
        return [tensors]
    import tensorflow as tf

    leaves = map(tf.distribute.get_strategy().experimental_local_results, keras.tree.flatten(tensors))
    return [keras.tree.pack_sequence_as(tensors, part) for part in zip(*leaves, strict=True)]


def own_rows(arrays: Any) -> Any:
    """Returns the rows on which this process trains, of nested arrays that all processes have: every N-th one.

    The last rows, which the processes cannot share, are left out. On TensorFlow the strategy divides the rows itself.
    """
    index, number = processes()
    if number == 1 or keras.backend.backend() == "tensorflow":
        return arrays
    return keras.tree.map_structure(lambda x: x[: len(x) // number * number][index::number], arrays)


def placed(rows: Any) -> Any:
    """Places the rows of a batch on the devices that share them, by Keras's distribution on JAX, if these divide it."""
    shards = number_of_shards()
    if shards == 1 or rows.shape[0] % shards or ALONE.get():
        return rows
    return keras.distribution.distribute_tensor(rows, keras.distribution.distribution().get_data_layout(rows.shape))


def number_of_shards() -> int:
    """Returns among how many devices JAX divides a batch."""
    distribution = keras.distribution.distribution() if keras.backend.backend() == "jax" else None
    if distribution is None:
        return 1
    mesh = distribution.device_mesh
    return int(mesh.shape[mesh.axis_names.index(distribution.batch_dim_name)])


def of_each_process(results: Sequence[Any]) -> list[Any]:
    """Returns the results of all devices of all processes, nested tensors of the same shapes, as NumPy arrays.

    On JAX this is one result, of the program that all processes have run together.
    """
    number = processes()[1]
    if number == 1 or ALONE.get() or keras.backend.backend() == "jax":
        return keras.tree.map_structure(_whole, list(results))
    [own] = results
    parts = [arrays_of_processes(x) for x in keras.tree.flatten(own)]
    return [keras.tree.pack_sequence_as(own, [part[i] for part in parts]) for i in range(number)]


def _whole(x: Any) -> np.ndarray:
    """Returns a tensor as an array, one of JAX also where other processes have parts of it."""
    if keras.backend.backend() != "jax" or x.is_fully_addressable:
        return ops.convert_to_numpy(x)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(x, tiled=True))


def check_same(name: str, arrays: Sequence[np.ndarray], rule: str = "be the same in all processes") -> None:
    """Checks that all processes come here, and with the same arrays."""
    if processes()[1] == 1:
        return
    if keras.backend.backend() == "torch" and group().get_backend() == "gloo":
        group().monitored_barrier(timeout=PATIENCE, wait_all_ranks=True)  # names the processes that do not come
    check(len(set(checksums_of_processes(arrays))) == 1, name, rule, "different arrays")


def checksums_of_processes(arrays: Sequence[np.ndarray]) -> list[int]:
    """Returns a checksum of the arrays of each process."""
    checksum = 0
    for array in arrays:
        checksum = zlib.crc32(np.ascontiguousarray(array).tobytes(), checksum)
    return of_processes(checksum & 0x7FFFFFFF)


def total_of_processes(array: np.ndarray) -> np.ndarray:
    """Returns the sum of an array over all processes, on JAX in float32 at best."""
    if processes()[1] == 1:
        return array
    return np.concatenate(arrays_of_processes(ops.convert_to_tensor(array[None]))).sum(axis=0)
