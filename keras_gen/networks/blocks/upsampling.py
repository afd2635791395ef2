"""Upsampling by rearranged channels: pixel shuffle, its inverse, and an initializer against checkerboards."""

from typing import Any

import keras
from keras import ops

from keras_gen.core.checks import check, check_choice, check_integer, is_integer, known_size, real_tensor
from keras_gen.core.configured import Configured
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.ops.pixel_shuffle")
def pixel_shuffle(x: Any, factor: int, order: str = "crd") -> Any:
    """Rearranges channels into pixels: `(h, w, f f c)` becomes `(h f, w f, c)`.

        y[i f + a, j f + b, k] = x[i, j, channel],   channel = k f f + a f + b ("crd") or (a f + b) c + k ("dcr")

    Args:
        x: `(batch, height, width, channels)`, an array or tensor of any real dtype, or a symbolic tensor.
        factor: int >= 1, the side length f of the square that a pixel becomes.
        order: `"crd"`, PyTorch's `PixelShuffle`: channels next to each other become a square; or `"dcr"`, "depth to
            space": channels next to each other become a pixel. Defaults to `"crd"`.

    Returns:
        `(batch, factor height, factor width, channels / factor^2)`, of the dtype of `x`.

    Raises:
        ValueError: if `x` is not a batch of images, `factor^2` does not divide its channels, or another argument is
            outside its range.

    Example:

    >>> fine = keras_gen.ops.pixel_shuffle(coarse, 2)        # (n, 14, 14, 64) -> (n, 28, 28, 16)

    Reference: Shi et al. 2016, arXiv:1609.05158, section 3.2.
    """
    if isinstance(x, keras.KerasTensor):  # whose height and width may be unknown
        return PixelShuffle2D(factor, order, dtype=x.dtype)(x)
    factor, order, x = check_factor(factor), check_order(order), real_tensor("x", x)
    shuffled_shape(x.shape, factor)
    return shuffle(x, factor, order)


@keras_gen_export("keras_gen.ops.pixel_unshuffle")
def pixel_unshuffle(x: Any, factor: int, order: str = "crd") -> Any:
    """Rearranges pixels into channels, the inverse of `pixel_shuffle`: `(h, w, c)` becomes `(h / f, w / f, f f c)`.

    Args:
        x: `(batch, height, width, channels)`, an array or tensor of any real dtype, or a symbolic tensor.
        factor: int >= 1, the side length f of the squares that become pixels.
        order: `"crd"` or `"dcr"`, see `pixel_shuffle`. Defaults to `"crd"`.

    Returns:
        `(batch, height / factor, width / factor, factor^2 channels)`, of the dtype of `x`.

    Raises:
        ValueError: if `x` is not a batch of images, `factor` does not divide its height and width, or another argument
            is outside its range.

    Example:

    >>> coarse = keras_gen.ops.pixel_unshuffle(images, 2)        # (n, 28, 28, 1) -> (n, 14, 14, 4)

    Reference: Shi et al. 2016, arXiv:1609.05158, section 3.2.
    """
    if isinstance(x, keras.KerasTensor):
        return PixelUnshuffle2D(factor, order, dtype=x.dtype)(x)
    factor, order, x = check_factor(factor), check_order(order), real_tensor("x", x)
    unshuffled_shape(x.shape, factor)
    return unshuffle(x, factor, order)


def shuffle(x: Any, factor: int, order: str) -> Any:
    """Computes `pixel_shuffle` of what has been checked; of a symbolic tensor only the batch may be unknown."""
    _, height, width, channels = ops.shape(x)
    f, c = factor, channels // factor**2
    if order == "crd":
        y = ops.transpose(ops.reshape(x, (-1, height, width, c, f, f)), (0, 1, 4, 2, 5, 3))
    else:
        y = ops.transpose(ops.reshape(x, (-1, height, width, f, f, c)), (0, 1, 3, 2, 4, 5))
    return ops.reshape(y, (-1, height * f, width * f, c))


