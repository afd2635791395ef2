"""Replicas of a model on several devices or in several processes: which one this is, and sums over all of them.

On JAX one program computes with the whole batch, wherever its rows lie (`keras.distribution`). On TensorFlow
(`tf.distribute`) and PyTorch (`torch.distributed`) each replica has its own rows, and what it learns outside of
gradients is that of the whole batch through `total`, `mean` and `all_rows`. These are collective: all replicas call
them, in the same order, never within a branch that depends on data. Where there is one replica, they cost nothing.
"""

import contextlib
import contextvars
import datetime
import os
import types
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.checks import check, is_array

SEEDS_APART = 1_000_003  # between the random states of two replicas
ALONE = contextvars.ContextVar("ALONE", default=False)  # whether this process shares no batches with others
WRITERS = (keras.callbacks.ModelCheckpoint, keras.callbacks.CSVLogger, keras.callbacks.TensorBoard)
UNKNOWN = -1  # number of batches
SAVE: contextvars.ContextVar[Any] = contextvars.ContextVar("SAVE", default=None)  # of `keeping`, in this thread
PATIENCE = datetime.timedelta(minutes=10)  # for the other processes to call the same method: the first may write a file


def replicas() -> tuple[Any, int]:
    """Returns the index of this replica and the number of replicas, `(0, 1)` on JAX and on a single device."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        context = tf.distribute.get_replica_context()
        return (0, 1) if context is None else (context.replica_id_in_sync_group, context.num_replicas_in_sync)
    return processes() if keras.backend.backend() == "torch" else (0, 1)


def processes() -> tuple[int, int]:
    """Returns the index of this process and the number of processes that train one model together."""
    match keras.backend.backend():
        case "tensorflow":
            import tensorflow as tf

            cluster = tf.distribute.get_strategy().cluster_resolver
            workers = 1 if cluster is None else len(cluster.cluster_spec().as_dict().get("worker", [None]))
            return (0, 1) if workers == 1 else (cluster.task_id, workers)
        case "torch":
            return (_group().get_rank(), _group().get_world_size()) if _group().is_initialized() else (0, 1)
        case "jax":
            import jax

            return jax.process_index(), jax.process_count()
        case _:
            return 0, 1


# Sums over the replicas, inside of a step.


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
    _group().all_reduce(result)
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
    sizes = _of_processes(len(x))
    padded = ops.pad(x, [(0, max(sizes) - len(x)), *[(0, 0)] * (len(x.shape) - 1)])
    return ops.concatenate([rows[:size] for rows, size in zip(_gathered(padded), sizes, strict=True)])


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


# The parts of a training step that differ with several replicas.


def weighted(loss: Any, rows: Any, training: bool) -> Any:
    """Returns the loss of this replica, a mean over its rows, as TensorFlow sums it over the replicas.

    Its gradient is weighted by the rows, so that the step is that of the mean over all rows. Its value is not: it is
    only logged, and Keras weights what it logs. On PyTorch the gradients are weighted, see `averaging_gradients`.
    """
    number = replicas()[1]
    if number == 1 or keras.backend.backend() != "tensorflow":
        return loss
    logged = loss / number
    if not training:
        return logged
    rows = ops.cast(rows, loss.dtype)
    share = loss * rows / total(rows)
    return ops.stop_gradient(logged) + (share - ops.stop_gradient(share))


@contextlib.contextmanager
def shifted(find_states: Callable[[], Sequence[keras.Variable]]) -> Iterator[None]:
    """Context in which random states are others in each replica. Draws advance them equally, so they end equal."""
    index, number = replicas()
    states = find_states() if number > 1 else []
    for state in states:
        state.assign(state.value + ops.cast(index * SEEDS_APART, state.dtype))
    try:
        yield
    finally:
        for state in states:
            state.assign(state.value - ops.cast(index * SEEDS_APART, state.dtype))


@contextlib.contextmanager
def averaging_gradients(optimizer: Any, data: Any) -> Iterator[None]:
    """Context in which `optimizer.apply` applies the means of all processes' gradients, by their rows, on PyTorch."""
    if keras.backend.backend() != "torch" or processes()[1] == 1 or optimizer is None:
        yield
        return
    counts = _of_processes(len(keras.tree.flatten(data)[0]))
    share, apply = counts[processes()[0]] / sum(counts), optimizer.apply
    optimizer.apply = lambda gradients, *args: apply(_totals(gradients, share), *args)
    try:
        yield
    finally:
        del optimizer.apply


