"""Images for the examples: bundled digits, Keras's datasets, an .npz file, or a folder of pictures."""

import pathlib

import keras
import numpy as np

KERAS_DATASETS = ("mnist", "fashion_mnist", "cifar10")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


def load_images(dataset: str, size: int = 64) -> tuple[np.ndarray, np.ndarray | None]:
    """Loads training images.

    Args:
        dataset: str. `"digits"` (scikit-learn's 8 x 8 handwritten digits, no download), `"mnist"`,
            `"fashion_mnist"`, `"cifar10"` (through `keras.datasets`, which downloads them once), a path of an `.npz`
            file with `x_train` and perhaps `y_train`, or a path of a folder of pictures.
        size: int. Height and width to which the pictures of a folder are cropped and scaled. Defaults to `64`.

    Returns:
        images: float32 `(n, height, width, channels)` in [-1, 1].
        labels: int32 `(n,)`, or `None` where there are none.

    Raises:
        ValueError: if the dataset is unknown, has no images, or holds a broken one.
    """
    path = pathlib.Path(dataset)
    if dataset == "digits":
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        return (images.reshape(-1, 8, 8, 1) / 8 - 1).astype("float32"), labels.astype("int32")
    if dataset in KERAS_DATASETS:
        (images, labels), _ = getattr(keras.datasets, dataset).load_data()
    elif path.is_file() and path.suffix == ".npz":
        images, labels = _read_npz(path)
    elif path.is_dir():
        images, labels = _read_folder(path, size), None
    else:
        known = ", ".join(("digits", *KERAS_DATASETS))
        raise ValueError(f"`dataset` must be one of {known}, an .npz file or a folder. Received: dataset={dataset}")
    images = (images.astype("float32") / 127.5 - 1).reshape(*images.shape[:3], -1)
    return images, None if labels is None else labels.reshape(-1).astype("int32")


def _read_npz(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray | None]:
    with np.load(path, allow_pickle=False) as arrays:
        if "x_train" not in arrays:
            raise ValueError(f"`dataset` must hold an array x_train. Received: dataset={path} with {arrays.files}")
        images, labels = arrays["x_train"], arrays.get("y_train")
    if images.dtype != "uint8" or images.ndim not in (3, 4) or len(images) == 0:
        raise ValueError(
            f"`x_train` must be uint8 of shape (n, height, width[, channels]). "
            f"Received: x_train={images.dtype} of shape {images.shape} in {path}"
        )
    return images, labels


def _read_folder(folder: pathlib.Path, size: int) -> np.ndarray:
    from PIL import Image, ImageOps

    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES)
    if not files:
        raise ValueError(
            f"`dataset` must be a folder with pictures ({', '.join(SUFFIXES)}). Received: dataset={folder}"
        )
    images = np.empty((len(files), size, size, 3), "uint8")
    for i, file in enumerate(files):
        try:
            with Image.open(file) as picture:
                images[i] = ImageOps.fit(picture.convert("RGB"), (size, size), Image.Resampling.LANCZOS)
        except OSError as error:
            raise ValueError(f"`dataset` must hold whole pictures. Received: dataset={file}: {error}") from error
    return images
