"""The first batch of whatever `fit` takes, to be checked before any step."""

import types
from collections.abc import Iterator
from typing import Any

import keras
from keras import ops

from keras_gen.core.checks import check_integer, is_array


def is_source(data: Any) -> bool:
    """Returns whether `data` may be an array, a dataset, a generator or a loader."""
    yields = hasattr(data, "__iter__") or hasattr(data, "__getitem__")
    return is_array(data) or (yields and not isinstance(data, str | bytes | type))


def check_batch_size(batch_size: Any) -> None:
    """Checks the batch size of `fit` or `evaluate`, an integer or `None`."""
    if batch_size is not None:
        check_integer("batch_size", batch_size)


def first_batch(data: Any) -> tuple[Any, Any]:
    """Returns the first batch as NumPy arrays, and data that still begin with it.

    The batch is `None` for arrays, which are checked as a whole, and for what cannot be looked at without a trace.
    """
    batch = None
    if isinstance(data, keras.utils.PyDataset):
        batch = data[0]
    elif hasattr(data, "element_spec") and hasattr(data, "take"):  # tf.data
        batch = next(iter(data.take(1)), None)
    elif isinstance(data, types.GeneratorType):
        batch = next(data, None)
        data = _resumed(batch, data)
    elif hasattr(data, "collate_fn") and hasattr(data.dataset, "__getitem__") and data.batch_size:
        # A DataLoader of torch: its own iterator would draw from torch's generator.
        size = min(data.batch_size, len(data.dataset))
        batch = data.collate_fn([data.dataset[i] for i in range(size)])
    return None if batch is None else keras.tree.map_structure(_as_numpy, batch), data


def _resumed(batch: Any, rest: Iterator[Any]) -> Iterator[Any]:
    if batch is not None:
        yield batch
    yield from rest


def _as_numpy(part: Any) -> Any:
    return ops.convert_to_numpy(part) if is_array(part) else part
