"""Data of `fit` other than arrays: batches of any kind, the first of which is checked before any step."""

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_gen.core.checks import (
    check,
    check_integer_or_none,
    is_array,
    is_integer,
    is_number,
    on_host,
    real_array,
)
from keras_gen.core.conditions import map_parts, names_of, parts_of
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.data.Batches")
class Batches(keras.utils.PyDataset):
    """Batches of any source, for `fit` and `evaluate` on every backend: dicts by their keys, tuples, or bare arrays.

    The source is iterated once per epoch, in its own order: shuffling is left to the source. If it has a length, Keras
    knows the number of batches. If it has none, such as a generator or a stream, `fit` iterates it only once, so that
    several epochs need an endless source and `steps_per_epoch`.

    Batches are converted to NumPy arrays, float64 to float32. Their shapes must agree except for the first axis.

    Args:
        source: iterable of batches: a `DataLoader` of PyTorch, a data set of dicts with its batches as rows, `tf.data`,
            a generator, a list. A batch is a dict, an array, or a tuple or list `(x,)`, `(x, y)` or
            `(x, y, sample_weight)` of arrays; in a dict, nested lists of numbers count as arrays.
        x: str, the key of the data in batches that are dicts. Defaults to `None`, for other batches.
        y: str, the key of labels or conditions, or a list of keys, whose arrays form a dict with these names. Defaults
            to `None`, no labels.
        transform: function of the data of a batch, an array, such as `normalize_images`. Defaults to `None`.

    Raises:
        ValueError: if an argument is invalid, or if a batch lacks a key, differs in shape from the first one or does
            not consist of numbers.

    Example:

    >>> loader = torch.utils.data.DataLoader(dicts, batch_size=32, shuffle=True)
    >>> model.fit(keras_gen.data.Batches(loader, x="image", y="label", transform=keras_gen.data.normalize_images))
    """

    def __init__(
        self,
        source: Iterable[Any],
        x: str | None = None,
        y: str | Sequence[str] | None = None,
        transform: Callable[[np.ndarray], Any] | None = None,
    ):
        super().__init__()
        is_source = hasattr(source, "__iter__") and not is_array(source) and not isinstance(source, str | Mapping)
        check(is_source, "source", "be an iterable of batches", f"a {type(source).__name__}")
        rule = "be the key of batches that are dicts, or None"
        check(x is None or isinstance(x, str), "x", rule, repr(x))
        are_keys = isinstance(y, list | tuple) and len(y) > 0 and all(isinstance(key, str) for key in y)
        check(y is None or isinstance(y, str) or are_keys, "y", f"{rule}, or a list of keys", repr(y))
        check(y is None or x is not None, "x", "be given with `y`", None)
        check(transform is None or callable(transform), "transform", "be a function or None", repr(transform))
        self.source, self.x, self.y, self.transform = source, x, y, transform
        self._lock = threading.Lock()
        self._iterator: Iterator[Any] = iter(())
        self._position: float = np.inf  # number of the iterator's next batch
        self._shapes: list[Any] | None = None

    @property
    def num_batches(self) -> int | None:
        try:
            return len(self.source)  # type: ignore[arg-type]
        except TypeError:  # a generator has no length, and tf.data may not know its own
            return None

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return map(self.converted, self.source)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        # TensorFlow fetches batches in a thread of its own, while that of the previous epoch may still be running.
        with self._lock:
            if index < self._position:
                self._iterator, self._position = iter(self.source), 0
            while self._position < index:
                self._next()
            return self.converted(self._next())

    def _next(self) -> Any:
        self._position += 1
        batch = next(self._iterator, None)
        rule = "yield as many batches as its length says"
        check(batch is not None, "source", rule, f"{self._position - 1} of {self.num_batches}")
        return batch

    def converted(self, batch: Any) -> tuple[Any, ...]:
        """Returns a batch of the source as Keras takes it."""
        names = ("x", "y", "sample_weight")
        named = list(zip(names, self._parts(batch), strict=False))
        x, *others = (map_parts(_as_plain, names_of(name, part), part) for name, part in named)
        x = x if self.transform is None else real_array("transform", self.transform(x))
        shapes = [map_parts(lambda part: np.shape(part)[1:], part) for part in (x, *others)]
        self._shapes = shapes if self._shapes is None else self._shapes
        rule = "yield batches of one shape beyond the first axis"
        check(shapes == self._shapes, "source", rule, f"{shapes} after {self._shapes}")
        return (x, *others)

    def _parts(self, batch: Any) -> tuple[Any, ...]:
        if isinstance(batch, Mapping):
            y = {key: key for key in self.y} if isinstance(self.y, list | tuple) else self.y
            keys = f"be a key of the batches, one of {list(batch)}"
            check(self.x in batch, "x", keys, repr(self.x))
            for key in parts_of(y):
                check(key in batch or key is None, "y", keys, repr(key))
            return (batch[self.x],) if y is None else (batch[self.x], map_parts(lambda key: batch[key], y))
        check(self.x is None, "x", "be None, since the batches are not dicts", repr(self.x))
        parts = tuple(batch) if isinstance(batch, tuple | list) else (batch,)
        check(1 <= len(parts) <= 3, "source", "yield (x,), (x, y) or (x, y, sample_weight)", f"{len(parts)} arrays")
        return parts


