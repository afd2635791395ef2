"""Checks of the arrays that models are given."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.checks import check


def check_images_dtype(name: str, images: Any) -> None:
    """Refuses integer pixels, which are most likely 0 .. 255."""
    dtype = keras.backend.standardize_dtype(images.dtype)
    check("float" in dtype, name, "be floating-point images, scaled to [-1, 1]", f"dtype {dtype}")


def as_images(name: str, images: Any) -> np.ndarray:
    """Returns images as a float32 array; refuses integer pixels, an empty batch, and values that are not finite."""
    is_array = isinstance(images, list | tuple) or hasattr(images, "dtype")
    check(is_array, name, "be an array of images", type(images).__name__)
    images = np.asarray(ops.convert_to_numpy(images))
    check_images_dtype(name, images)
    check(len(images) > 0, name, "hold at least one image", f"shape {images.shape}")
    check(bool(np.isfinite(images).all()), name, "be finite", "NaN or infinite values")
    return images.astype("float32", copy=False)
