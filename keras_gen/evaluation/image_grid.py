import math
from typing import Any

import numpy as np

from keras_gen.core.checks import check, check_integer, finite_array
from keras_gen.export import keras_gen_export
from keras_gen.sources.pixels import denormalize_images


@keras_gen_export("keras_gen.ops.image_grid")
def image_grid(images: Any, columns: int | None = None, scale: int = 1, padding: int = 1) -> np.ndarray:
    """Arranges images in a grid, row by row.

    Args:
        images: `(n, height, width, channels)`, 1 or 3 channels, scaled to [-1, 1]; values outside are clipped.
        columns: int >= 1 or `None`, which is `ceil(sqrt(n))`. Defaults to `None`.
        scale: int >= 1. Upsampling factor of the pixels. Defaults to `1`.
        padding: int >= 0. Width of the white border between and around images. Defaults to `1`.

    Returns:
        uint8 array `(height, width, channels)`.

    Raises:
        ValueError: if an argument is outside its range, or `images` is not a batch of finite images, or of uint8.
    """
    images = finite_array("images", images)
    is_batch = images.ndim == 4 and len(images) > 0 and images.shape[-1] in (1, 3)
    check(is_batch, "images", "have shape (n, height, width, 1 or 3)", f"shape {images.shape}")
    columns = math.ceil(math.sqrt(len(images))) if columns is None else columns
    check_integer("columns", columns)
    check_integer("scale", scale)
    check_integer("padding", padding, at_least=0)
    pixels = denormalize_images(images).repeat(scale, axis=1).repeat(scale, axis=2)
    _, height, width, channels = pixels.shape
    rows = -(-len(pixels) // columns)
    cell = (height + padding, width + padding)
    grid = np.full((rows * cell[0] + padding, columns * cell[1] + padding, channels), 255, "uint8")
    for i, image in enumerate(pixels):
        top, left = (i // columns) * cell[0] + padding, (i % columns) * cell[1] + padding
        grid[top : top + height, left : left + width] = image
    return grid
