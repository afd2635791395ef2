"""Pixels in 0 .. 255, as files have them, and in [-1, 1], as models take them."""

from typing import Any

import numpy as np

from keras_gen.core.checks import check, finite_array
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.data.normalize_images")
def normalize_images(images: Any) -> np.ndarray:
    """Scales pixel values from 0 .. 255 to [-1, 1].

        y = x / 127.5 - 1

    Args:
        images: `(n, height, width, channels)`, or `(n, height, width)` of gray images; integers or floats.

    Returns:
        float32 array `(n, height, width, channels)`; 1 channel for gray images.

    Raises:
        ValueError: if `images` is not a batch of images, or has values outside 0 .. 255, or floats that end at 1.

    Example:

    >>> model.fit(keras_gen.data.normalize_images(x_train))     # uint8 (n, 28, 28), as keras.datasets has them
    """
    images = finite_array("images", images)
    is_batch = images.ndim in (3, 4) and images.size > 0
    check(is_batch, "images", "have shape (n, height, width[, channels])", f"shape {images.shape}")
    low, high = images.min(), images.max()
    is_inside = bool(low >= 0 and high <= 255)
    check(is_inside, "images", "have pixel values in 0 .. 255", f"values in [{low:.4g}, {high:.4g}]")
    # Black is black on either scale.
    in_unit_interval = images.dtype.kind == "f" and 0 < high <= 1
    check(
        not in_unit_interval, "images", "be in 0 .. 255: for [0, 1], use `2 * images - 1`", f"values up to {high:.4g}"
    )
    return (images.astype("float32") / 127.5 - 1).reshape(*images.shape[:3], -1)


@keras_gen_export("keras_gen.data.denormalize_images")
def denormalize_images(images: Any) -> np.ndarray:
    """Scales images from [-1, 1] to pixel values in 0 .. 255: the inverse of `normalize_images`.

    Args:
        images: array of any shape; values outside [-1, 1] are clipped.

    Returns:
        uint8 array of the same shape.

    Raises:
        ValueError: if `images` are not finite real numbers, or are uint8, pixels already.

    Example:

    >>> pixels = keras_gen.data.denormalize_images(model.sample(16))
    """
    images = finite_array("images", images)
    check(images.dtype != "uint8", "images", "be in [-1, 1], as `normalize_images` makes them of pixels", "dtype uint8")
    images = np.clip(images, -1.0, 1.0).astype("float32", copy=False)
    return ((images + 1) * 127.5).round().astype("uint8")
