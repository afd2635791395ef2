"""Weights of diffusers and transformers, read and written by a table that each network has beside it.

A table is a list of `Entry`: a variable, the names of its tensors in a file, and the layout that converts between the
two. This file depends on no network. See `ForeignWeights` for how to write one that reads and writes such files.
"""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import keras
import numpy as np
from keras import ops, tree

from keras_gen.core.checks import check, is_integer
from keras_gen.core.files import reading
from keras_gen.core.foreign.files import DTYPES, LARGEST_FILE, Tensors, open_source, write_folder
from keras_gen.core.foreign.memory import as_value, copy_to, is_finite, packed, room_for

if TYPE_CHECKING:
    from keras import Model as Mixin  # which comes later among the bases of each class
else:
    Mixin = object


@dataclasses.dataclass(frozen=True)
class Layout:
    """How the tensors of a file become the array of one variable, and back, without a change of any value.

    Args:
        read: function from the tensors to the array.
        write: function from the array and the number of tensors to the tensors.
    """

    read: Callable[[Sequence[np.ndarray]], np.ndarray]
    write: Callable[[np.ndarray, int], list[np.ndarray]]

    @classmethod
    def of_one(cls, read: Callable[[Any], Any], write: Callable[[Any], Any]) -> "Layout":
        """Returns the layout of a single tensor."""
        return cls(lambda tensors: read(tensors[0]), lambda array, _: [write(array)])

    def then(self, read: Callable[[Any], Any], write: Callable[[Any], Any]) -> "Layout":
        """Returns this layout with a further step between its array and the variable."""
        return Layout(lambda tensors: read(self.read(tensors)), lambda array, n: self.write(write(array), n))

    def shapes(self, shape: Sequence[int], count: int) -> list[tuple[int, ...]]:
        """Returns the shapes of the `count` tensors of a variable."""
        hollow = np.broadcast_to(np.int8(0), tuple(shape))  # takes no memory
        return [tensor.shape for tensor in self.write(hollow, count)]


SAME = Layout.of_one(np.asarray, np.asarray)
# The matrix of a linear layer, (out, in) in a file.
TRANSPOSED = Layout.of_one(np.transpose, np.transpose)
# (out, in, height, width) in a file, (height, width, in, out) here.
CONVOLUTION = Layout.of_one(lambda kernel: kernel.transpose(2, 3, 1, 0), lambda kernel: kernel.transpose(3, 2, 0, 1))
# A 1 x 1 convolution in a file, a dense layer here.
POINTWISE = Layout.of_one(lambda kernel: kernel[:, :, 0, 0].T, lambda matrix: matrix.T[:, :, None, None])


