"""Pictures of a folder, each as a person sees it.

Files come from outside and may be damaged: whatever Pillow makes of that becomes a `ValueError` with the name of the
file.
"""

import io
import pathlib
import struct
from typing import Any

import numpy as np

from keras_gen.core.checks import check, check_integer
from keras_gen.core.files import DAMAGE, reading
from keras_gen.export import keras_gen_export

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
BROKEN = (*DAMAGE, SyntaxError, IndexError, ArithmeticError, struct.error)  # SyntaxError is Pillow's of a broken PNG


@keras_gen_export("keras_gen.data.load_images")
def load_images(path: str | pathlib.Path, size: int = 64) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    """Loads all pictures of a folder, with its sub-folders as labels.

    Pictures are cropped around their centres to squares and scaled. They come as a person sees them: upright by their
    EXIF orientation, in sRGB by their colour profile, gray levels of 16 bits as their upper 8, and on white where they
    are transparent. Hidden files and folders, whose names start with a dot, are skipped. Requires Pillow.

    Args:
        path: str or path of the folder. Its pictures (`.png`, `.jpg`, `.jpeg`, `.bmp`, `.webp`) are read at any depth,
            in the order of their paths.
        size: int >= 1. Height and width of the images. Defaults to `64`.

    Returns:
        images: uint8 array `(n, size, size, 3)`.
        labels: int32 array `(n,)`, the index of each image's sub-folder in `names`; or `None` if some pictures lie in
            the folder itself.
        names: list of str, the names of the sub-folders in order; empty without labels.

    Raises:
        ValueError: if `path` is not a folder with pictures, one of them is damaged, too large, or of values without a
            known range, or a sub-folder that would be a label has no picture.
        ImportError: if Pillow is not installed.

    Example:

    >>> images, labels, names = keras_gen.data.load_images("animals", size=32)     # animals/cat/1.png, ...
    >>> model.fit(keras_gen.data.normalize_images(images), labels)
    """
    folder = pathlib.Path(path)
    check_integer("size", size)
    check(folder.is_dir(), "path", "be a folder", folder)
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES and not _hidden(file, folder))
    check(bool(files), "path", f"be a folder with pictures ({', '.join(SUFFIXES)})", folder)
    labels, names = _labels(folder, files)
    images = np.empty((len(files), size, size, 3), "uint8")
    for i, file in enumerate(files):
        images[i] = read_picture(file, size)
    return images, labels, names


def _labels(folder: pathlib.Path, files: list[pathlib.Path]) -> tuple[np.ndarray | None, list[str]]:
    """Returns the number of each file's sub-folder, and their names."""
    parts = [file.relative_to(folder).parts for file in files]
    if any(len(part) == 1 for part in parts):
        return None, []
    names = sorted({part[0] for part in parts})
    folders = {entry.name for entry in folder.iterdir() if entry.is_dir() and not _hidden(entry, folder)}
    empty = sorted(folders - set(names))
    check(not empty, "path", "hold pictures in each sub-folder, a label", f"{folder}, without any in {empty}")
    return np.array([names.index(part[0]) for part in parts], "int32"), names


def read_picture(file: pathlib.Path, size: int) -> np.ndarray:
    """Reads one picture, upright, on white where it is transparent, in sRGB: uint8 `(size, size, 3)`."""
    from PIL import Image, ImageOps

    check(file.is_file(), "path", "hold files, no folder, pipe or link to nothing of a picture's name", file)
    with (
        reading("path", file, "hold whole pictures", *BROKEN, Image.DecompressionBombError),
        Image.open(file) as picture,
    ):
        upright = ImageOps.exif_transpose(picture)
        return np.asarray(ImageOps.fit(_to_rgb(upright), (size, size), Image.Resampling.LANCZOS))


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
    white, rule = (1, "be in [0, 1]") if picture.mode == "F" else (65535, "be in 0 .. 65535")
    is_inside = bool(((values >= 0) & (values <= white)).all())
    check(is_inside, "pixels", rule, f"{values.min()} .. {values.max()}")
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
