"""Images from files: a folder of pictures, each as a person sees it, and arrays of an .npz file.

Files come from outside and may be damaged: whatever Pillow, NumPy and zlib make of that becomes a `ValueError` with
the name of the file. Nothing in a file is executed: pickled arrays are refused.
"""

import contextlib
import io
import pathlib
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
MAX_LABEL = 99_999  # an embedding of each class is learned: a label of 10^9 would ask for hundreds of GB
# Of readers that meet a damaged file. SyntaxError is Pillow's of a broken PNG, TokenError NumPy's of a broken header.
DAMAGE = (
    *(OSError, ValueError, SyntaxError, EOFError, KeyError, IndexError, TypeError, ArithmeticError, MemoryError),
    *(RuntimeError, struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)


def read_pictures(folder: pathlib.Path, size: int) -> np.ndarray:
    """Reads all pictures in a folder and its subfolders, in the order of their names.

    Args:
        folder: path of the folder. Hidden files and folders, whose names start with a dot, are skipped.
        size: int >= 1. Height and width to which pictures are cropped and scaled.

    Returns:
        uint8 array `(n, size, size, 3)`.

    Raises:
        ValueError: if there are no pictures, or one is damaged, too large, or of values without a known range.
    """
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES and not _hidden(file, folder))
    _check(bool(files), "dataset", f"be a folder with pictures ({', '.join(SUFFIXES)})", folder)
    images = np.empty((len(files), size, size, 3), "uint8")
    for i, file in enumerate(files):
        images[i] = read_picture(file, size)
    return images


def read_picture(file: pathlib.Path, size: int) -> np.ndarray:
    """Reads one picture, upright, on white where it is transparent, in sRGB: uint8 `(size, size, 3)`."""
    from PIL import Image, ImageOps

    with reading("dataset", file, "hold whole pictures", Image.DecompressionBombError):
        _check(file.is_file(), "dataset", "hold files", "a folder, a pipe or a link to nothing")
        with Image.open(file) as picture:
            upright = ImageOps.exif_transpose(picture)
            return np.asarray(ImageOps.fit(_to_rgb(upright), (size, size), Image.Resampling.LANCZOS))


def read_arrays(path: pathlib.Path, needed: str, *names: str) -> dict[str, np.ndarray]:
    """Reads an array of an .npz file, and those of the other names that it has.

    Raises:
        ValueError: if the file is damaged, has no array `needed`, or one can only be unpickled.
    """
    with reading("dataset", path, "be a whole .npz file, without pickled objects"):
        _check(zipfile.is_zipfile(path), "dataset", "be a zip archive of arrays", "another kind of file")
        with np.load(path, allow_pickle=False) as arrays:
            _check(needed in arrays, "dataset", f"hold an array {needed}", arrays.files)
            return {name: arrays[name] for name in (needed, *names) if name in arrays}


def read_labelled(path: pathlib.Path, part: str) -> tuple[np.ndarray, np.ndarray | None] | None:
    """Reads images and labels of one part of an .npz file in the layout of Keras's datasets.

    Args:
        path: the file, with arrays `x_train` and optionally `y_train`, `x_test`, `y_test`.
        part: `"train"` or `"test"`.

    Returns:
        Images, uint8 `(n, height, width[, channels])`, and labels, int32 `(n,)` or `None`; `None` alone for a part that
        the file does not have.

    Raises:
        ValueError: if the file is damaged, or an array has another dtype, shape or range.
    """
    x, y = f"x_{part}", f"y_{part}"
    arrays = read_arrays(path, "x_train", x, y)
    with reading("dataset", path, "be a .npz file of images and labels"):
        if x not in arrays:
            return None
        images = arrays[x]
        is_images = images.dtype == "uint8" and images.ndim in (3, 4) and images.size > 0
        rule = "be uint8 of shape (n, height, width[, channels])"
        _check(is_images, x, rule, f"{images.dtype} of shape {images.shape}")
        return images, _checked_labels(y, arrays[y], len(images)) if y in arrays else None


def _checked_labels(name: str, labels: np.ndarray, n: int) -> np.ndarray:
    is_vector = labels.dtype.kind in "iuf" and labels.shape in ((n,), (n, 1))
    rule = f"be one class number for each image, of shape ({n},)"
    _check(is_vector, name, rule, f"{labels.dtype} of shape {labels.shape}")
    outside = np.unique(labels[~((labels >= 0) & (labels <= MAX_LABEL) & (labels % 1 == 0))])
    _check(outside.size == 0, name, f"be integers in 0 .. {MAX_LABEL}", outside)
    return labels.reshape(-1).astype("int32")


def _to_rgb(picture: Any) -> Any:
    """Returns a Pillow picture in RGB, colours by its profile, and on white where it is transparent."""
    from PIL import Image

    if picture.mode.startswith(("I", "F")):
        return _eight_bits(picture).convert("RGB")
    if not picture.has_transparency_data:
        return _to_srgb(picture if picture.mode in ("L", "CMYK") else picture.convert("RGB"), "RGB")
    picture = _to_srgb(picture.convert("RGBA"), "RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")


def _eight_bits(picture: Any) -> Any:
    """Returns a gray picture of integers in 0 .. 65535, or of real numbers in [0, 1], as one of 0 .. 255."""
    from PIL import Image

    values = np.asarray(picture).astype("float64")
    white, rule = (1, "[0, 1]") if picture.mode == "F" else (65535, "0 .. 65535")
    is_inside = bool(((values >= 0) & (values <= white)).all())
    _check(is_inside, "pixels", f"be in {rule}", f"{values.min()} .. {values.max()}")
    values[values == picture.info.get("transparency")] = white
    return Image.fromarray(np.round(values * (255 / white)).astype("uint8"))


def _to_srgb(picture: Any, mode: str) -> Any:
    """Converts colours by the picture's ICC profile, if it has one of its own colour space."""
    from PIL import ImageCms

    if not picture.info.get("icc_profile"):
        return picture.convert(mode)
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(picture.info["icc_profile"]))
        return ImageCms.profileToProfile(picture, profile, ImageCms.createProfile("sRGB"), outputMode=mode)
    except (OSError, ImageCms.PyCMSError):  # a profile of no use, as many files have: viewers show them without it
        return picture.convert(mode)


def _hidden(file: pathlib.Path, folder: pathlib.Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def _check(is_valid: bool, name: str, rule: str, value: Any) -> None:
    if not is_valid:
        raise ValueError(f"`{name}` must {rule}. Received: {name}={value}")


@contextlib.contextmanager
def reading(name: str, file: pathlib.Path, rule: str, *more: type[Exception]) -> Iterator[None]:
    """Names the argument and the file in errors of those who read it."""
    try:
        yield
    except (*DAMAGE, *more) as error:
        raise ValueError(f"`{name}` must {rule}. Received: {name}={file}: {error}") from error
