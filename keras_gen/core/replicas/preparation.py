"""What several replicas need before their first step: checks, equal weights, equally many batches."""

import contextlib
import types
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras
from keras import ops

from keras_gen.core.checks import check, is_array
from keras_gen.core.replicas.processes import check_group, group, of_processes, processes, replicas_of_strategy
from keras_gen.core.replicas.sharing import checksums_of_processes, number_of_shards

WRITERS = (keras.callbacks.ModelCheckpoint, keras.callbacks.CSVLogger, keras.callbacks.TensorBoard)
UNKNOWN = -1  # number of batches


def scope_of(model: keras.Model) -> contextlib.AbstractContextManager[Any]:
    """Returns the scope of the strategy that a model was made in, on TensorFlow. Checks the engine."""
    if keras.backend.backend() == "torch":
        check_group()
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
        counts = of_processes(steps or _number_of_batches(data, batch_size))
        check(len(set(counts)) == 1, name, "be of as many batches in each process", f"{counts} batches")
    for variable in variables:
        value = ops.copy(variable.value)
        group().broadcast(value, src=0)
        variable.assign(value)
    return {**options, **{name: _in_step(data) for name, data, *_ in given if _is_stream(data)}}


def check_accumulation(steps: int) -> None:
    """Checks over how many steps the optimizer accumulates gradients: Keras's fail between replicas of TensorFlow."""
    rule = "be None with several replicas of TensorFlow: train on larger batches"
    check(steps == 1 or replicas_of_strategy() == 1, "gradient_accumulation_steps", rule, steps)


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
    shards = max(1, number_of_shards() // processes()[1]) if keras.backend.backend() == "jax" else 1
    rule = f"divide the samples into batches that {shards} devices can share"
    check(all(size % shards == 0 for size in sizes), "batch_size", rule, received)
    number = replicas_of_strategy()
    rule = f"leave no batch of fewer samples than the {number} replicas"
    check(all(size >= number for size in sizes), "batch_size", rule, received)


def _check_own_rows(array: Any) -> None:
    """Checks that the processes of JAX do not train on the same rows: each would count several times."""
    checksums = checksums_of_processes([ops.convert_to_numpy(array[:64])])
    rule = "hold its own rows in each process, such as `x[process_id::num_processes]`, or be a tf.data.Dataset"
    check(len(set(checksums)) == len(checksums), "x", rule, "the same rows in several processes")


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
        if not all(of_processes(int(batch is not None))):
            return
        yield (batch,) if is_array(batch) else batch