def average_statistics(model: keras.Model) -> None:
    """Averages what Keras's batch normalization has learned from the rows of each replica."""
    number = replicas()[1]
    if number == 1:
        return
    norms = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    for weight in [weight for norm in norms for weight in norm.non_trainable_weights]:
        weight.assign(total(ops.convert_to_tensor(weight)) / number)


@contextlib.contextmanager
def summed(metrics: Sequence[keras.Variable]) -> Iterator[None]:
    """Context in which the variables of metrics are their sums over all processes, on PyTorch."""
    if keras.backend.backend() != "torch" or processes()[1] == 1:
        yield
        return
    own = [ops.copy(variable.value) for variable in metrics]
    for variable, value in zip(metrics, _totals(own, 1), strict=True):
        variable.assign(value)
    try:
        yield
    finally:
        for variable, value in zip(metrics, own, strict=True):
            variable.assign(value)


def reducible(logs: Any) -> Any:
    """Returns the logs of a step as Keras reduces them: between workers of TensorFlow, along a first axis."""
    if keras.backend.backend() != "tensorflow" or processes()[1] == 1:
        return logs
    return keras.tree.map_structure(lambda value: ops.reshape(value, (1,)), logs)


# Before the first step.


def scope_of(model: keras.Model) -> contextlib.AbstractContextManager[Any]:
    """Returns the scope of the strategy that a model was made in, on TensorFlow. Checks the engine."""
    if keras.backend.backend() == "torch":
        _check_group()
    if keras.backend.backend() == "jax":
        _lay_out(model)
    if keras.backend.backend() != "tensorflow":
        return contextlib.nullcontext()
    import tensorflow as tf

    strategy = model.distribute_strategy  # of the model, or the current one
    is_inside = all(strategy.extended.variable_created_in_scope(variable.value) for variable in model.variables)
    rule = "be made within the scope of the strategy that trains it"
    check(not tf.distribute.has_strategy() or is_inside, "model", rule, "one made before")
    return contextlib.nullcontext() if strategy.num_replicas_in_sync == 1 else strategy.scope()


def _lay_out(model: keras.Model) -> None:
    """Places the variables of a model, made before the distribution was set, on its devices."""
    distribution = keras.distribution.distribution()
    if distribution is None:
        return
    optimizer = getattr(model, "optimizer", None)
    for variable in [*model.variables, *model.metrics_variables, *getattr(optimizer, "variables", [])]:
        layout = distribution.get_variable_layout(variable)
        variable.assign(keras.distribution.distribute_tensor(variable.value, layout))


def prepared(options: dict[str, Any], variables: Sequence[keras.Variable]) -> dict[str, Any]:
    """Returns the options of `fit` or `evaluate`, after checks of what all replicas need, and starts these equal."""
    given = list(_given(options))
    for _, data, batch_size, _ in given:
        if is_array(data):
            _check_batches(len(data), batch_size)
    if keras.backend.backend() == "jax" and processes()[1] > 1 and is_array(_first(options["x"])):
        _check_own_rows(_first(options["x"]))
    if keras.backend.backend() != "torch" or processes()[1] == 1:
        return options
    for name, data, batch_size, steps in given:
        counts = _of_processes(steps or _number_of_batches(data, batch_size))
        check(len(set(counts)) == 1, name, "be of as many batches in each process", f"{counts} batches")
    for variable in variables:
        value = ops.copy(variable.value)
        _group().broadcast(value, src=0)
        variable.assign(value)
    return {**options, **{name: _in_step(data) for name, data, *_ in given if _is_stream(data)}}


def check_accumulation(steps: int) -> None:
    """Checks over how many steps the optimizer accumulates gradients: Keras's fail between replicas of TensorFlow."""
    rule = "be None with several replicas of TensorFlow: train on larger batches"
    check(steps == 1 or _replicas_of_strategy() == 1, "gradient_accumulation_steps", rule, steps)


def callbacks_of_process(callbacks: Sequence[Any]) -> list[Any]:
    """Returns the callbacks that this process calls: those of Keras that only write are called by the first one.

    Raises:
        ValueError: if there are several processes and a `BackupAndRestore`, which each of them would write and delete.
    """
    index, number = processes()
    if number == 1:
        return list(callbacks)
    backups = [each for each in callbacks if isinstance(each, keras.callbacks.BackupAndRestore)]
    rule = "hold a keras_gen.callbacks.Backup instead, with several processes"
    check(not backups, "callbacks", rule, "a BackupAndRestore")
    return [each for each in callbacks if index == 0 or not isinstance(each, WRITERS)]