def unshuffle(x: Any, factor: int, order: str) -> Any:
    """Computes `pixel_unshuffle` of what has been checked; of a symbolic tensor only the batch may be unknown."""
    _, height, width, c = ops.shape(x)
    f, height, width = factor, height // factor, width // factor
    y = ops.reshape(x, (-1, height, f, width, f, c))
    y = ops.transpose(y, (0, 1, 3, 5, 2, 4) if order == "crd" else (0, 1, 3, 2, 4, 5))
    return ops.reshape(y, (-1, height, width, f * f * c))


class Rearrangement(keras.layers.Layer):
    """Base class of the two layers: their arguments. Subclasses define `call` and `compute_output_shape`."""

    def __init__(self, factor: int = 2, order: str = "crd", **kwargs: Any):
        super().__init__(**kwargs)
        self.factor, self.order = check_factor(factor), check_order(order)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "factor": self.factor, "order": self.order}


@keras_gen_export("keras_gen.layers.PixelShuffle2D")
class PixelShuffle2D(Rearrangement):
    """Rearranges channels into pixels: `(h, w, f f c)` becomes `(h f, w f, c)`, as by `ops.pixel_shuffle`.

    After a convolution, it makes a sub-pixel convolution: all channels of the fine image are computed at the size of
    the coarse one. With the initializer `ICNR`, this starts as nearest-neighbor upsampling.

    Args:
        factor: int >= 1, the side length f of the square that a pixel becomes. Defaults to `2`.
        order: `"crd"` or `"dcr"`, see `ops.pixel_shuffle`. Defaults to `"crd"`.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        x: `(batch, height, width, channels)`, whatever `keras.config.image_data_format()` is.

    Returns:
        `(batch, factor height, factor width, channels / factor^2)`.

    Raises:
        ValueError: if an argument is outside its range, or `factor^2` does not divide the channels of `x`.

    Example:

    >>> icnr = keras_gen.initializers.ICNR()
    >>> h = keras.layers.Conv2D(4 * 32, 3, padding="same", kernel_initializer=icnr)(h)
    >>> h = keras_gen.layers.PixelShuffle2D()(h)        # (n, 14, 14, 128) -> (n, 28, 28, 32)

    Reference: Shi et al. 2016, arXiv:1609.05158, section 3.2; https://kexue.fm/archives/6549, for checkerboards.
    """

    def call(self, x: Any) -> Any:
        return pixel_shuffle(x, self.factor, self.order)

    def compute_output_shape(self, x_shape: Any) -> tuple[int | None, ...]:
        return shuffled_shape(x_shape, self.factor)


@keras_gen_export("keras_gen.layers.PixelUnshuffle2D")
class PixelUnshuffle2D(Rearrangement):
    """Rearranges pixels into channels, the inverse of `PixelShuffle2D`: `(h, w, c)` becomes `(h / f, w / f, f f c)`.

    Args:
        factor: int >= 1, the side length f of the squares that become pixels. Defaults to `2`.
        order: `"crd"` or `"dcr"`, see `ops.pixel_shuffle`. Defaults to `"crd"`.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        x: `(batch, height, width, channels)`, whatever `keras.config.image_data_format()` is.

    Returns:
        `(batch, height / factor, width / factor, factor^2 channels)`.

    Raises:
        ValueError: if an argument is outside its range, or `factor` does not divide height and width of `x`.

    Example:

    >>> h = keras_gen.layers.PixelUnshuffle2D()(images)        # (n, 28, 28, 1) -> (n, 14, 14, 4)

    Reference: Shi et al. 2016, arXiv:1609.05158, section 3.2.
    """

    def call(self, x: Any) -> Any:
        return pixel_unshuffle(x, self.factor, self.order)

    def compute_output_shape(self, x_shape: Any) -> tuple[int | None, ...]:
        return unshuffled_shape(x_shape, self.factor)


