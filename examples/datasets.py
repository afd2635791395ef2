"""Images for the examples: bundled digits, Keras's datasets, an .npz file, or a folder of pictures."""

import pathlib

import keras
import numpy as np

from keras_gen import data

KERAS_DATASETS = ("mnist", "fashion_mnist", "cifar10")

Split = tuple[np.ndarray, np.ndarray | None]


def load_images(dataset: str, size: int = 64) -> Split:
    """Loads the training images: all images if the dataset has no split."""
    return _load(dataset, size, "train")


def load_split(dataset: str, size: int = 64) -> tuple[Split, Split]:
    """Loads images and labels, as `load_images` does, for training and for testing.

    Without a given split (the digits, a folder, an `.npz` file without `x_test`), every sixth image is for testing.
    """
    images, labels = train = _load(dataset, size, "train")
    test = _load(dataset, size, "test")
    if test is not None:
        return train, test
    held_out = np.arange(len(images)) % 6 == 5
    if not held_out.any():
        raise ValueError(f"`dataset` must hold at least 6 images. Received: {len(images)} in dataset={dataset}")
    return tuple((images[rows], None if labels is None else labels[rows]) for rows in (~held_out, held_out))


def count_classes(labels: np.ndarray | None) -> int | None:
    """Returns the number of classes, `None` without labels."""
    return None if labels is None else int(labels.max()) + 1


def check_sides(image_shape: tuple[int, ...]) -> None:
    """Refuses images that cannot be halved twice, as the networks of several examples do."""
    if image_shape[0] % 4 or image_shape[1] % 4:
        raise ValueError(f"`--dataset` must have sides that are multiples of 4. Received: images of {image_shape}")


def _load(dataset: str, size: int, part: str) -> Split | None:
    """Loads one part of a dataset.

    Args:
        dataset: str. `"digits"` (scikit-learn's 8 x 8 handwritten digits, no download), `"mnist"`,
            `"fashion_mnist"`, `"cifar10"` (through `keras.datasets`, which downloads them once), a path of an `.npz`
            file with `x_train` and optionally `y_train`, or a path of a folder of pictures, whose sub-folders are
            the labels.
        size: int. Height and width to which the pictures of a folder are cropped and scaled.
        part: `"train"` or `"test"`.

    Returns:
        images: float32 `(n, height, width, channels)` in [-1, 1].
        labels: int32 `(n,)`, or `None` if there are none. A single `None` for a test part that does not exist.

    Raises:
        ValueError: if the dataset is unknown, has no images, or a file of it is damaged or of another kind.
    """
    path = pathlib.Path(dataset)
    if part == "test" and (dataset == "digits" or path.is_dir()):
        return None
    if dataset == "digits":
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        return (images.reshape(-1, 8, 8, 1) / 8 - 1).astype("float32"), labels.astype("int32")
    if dataset in KERAS_DATASETS:
        parts = getattr(keras.datasets, dataset).load_data()
        images, labels = parts[0 if part == "train" else 1]
    elif path.is_file() and path.suffix == ".npz":
        if part == "test" and "x_test" not in data.array_names(path):
            return None
        images, labels = data.load_npz(path, part)
    elif path.is_dir():
        images, labels, _ = data.load_images(path, size)
    else:
        known = ", ".join(("digits", *KERAS_DATASETS))
        raise ValueError(f"`dataset` must be one of {known}, an .npz file or a folder. Received: dataset={dataset}")
    return data.normalize_images(images), None if labels is None else labels.reshape(-1).astype("int32")