def is_source(data: Any) -> bool:
    """Returns whether `data` may be an array, a dataset, a generator or a loader."""
    yields = hasattr(data, "__iter__") or hasattr(data, "__getitem__")
    return is_array(data) or (yields and not isinstance(data, str | bytes | type))


def check_batch_size(batch_size: Any) -> None:
    """Checks the batch size of `fit` or `evaluate`, an integer or `None`."""
    check_integer_or_none("batch_size", batch_size)


def check_class_weight(class_weight: Any) -> None:
    """Checks the weights of classes that `fit` takes: Keras ignores the keys that are no labels."""
    is_dict = isinstance(class_weight, Mapping)
    pairs = class_weight.items() if is_dict else ()
    are_weights = all(is_integer(label) and is_number(weight) and weight >= 0 for label, weight in pairs)
    rule = "be a dict from labels, which are integers, to finite numbers >= 0"
    check(class_weight is None or (is_dict and are_weights), "class_weight", rule, class_weight)


def first_batch(data: Any) -> tuple[Any, Any]:
    """Returns the first batch as NumPy arrays, and data that still begin with it.

    The batch is `None` for arrays, which are checked as a whole, and for data that cannot be inspected without side
    effects. Iterators become generators, and bare arrays and lists, which Keras does not accept from a generator,
    tuples; so do bare arrays from a DataLoader.
    """
    if isinstance(data, Batches) and data.num_batches is None:
        data = (batch for batch in data)
    if isinstance(data, Iterator):
        batch = next(data, None)
        data = _resumed(batch, data)
    else:
        batch = _peek(data)
        if is_array(batch) and _is_loader(data):
            data = Batches(data)
    return None if batch is None else keras.tree.map_structure(on_host, batch), data


def _peek(data: Any) -> Any:
    if isinstance(data, Batches):
        batch = _peek(data.source)
        return data[0] if batch is None else data.converted(batch)
    if isinstance(data, keras.utils.PyDataset):
        return data[0]
    if hasattr(data, "element_spec") and hasattr(data, "take"):  # tf.data
        return next(iter(data.take(1)), None)
    if _is_loader(data) and hasattr(data.dataset, "__len__") and data.batch_size:  # a stream has no length
        # The loader's own iterator would draw from torch's generator.
        size = min(data.batch_size, len(data.dataset))
        check(size > 0, "x", "hold at least one sample", "a DataLoader of none")
        return data.collate_fn([data.dataset[i] for i in range(size)])
    return None


def _is_loader(data: Any) -> bool:
    return hasattr(data, "collate_fn") and hasattr(data, "dataset")  # a DataLoader of torch


def _resumed(batch: Any, rest: Iterator[Any]) -> Iterator[Any]:
    for each in itertools.chain([] if batch is None else [batch], rest):
        parts = [each] if is_array(each) else each
        yield tuple(parts) if isinstance(parts, list) else parts


def _as_plain(name: str, part: Any) -> Any:
    """Returns a part of a batch as a NumPy array, of no wider floats than float32."""
    if part is None:
        return None
    part = part.detach().cpu().numpy() if hasattr(part, "detach") else part  # of torch, perhaps on another device
    array = real_array(name, np.asarray(part) if hasattr(part, "__array__") else part)
    return array.astype("float32") if array.dtype == "float64" else array
