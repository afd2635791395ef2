"""Loading of weights: all weights of a file, or none."""

import contextlib
import io
import pathlib
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import h5py
import keras
import numpy as np
from keras import ops

from keras_gen.core.averages import CHECKSUM
from keras_gen.core.checks import check
from keras_gen.core.files import DAMAGE, reading

MEMBER = "model.weights.h5"  # of a `.keras` file
NO_WEIGHTS = ("random_state_", CHECKSUM)  # prefixes of the names of a model's other entries in a file


def load_whole(
    model: keras.Model, load: Callable[..., None], filepath: Any, skip_mismatch: bool, **kwargs: Any
) -> None:
    """Loads weights, or leaves the model as it is.

    Args:
        model: a built model.
        load: its method of Keras, `load_weights`.
        filepath: path of the file.
        skip_mismatch: bool. Whether to load what fits.
        **kwargs: other arguments of `load`.

    Raises:
        ValueError: if a weight is missing, of another shape, NaN or left over, or the file is damaged.
    """
    with reading("filepath", filepath, "be a whole file of this model's weights", *DAMAGE), unless_fails(model):
        if not skip_mismatch and not kwargs:
            _check_left_over(model, filepath)
        load(filepath, skip_mismatch, **kwargs)
        broken = [weight.path for weight in model.weights if np.isnan(ops.convert_to_numpy(weight)).any()]
        check(not broken, "weights", "be numbers", f"NaN in {', '.join(broken)}")


@contextlib.contextmanager
def unless_fails(model: keras.Model) -> Iterator[None]:
    """Restores the values of the model's variables, and of its optimizers', if the block raises.

    The checksums that tell whether the weights of a model, or of one inside it, are the averages are restored as well.
    """
    checksums = [(layer, getattr(layer, CHECKSUM)) for layer in _layers(model) if hasattr(layer, CHECKSUM)]
    optimizers = [getattr(layer, "optimizer", None) for layer in _layers(model)]
    own = [variable for optimizer in optimizers if optimizer is not None for variable in optimizer.variables]
    before = [(variable, np.array(ops.convert_to_numpy(variable))) for variable in [*model.variables, *own]]

    def restore() -> None:
        for variable, value in before:
            variable.assign(value)
        for layer, checksum in checksums:
            setattr(layer, CHECKSUM, checksum)

    with contextlib.ExitStack() as stack:
        stack.callback(restore)
        yield
        stack.pop_all()


def _check_left_over(model: keras.Model, filepath: Any) -> None:
    """Checks that a file holds no more weights than the model: Keras would silently ignore the others."""
    path = pathlib.Path(filepath)
    if not path.is_file():  # Keras reports it
        return
    if path.name.endswith(".weights.h5"):
        saved = _saved_weights(path)
    elif path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            saved = _saved_weights(io.BytesIO(archive.read(MEMBER)))
    else:
        return
    rule = "hold no weights but the model's (`skip_mismatch=True` ignores others)"
    own = sum(map(_entries, _layers(model)))
    check(len(saved) <= own, "file", rule, f"{len(saved)} weights for a model with {own}: {', '.join(saved)}")


def _saved_weights(file: Any) -> list[str]:
    """Returns the paths of the weights in a file, without those of optimizers and random generators."""
    paths: list[str] = []
    with h5py.File(file, "r") as group:
        group.visititems(lambda path, item: paths.append(path) if isinstance(item, h5py.Dataset) else None)
    parts = [path.split("/") for path in paths]
    return ["/".join(p) for p in parts if "optimizer" not in p and not p[-1].startswith(NO_WEIGHTS)]


def _entries(layer: keras.Layer) -> int:
    """Returns how many weights a layer, without its sublayers, has in a file."""
    store: dict[str, Any] = {}
    layer.save_own_variables(store)
    return sum(not name.startswith(NO_WEIGHTS) for name in store)


def _layers(model: keras.Model) -> list[keras.Layer]:
    """Returns the model and all layers in it, each once."""
    return list({id(layer): layer for layer in model._flatten_layers()}.values())