@keras_gen_export("keras_gen.initializers.ICNR")
class ICNR(Configured, keras.initializers.Initializer):
    """Initializer of the convolution before a pixel shuffle ("initialized to convolution, nearest-neighbor resize").

    The filters whose outputs become a square of pixels are equal: before training, a sub-pixel convolution is a
    convolution, then nearest-neighbor upsampling. From independent filters, the answer to a constant image would be a
    checkerboard, with the expected share `1 - 1 / factor^2` of its energy.

    Args:
        initializer: a Keras initializer, its name or its configuration, of one filter for each square. Defaults to
            `"glorot_uniform"`.
        factor: int >= 1, of the pixel shuffle. Defaults to `2`.
        order: `"crd"` or `"dcr"`, of the pixel shuffle. Defaults to `"crd"`.

    Call arguments:
        shape: shape of the kernel, the filters last, whose number `factor^2` divides.
        dtype: of the kernel. Defaults to `None`, Keras's default.

    Returns:
        A tensor of this shape.

    Raises:
        ValueError: if an argument is outside its range, or `factor^2` does not divide the number of filters.

    Example:

    >>> icnr = keras_gen.initializers.ICNR("he_normal", factor=2)
    >>> layer = keras.layers.Conv2D(4 * 32, 3, padding="same", kernel_initializer=icnr)

    Reference: Aitken et al. 2017, arXiv:1707.02937.
    """

    def __init__(self, initializer: Any = "glorot_uniform", factor: int = 2, order: str = "crd"):
        self.initializer = keras.initializers.get(initializer)
        check(self.initializer is not None, "initializer", "be an initializer of Keras", initializer)
        self.factor, self.order = check_factor(factor), check_order(order)

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        copies = self.factor**2
        is_divisible = len(shape) > 0 and shape[-1] % copies == 0
        check(is_divisible, "shape", f"end in a number of filters divisible by {copies}", tuple(shape))
        kernel = self.initializer((*shape[:-1], shape[-1] // copies), dtype=dtype)
        # Not `ops.repeat`, which on PyTorch is a view of one filter: no optimizer could write to it.
        return ops.reshape(ops.stack([kernel] * copies, axis=-1 if self.order == "crd" else -2), shape)

    def get_config(self) -> dict[str, Any]:
        initializer = keras.initializers.serialize(self.initializer)
        return {"initializer": initializer, "factor": self.factor, "order": self.order}


def check_factor(factor: Any) -> int:
    return check_integer("factor", factor)


def check_order(order: Any) -> str:
    check_choice("order", order, ("crd", "dcr"))
    return order


def shuffled_shape(x_shape: Any, factor: int) -> tuple[int | None, ...]:
    """Returns the shape of shuffled images, after checking that `factor^2` divides the channels."""
    batch, *sides, channels = images_shape(x_shape)
    check(channels % factor**2 == 0, "x", f"have channels divisible by {factor**2}", f"shape {tuple(x_shape)}")
    return batch, *(side if side is None else side * factor for side in sides), channels // factor**2


def unshuffled_shape(x_shape: Any, factor: int) -> tuple[int | None, ...]:
    """Returns the shape of unshuffled images, after checking that `factor` divides height and width where known."""
    batch, *sides, channels = images_shape(x_shape)
    is_divisible = all(side % factor == 0 for side in sides if is_integer(side))  # others are unknown, or symbols
    check(is_divisible, "x", f"have height and width divisible by {factor}", f"shape {tuple(x_shape)}")
    return batch, *(side if side is None else side // factor for side in sides), channels * factor**2


def images_shape(x_shape: Any) -> tuple[Any, ...]:
    """Returns `x_shape` after checking that it is one of images with a known number of channels."""
    check(len(x_shape) == 4, "x", "be images (batch, height, width, channels)", f"shape {tuple(x_shape)}")
    known_size("x", x_shape)
    return tuple(x_shape)