def joined(layout: Layout) -> Layout:
    """Returns the layout of equally large tensors side by side, along the last axis of one variable: q, k and v."""

    def read(tensors: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate([packed(layout.read([tensor])) for tensor in tensors], axis=-1)

    def write(array: np.ndarray, count: int) -> list[np.ndarray]:
        return [layout.write(part, 1)[0] for part in np.split(array, count, axis=-1)]

    return Layout(read, write)


def copied(layout: Layout) -> Layout:
    """Returns the layout of a variable of which files hold several equal copies."""

    def read(tensors: Sequence[np.ndarray]) -> np.ndarray:
        are_equal = all(np.array_equal(tensors[0], tensor) for tensor in tensors)
        check(are_equal, "weights", f"hold {len(tensors)} equal copies of one weight", "copies that differ")
        return layout.read(tensors[:1])

    return Layout(read, lambda array, count: layout.write(array, 1) * count)


def reordered(layout: Layout, order: Sequence[int]) -> Layout:
    """Returns the layout of a variable whose block `i`, along the last axis, is block `order[i]` of the file's."""

    def in_order(array: np.ndarray, order: Sequence[int]) -> np.ndarray:
        blocks = np.split(array, len(order), axis=-1)
        return np.concatenate([blocks[i] for i in order], axis=-1)

    inverse = np.argsort(order).tolist()
    return layout.then(lambda array: in_order(array, order), lambda array: in_order(array, inverse))


def rolled(layout: Layout) -> Layout:
    """Returns the layout of a matrix whose inputs are sines, then cosines, in files in the opposite order."""

    def exchange(array: np.ndarray) -> np.ndarray:
        return np.roll(array, len(array) // 2, axis=0)

    return layout.then(exchange, exchange)


Names = str | tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Entry:
    """A variable and its tensors in a file.

    Args:
        variable: `keras.Variable`.
        names: the name of its tensor, or a tuple of names for a layout of several.
        layout: `Layout`. Defaults to `SAME`.
        older: further names, or tuples of names, of the same tensors in older files. Defaults to `()`.
    """

    variable: Any
    names: Names
    layout: Layout = SAME
    older: tuple[Names, ...] = ()

    @property
    def alternatives(self) -> list[tuple[str, ...]]:
        """The tuples of names, the current ones first."""
        return [(names,) if isinstance(names, str) else tuple(names) for names in (self.names, *self.older)]


def entries(layer: keras.Layer, name: str, older: Sequence[str] = (), layout: Layout | None = None) -> list[Entry]:
    """Returns the entries `name.weight` and, if there is one, `name.bias` of a layer.

    Args:
        layer: a built dense layer, 2D convolution, normalization or embedding.
        name: str. The layer's name in a file.
        older: its names in older files. Defaults to `()`.
        layout: `Layout` of `name.weight`. Defaults to `None`, which is that of the kind of layer.
    """
    own = {2: TRANSPOSED, 4: CONVOLUTION}

    def found(*attributes: str) -> Any:
        return next((getattr(layer, key) for key in attributes if getattr(layer, key, None) is not None), None)

    def entry(variable: Any, kind: str, layout: Layout) -> Entry:
        return Entry(variable, f"{name}.{kind}", layout, tuple(f"{other}.{kind}" for other in older))

    kernel, weight, bias = found("kernel"), found("embeddings", "gamma", "scale"), found("bias", "beta")
    if kernel is not None:
        weights = [entry(kernel, "weight", layout or own[len(kernel.shape)])]
    else:
        weights = [] if weight is None else [entry(weight, "weight", layout or SAME)]
    return weights if bias is None else [*weights, entry(bias, "bias", SAME)]


class ForeignTensors(Mixin):
    """Mixin, before `keras.Model`, of networks whose weights are read by a table from files of other libraries.

    A network defines `foreign_table` and these attributes of its class:

    - `foreign_ignored`: names of further tensors that a file may contain, such as buffers.
    - `foreign_prefixes`: prefixes of all names that some versions write and others do not.
    """

    foreign_ignored: ClassVar[tuple[str, ...]] = ()
    foreign_prefixes: ClassVar[tuple[str, ...]] = ()

    def foreign_table(self) -> list[Entry]:
        """Returns the entries of all weights."""
        raise NotImplementedError

    @classmethod
    def with_tensors(cls, make: Callable[[], Self], tensors: Tensors) -> Self:
        """Returns the network that `make` makes, with the weights of a file.

        Each tensor is used exactly once, and read by itself: there is never a second copy of the weights.
        """

        def of_weights() -> contextlib.AbstractContextManager[None]:
            return reading("source", tensors.place, "have the weights of its configuration", ValueError)

        failures: list[BaseException] = []
        # Keras postpones initial values to the end of this scope, by when they are those of the file: none is drawn,
        # and none is in memory twice.
        with keras.StatelessScope():
            network = make()
            table = network.foreign_table()
            _check_whole(network, table)
            for entry in table:
                entry.variable._initializer = _hollow  # also after an error, at the end of the scope
            with of_weights():
                for entry, names in _matches(cls, table, tensors):
                    entry.variable._initializer = _Reader(entry, names, tensors, failures)
        with of_weights():
            for failure in failures:
                raise failure
        return network


class ForeignWeights(ForeignTensors):
    """Mixin, before `keras.Model`, of networks that are read from and written to folders of diffusers or transformers.

    A network defines `foreign_arguments`, `foreign_config` and `foreign_table`, whose functions lie in the file beside
    its own, and these attributes of its class, besides those of `ForeignTensors`:

    - `foreign_classes`: names of the classes there.
    - `foreign_file`: name of the file of weights, without suffixes: that of diffusers, or `"model"` of transformers.
    - `foreign_sizes`: keys of the configuration whose integers are sizes of weights.
    - `foreign_layers`: keys of the configuration whose integers are numbers of layers.
    """

    foreign_classes: ClassVar[tuple[str, ...]]
    foreign_file: ClassVar[str] = "diffusion_pytorch_model"
    foreign_sizes: ClassVar[tuple[str, ...]] = ()
    foreign_layers: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def foreign_arguments(cls, config: dict[str, Any]) -> dict[str, Any]:
        """Returns the constructor's arguments for a configuration, each value of which it checks."""
        raise NotImplementedError

    def foreign_config(self) -> dict[str, Any]:
        """Returns the network's configuration there, with the name of its class; refuses what has no equivalent."""
        raise NotImplementedError

    @classmethod
    def from_diffusers(cls, source: Any, variant: str | None = None, dtype: Any = None) -> Self:
        """Reads a network of the library diffusers or transformers, with its weights.

        Reading a folder requires the package `safetensors`, but neither of these libraries nor PyTorch. Each tensor is
        used exactly once and read individually, so that there is never a second copy of the weights.

        Args:
            source: path of a folder with `config.json` and weights in safetensors, in one file or several with an
                index, as written by `save_pretrained`; or a PyTorch module of these libraries.
            variant: str or `None`. The variant of the files, such as `"fp16"`. Defaults to `None`.
            dtype: the dtype policy of the network. Weights in another precision are converted. Defaults to `None`,
                Keras's global policy.

        Returns:
            The network.

        Raises:
            ValueError: with the file's path, if the folder or its files are invalid, the network does not support the
                configuration, or a weight is missing, unused, of the wrong shape, not floating-point or not finite.
            ImportError: if `safetensors` is not installed.
        """
        place, config, tensors = open_source(source, cls.foreign_classes, cls.foreign_file, variant)
        return cls.with_tensors(functools.partial(cls._configured, place, config, tensors.shapes, dtype), tensors)

    @classmethod
    def _configured(cls, place: Any, config: dict[str, Any], shapes: dict[str, tuple[int, ...]], dtype: Any) -> Self:
        with reading("source", place, f"have a configuration of a {cls.__name__}", ValueError):
            arguments = cls.foreign_arguments(_with_class(config, cls.foreign_classes, cls.__name__))
            _check_bounds(config, shapes, cls.foreign_sizes, cls.foreign_layers)
            return cls(**arguments, dtype=dtype)

    def to_diffusers(self, folder: Any) -> None:
        """Writes the network in the format of diffusers or transformers: `config.json`, and weights in safetensors.

        Weights keep their dtype. Above 10 GB they are written as shards with an index. Files of the same names are
        replaced.

        Args:
            folder: path of the folder. If it does not exist, it is created.

        Raises:
            ValueError: if the other library has no such network, or `folder` is not the path of a folder.
            ImportError: if `safetensors` is not installed.
        """
        write_folder(folder, self.foreign_config(), self.foreign_file, _shards(self.foreign_table()))


def _hollow(shape: Sequence[int], dtype: Any = None) -> np.ndarray:
    """Returns an array without values."""
    return np.zeros([0] * len(shape), dtype)


class _Reader:
    """An initializer that reads a variable's tensors.

    It raises no error, after which Keras would leave the remaining variables uninitialized, and fail at the end of
    every later scope. Errors are added to `failures` instead, and nothing is read after the first one.
    """

    def __init__(self, entry: Entry, names: tuple[str, ...], tensors: Tensors, failures: list[BaseException]):
        self.entry, self.names, self.tensors, self.failures = entry, names, tensors, failures

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        if self.failures:
            return _hollow(shape, dtype)
        try:
            value = room_for(shape, dtype)
            with np.errstate(over="ignore"):  # refused in the next line
                copy_to(value, self.entry.layout.read([self.tensors.read(name) for name in self.names]))
            check(is_finite(value), "weights", f"be finite in {dtype}", ", ".join(self.names))
        except BaseException as error:  # including an interruption by the user
            self.failures.append(error)
            return _hollow(shape, dtype)
        return as_value(value)


def _with_class(config: dict[str, Any], classes: Sequence[str], ours: str) -> dict[str, Any]:
    """Returns the configuration with its class as `_class_name`, as diffusers has it; transformers has a list."""
    key = "_class_name" if "_class_name" in config else "architectures"
    value = config.get(key)
    name = value[0] if isinstance(value, list) and len(value) == 1 else value
    check(name is None or name in classes, key, f"be {' or '.join(map(repr, classes))} for a {ours}", repr(value))
    return {**config, "_class_name": classes[0] if name is None else name}


def _check_bounds(
    config: dict[str, Any], shapes: dict[str, tuple[int, ...]], sizes: Sequence[str], layers: Sequence[str]
) -> None:
    """Checks, before a network is built, that it is not larger than its weights: numbers in a file may be anything."""
    known = {size for shape in shapes.values() for size in shape}
    for key in sizes:
        check(known.issuperset(_integers(config.get(key))), key, "be sizes of weights", config.get(key))
    for key in layers:
        are_few = all(number < len(shapes) for number in _integers(config.get(key)))
        check(are_few, key, f"be less than the number of weights, {len(shapes)}", config.get(key))


def _integers(value: Any) -> list[int]:
    return [leaf for leaf in tree.flatten(value) if is_integer(leaf)]


def _check_whole(network: keras.Model, table: Sequence[Entry]) -> None:
    """Checks that no weight is without an entry, as it would keep its random values."""
    named = {id(entry.variable) for entry in table}
    left = [weight.path for weight in network.weights if id(weight) not in named]
    check(not left, "foreign_table", "have an entry for each weight", ", ".join(left))


def _matches(
    cls: type[ForeignTensors], table: Sequence[Entry], tensors: Tensors
) -> list[tuple[Entry, tuple[str, ...]]]:
    """Returns each entry with the names of its tensors in the file, after checking that all fit and none is left."""
    matches = [(entry, _found(entry, tensors, cls.foreign_prefixes)) for entry in table]
    used = {name for _, names in matches for name in names}
    ignored = {spelling for name in cls.foreign_ignored for spelling in _spellings(name, cls.foreign_prefixes)}
    left = sorted(tensors.shapes.keys() - used - ignored)
    check(not left, "source", f"contain only a {cls.__name__}'s weights", ", ".join(left))
    integers = {name: tensors.dtypes[name] for name in sorted(used) if tensors.dtypes[name] not in DTYPES.values()}
    check(not integers, "weights", f"be {', '.join(DTYPES)}", integers)
    return matches


def _found(entry: Entry, tensors: Tensors, prefixes: Sequence[str]) -> tuple[str, ...]:
    """Returns the names in the file of an entry's tensors, after checking their shapes."""

    def spelled(name: str) -> str:  # as in the file, or empty
        return next((spelling for spelling in _spellings(name, prefixes) if spelling in tensors.shapes), "")

    present = [tuple(map(spelled, names)) for names in entry.alternatives]
    complete = [names for names in present if all(names)]
    if not complete:
        missing = entry.alternatives[0][present[0].index("")]
        raise ValueError(f"`source` must contain the weight {missing}. Received: source={len(tensors.shapes)} others")
    names = complete[0]
    for name, shape in zip(names, entry.layout.shapes(entry.variable.shape, len(names)), strict=True):
        own = tensors.shapes[name]
        check(own == shape, "source", f"contain {name} of shape {shape}", own)
    return names


def _spellings(name: str, prefixes: Sequence[str]) -> list[str]:
    """Returns a name as it is, and with and without each prefix."""
    others = [name.removeprefix(prefix) if name.startswith(prefix) else prefix + name for prefix in prefixes]
    return [name, *others]


def _shards(table: Sequence[Entry]) -> list[Callable[[], dict[str, np.ndarray]]]:
    """Splits a table, in its order, for files of at most `LARGEST_FILE` bytes, and returns their tensors' functions."""
    groups: list[list[Entry]] = [[]]
    size = 0
    for entry in table:
        own = math.prod(entry.variable.shape) * np.dtype(entry.variable.dtype).itemsize
        if groups[-1] and size + own > LARGEST_FILE:
            groups, size = [*groups, []], 0
        groups[-1].append(entry)
        size += own
    return [functools.partial(_written, group) for group in groups]


def _written(table: Sequence[Entry]) -> dict[str, np.ndarray]:
    """Returns the tensors of a table by name."""
    tensors: dict[str, np.ndarray] = {}
    for entry in table:
        names = entry.alternatives[0]
        arrays = entry.layout.write(ops.convert_to_numpy(entry.variable), len(names))
        tensors |= zip(names, map(packed, arrays), strict=True)
    return tensors
