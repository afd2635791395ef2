"""Images as sequences of square patches, row by row."""

from collections.abc import Sequence
from typing import Any

from keras import ops

from keras_gen.core.checks import check_image_shape, check_integer, known_shape
from keras_gen.networks.blocks.upsampling import shuffle, unshuffle


def check_patches(image_shape: Sequence[int | None], patch_size: int) -> tuple[int, int]:
    """Returns the rows and columns of patches of an image, after checking that `patch_size` divides its size."""
    check_integer("patch_size", patch_size)
    check_image_shape("image_shape", image_shape, *patch_multiple(patch_size))
    height, width, _ = known_shape(image_shape, "image_shape", "have a known height and width", image_shape)
    return height // patch_size, width // patch_size


def patch_multiple(patch_size: int) -> tuple[int, str]:
    """Returns the required divisor of an image's size, and the reason."""
    return int(patch_size), f"with patch_size={patch_size}"


def to_patches(images: Any, patch_size: int) -> Any:
    """Splits images into flattened patches `(batch, rows * columns, patch_size^2 * channels)`."""
    x = unshuffle(images, patch_size, "dcr")
    return ops.reshape(x, (-1, x.shape[1] * x.shape[2], x.shape[3]))


def from_patches(patches: Any, rows: int, columns: int, patch_size: int) -> Any:
    """Joins flattened patches to images `(batch, rows * patch_size, columns * patch_size, channels)`."""
    return shuffle(ops.reshape(patches, (-1, rows, columns, patches.shape[-1])), patch_size, "dcr")