def _given(options: dict[str, Any]) -> Iterator[tuple[str, Any, int, int | None]]:
    """Yields what `fit` or `evaluate` takes batches from: its name, data, the size of batches, the number if given."""
    data, size = _first(options["x"]), options.get("batch_size") or 32
    steps = options.get("steps_per_epoch") or options.get("steps")
    of_validation = options.get("validation_batch_size") or size, options.get("validation_steps")
    if is_array(data):
        held_out = int(len(data) * (1 - (options.get("validation_split") or 0)))
        yield "x", data[:held_out], size, steps
        yield "validation_split", data[held_out:], *of_validation
    else:
        yield "x", data, size, steps
    if options.get("validation_data") is not None:
        yield "validation_data", _first(options["validation_data"]), *of_validation


def _first(data: Any) -> Any:
    """Returns the first of nested arrays, and a source of batches unchanged."""
    return keras.tree.flatten(data)[0] if isinstance(data, tuple | list | dict) else data


def _number_of_batches(data: Any, batch_size: int) -> int:
    """Returns the number of batches of an epoch, `UNKNOWN` where nothing tells."""
    if is_array(data):
        return -(-len(data) // batch_size)
    if isinstance(data, keras.utils.PyDataset):
        return data.num_batches or UNKNOWN
    try:
        return len(data)
    except TypeError:  # a generator, or a stream of tf.data or of a DataLoader
        return UNKNOWN


def _is_stream(data: Any) -> bool:
    """Returns whether data may end in one process before they do in another."""
    return not isinstance(data, keras.utils.PyDataset) and _number_of_batches(data, 1) == UNKNOWN


def _check_batches(n: int, batch_size: int) -> None:
    """Checks that the devices can share each batch of n samples, also the last one."""
    sizes = {min(n, batch_size), n % batch_size or batch_size} if n else set()
    received = f"{batch_size} for {n} samples"
    shards = max(1, _shards() // processes()[1]) if keras.backend.backend() == "jax" else 1
    rule = f"divide the samples into batches that {shards} devices can share"
    check(all(size % shards == 0 for size in sizes), "batch_size", rule, received)
    number = _replicas_of_strategy()
    rule = f"leave no batch of fewer samples than the {number} replicas"
    check(all(size >= number for size in sizes), "batch_size", rule, received)


def _replicas_of_strategy() -> int:
    """Returns the number of replicas of the current strategy of TensorFlow, 1 elsewhere."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return int(tf.distribute.get_strategy().num_replicas_in_sync)


def _check_own_rows(array: Any) -> None:
    """Checks that the processes of JAX do not train on the same rows: each would count several times."""
    checksums = _checksums([ops.convert_to_numpy(array[:64])])
    rule = "hold its own rows in each process, such as `x[process_id::num_processes]`, or be a tf.data.Dataset"
    check(len(set(checksums)) == len(checksums), "x", rule, "the same rows in several processes")


def _shards() -> int:
    """Returns among how many devices JAX divides a batch."""
    distribution = keras.distribution.distribution() if keras.backend.backend() == "jax" else None
    if distribution is None:
        return 1
    mesh = distribution.device_mesh
    return int(mesh.shape[mesh.axis_names.index(distribution.batch_dim_name)])


def _in_step(data: Iterable[Any]) -> Any:
    """Returns data of unknown length, of which an epoch ends as soon as a process has no further batch."""
    if isinstance(data, types.GeneratorType):
        return _common(data)
    from torch.utils.data import DataLoader, IterableDataset

    class InStep(IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            for batch in _common(data):
                yield keras.tree.map_structure(ops.convert_to_numpy, batch)

    return DataLoader(InStep(), batch_size=None)


def _common(batches: Iterable[Any]) -> Iterator[Any]:
    """Yields batches, tuples of arrays, as long as each process has one."""
    iterator = iter(batches)
    while True:
        batch = next(iterator, None)
        if not all(_of_processes(int(batch is not None))):
            return
        yield (batch,) if is_array(batch) else batch


# Work that replicas share outside of `fit`.


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
    return _replicas_of_strategy() if processes()[1] == 1 else 1


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
    shards = _shards()
    if shards == 1 or rows.shape[0] % shards or ALONE.get():
        return rows
    return keras.distribution.distribute_tensor(rows, keras.distribution.distribution().get_data_layout(rows.shape))


def of_each_process(results: Sequence[Any]) -> list[Any]:
    """Returns the results of all devices of all processes, nested tensors of the same shapes, as NumPy arrays.

    On JAX this is one result, of the program that all processes have run together.
    """
    number = processes()[1]
    if number == 1 or ALONE.get() or keras.backend.backend() == "jax":
        return keras.tree.map_structure(_whole, list(results))
    [own] = results
    parts = [_parts(x) for x in keras.tree.flatten(own)]
    return [keras.tree.pack_sequence_as(own, [part[i] for part in parts]) for i in range(number)]


def _whole(x: Any) -> np.ndarray:
    """Returns a tensor as an array, one of JAX also where other processes have parts of it."""
    if keras.backend.backend() != "jax" or x.is_fully_addressable:
        return ops.convert_to_numpy(x)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(x, tiled=True))


def _parts(x: Any) -> list[np.ndarray]:
    """Returns a tensor of each process as an array."""
    match keras.backend.backend():
        case "torch":
            return [ops.convert_to_numpy(part) for part in _gathered(x)]
        case "jax":
            from jax.experimental import multihost_utils

            return list(multihost_utils.process_allgather(np.asarray(x)))
        case _:
            import tensorflow as tf

            return np.split(tf.distribute.get_strategy().gather(x, axis=0).numpy(), processes()[1])


def check_same(name: str, arrays: Sequence[np.ndarray], rule: str = "be the same in all processes") -> None:
    """Checks that all processes come here, and with the same arrays."""
    if processes()[1] == 1:
        return
    if keras.backend.backend() == "torch" and _group().get_backend() == "gloo":
        _group().monitored_barrier(timeout=PATIENCE, wait_all_ranks=True)  # names the processes that do not come
    check(len(set(_checksums(arrays))) == 1, name, rule, "different arrays")


def _checksums(arrays: Sequence[np.ndarray]) -> list[int]:
    """Returns a checksum of the arrays of each process."""
    checksum = 0
    for array in arrays:
        checksum = zlib.crc32(np.ascontiguousarray(array).tobytes(), checksum)
    return _of_processes(checksum & 0x7FFFFFFF)


def total_of_processes(array: np.ndarray) -> np.ndarray:
    """Returns the sum of an array over all processes, on JAX in float32 at best."""
    if processes()[1] == 1:
        return array
    return np.concatenate(_parts(ops.convert_to_tensor(array[None]))).sum(axis=0)


# PyTorch's process group.


def _group() -> Any:
    import torch.distributed

    return torch.distributed


def _check_group() -> None:
    world = int(os.environ.get("WORLD_SIZE", 1))
    rule = "be initialized, by `torch.distributed.init_process_group()`: else each process trains a model of its own"
    check(world == 1 or _group().is_initialized(), "process group", rule, f"none, but WORLD_SIZE={world}")
    if processes()[1] > 1:
        device, served = ops.ones(()).device.type, _group().get_backend_config()
        rule = f"serve the device that Keras computes on, {device}, as gloo does for cpu and nccl for cuda"
        check(f"{device}:" in served, "process group", rule, served)


def _gathered(x: Any) -> list[Any]:
    parts = [ops.zeros_like(x) for _ in range(processes()[1])]
    _group().all_gather(parts, x.detach().contiguous())
    return parts


def _of_processes(number: int) -> list[int]:
    """Returns an integer of each process."""
    return [int(part[0]) for part in _parts(ops.convert_to_tensor([number], dtype="int32"))]


def _totals(tensors: Sequence[Any], factor: float) -> list[Any]:
    """Returns sums over all processes, each times its factor. One message for all tensors of a dtype; `None` stays."""
    import torch

    result = list(tensors)
    for dtype in {x.dtype for x in tensors if x is not None}:
        places = [i for i, x in enumerate(tensors) if x is not None and x.dtype == dtype]
        flat = torch.cat([tensors[i].detach().reshape(-1) for i in places]).mul_(factor)
        _group().all_reduce(flat)
        parts = torch.split(flat, [tensors[i].numel() for i in places])
        for i, part in zip(places, parts, strict=True):
            result[i] = part.reshape(tensors[i].shape)
    return result
