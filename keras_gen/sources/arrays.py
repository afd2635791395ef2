"""Arrays of .npz files, which may be damaged. Nothing in a file is executed: pickled arrays are refused."""

import contextlib
import pathlib
import tokenize
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_gen.core.checks import check, check_choice
from keras_gen.core.files import DAMAGE, reading
from keras_gen.export import keras_gen_export

MAX_LABEL = 99_999  # an embedding of each class is learned: a label of 10^9 would ask for hundreds of GB
BROKEN = (*DAMAGE, SyntaxError, tokenize.TokenError)  # the last two are NumPy's of a broken header


@keras_gen_export("keras_gen.data.array_names")
def array_names(path: str | pathlib.Path) -> list[str]:
    """Returns the names of the arrays of an `.npz` file, without loading them.

    Args:
        path: str or path of the file.

    Returns:
        list of str, in the order of the file.

    Raises:
        ValueError: if the file is damaged.

    Example:

    >>> keras_gen.data.array_names("mnist.npz")
    ['x_train', 'y_train', 'x_test', 'y_test']
    """
    with _opened(path) as arrays:
        return list(arrays.files)


@keras_gen_export("keras_gen.data.load_arrays")
def load_arrays(path: str | pathlib.Path, *names: str) -> dict[str, np.ndarray]:
    """Loads arrays of an `.npz` file by their names.

    Args:
        path: str or path of the file.
        *names: str, the arrays that are needed; without any, all of the file.

    Returns:
        dict from names to arrays.

    Raises:
        ValueError: if the file is damaged, lacks one of the arrays, or one can only be unpickled.

    Example:

    >>> keras_gen.data.load_arrays("pictures.npz", "x_train", "categories")["categories"]
    """
    held = array_names(path)
    missing = [name for name in names if name not in held]
    check(not missing, "path", f"hold {', '.join(missing)}", f"{path} with {held}")
    with _opened(path) as arrays:
        return {name: arrays[name] for name in names or held}


@keras_gen_export("keras_gen.data.load_npz")
def load_npz(path: str | pathlib.Path, part: str = "train") -> tuple[np.ndarray, np.ndarray | None]:
    """Loads images and labels of one part of an `.npz` file in the layout of Keras's datasets.

    Args:
        path: str or path of the file, with arrays `x_train` and optionally `y_train`, `x_test`, `y_test`.
        part: `"train"` or `"test"`. Defaults to `"train"`.

    Returns:
        images: uint8 array `(n, height, width[, channels])`.
        labels: int32 array `(n,)`, or `None` if the file has none.

    Raises:
        ValueError: if the file is damaged, lacks the images, or an array has another dtype, shape or range.

    Example:

    >>> images, labels = keras_gen.data.load_npz("mnist.npz", "test")
    """
    check_choice("part", part, ("train", "test"))
    x, y = f"x_{part}", f"y_{part}"
    held = array_names(path)
    check(x in held, "path", f"hold {x}", f"{path} with {held}")
    arrays = load_arrays(path, *(name for name in (x, y) if name in held))
    with reading("path", path, "be an .npz file of images and labels", ValueError):
        images = arrays[x]
        is_images = images.dtype == "uint8" and images.ndim in (3, 4) and images.size > 0
        rule = "be uint8 of shape (n, height, width[, channels])"
        check(is_images, x, rule, f"{images.dtype} of shape {images.shape}")
        return images, _checked_labels(y, arrays[y], len(images)) if y in arrays else None


@contextlib.contextmanager
def _opened(path: str | pathlib.Path) -> Iterator[Any]:
    """Opens a file whose damage, met inside the block too, is an error with its path."""
    is_archive = pathlib.Path(path).is_file() and zipfile.is_zipfile(path)
    check(is_archive, "path", "be an .npz file, a zip archive of arrays", path)
    rule = "be a whole .npz file, without pickled objects"
    with reading("path", path, rule, *BROKEN), np.load(path, allow_pickle=False) as arrays:
        yield arrays


def _checked_labels(name: str, labels: np.ndarray, n: int) -> np.ndarray:
    is_vector = labels.dtype.kind in "iuf" and labels.shape in ((n,), (n, 1))
    rule = f"be one class number for each image, of shape ({n},)"
    check(is_vector, name, rule, f"{labels.dtype} of shape {labels.shape}")
    outside = np.unique(labels[~((labels >= 0) & (labels <= MAX_LABEL) & (labels % 1 == 0))])
    check(outside.size == 0, name, f"be integers in 0 .. {MAX_LABEL}", outside)
    return labels.reshape(-1).astype("int32")
