"""Layers with masked weights, so that an output depends on preceding inputs only."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.checks import check, check_divides, check_flag, check_integer, is_integer
from keras_gen.core.torch.kernels import convolve, product
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.layers.MaskedDense")
class MaskedDense(keras.layers.Layer):
    """Masked dense layer, the building block of MADE: an output depends only on inputs of no higher degree.

        y = x (W * M) + b,   M_{ij} = [degree of output j >= degree of input i]   (> if `strict`)

    Args:
        input_degrees: sequence of ints, the degree of each input.
        output_degrees: sequence of ints, the degree of each output.
        strict: bool. Whether equal degrees are masked, too, as in MADE's last layer. Defaults to `False`.
        kernel_initializer: initializer of W. Defaults to `"glorot_uniform"`.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        x: `(batch, ..., len(input_degrees))`.
        degrees: pair of int tensors, the degrees of inputs and outputs, instead of the layer's own. Defaults to `None`.

    Returns:
        A tensor `(batch, ..., len(output_degrees))`.

    Raises:
        ValueError: if the degrees are not integers, or the number of features of x is wrong.

    Example:

    >>> hidden = keras_gen.layers.MaskedDense([1, 2, 3], [1, 2, 1, 2])(x)
    >>> outputs = keras_gen.layers.MaskedDense([1, 2, 1, 2], [1, 2, 3], strict=True)(hidden)

    Reference: Germain et al. 2015, arXiv:1502.03509, section 4.
    """

    def __init__(
        self,
        input_degrees: Sequence[int] | np.ndarray,
        output_degrees: Sequence[int] | np.ndarray,
        strict: bool = False,
        kernel_initializer: Any = "glorot_uniform",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.input_degrees = _check_degrees("input_degrees", input_degrees)
        self.output_degrees = _check_degrees("output_degrees", output_degrees)
        self.strict = check_flag("strict", strict)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape: Any) -> None:
        inputs, outputs = len(self.input_degrees), len(self.output_degrees)
        check(input_shape[-1] == inputs, "x", f"have {inputs} features", f"shape {tuple(input_shape)}")
        self.mask = self._mask(np.array(self.input_degrees), np.array(self.output_degrees)).astype("float32")
        self.kernel = self.add_weight(name="kernel", shape=self.mask.shape, initializer=self.kernel_initializer)
        self.bias = self.add_weight(name="bias", shape=(outputs,), initializer="zeros")

    def call(self, x: Any, degrees: Any = None) -> Any:
        kernel = ops.convert_to_tensor(self.kernel)
        mask = self.mask if degrees is None else self._mask(*degrees)
        # `@`, not Keras's matmul, which casts float64 to float32 on JAX and torch.
        return product(x, kernel * ops.cast(mask, kernel.dtype)) + ops.convert_to_tensor(self.bias)

    def _mask(self, inputs: Any, outputs: Any) -> Any:
        return outputs > inputs[:, None] if self.strict else outputs >= inputs[:, None]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "input_degrees": self.input_degrees,
            "output_degrees": self.output_degrees,
            "strict": self.strict,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


def spread_degrees(units: int, highest: int) -> np.ndarray:
    """Returns degrees 1 .. highest for hidden units: cyclically, or evenly spaced if there are fewer units."""
    if units < highest:
        return np.arange(units) * highest // units + 1
    return np.arange(units) % highest + 1


def _check_degrees(name: str, degrees: Any) -> list[int]:
    are_integers = isinstance(degrees, list | tuple | np.ndarray) and all(is_integer(degree) for degree in degrees)
    check(are_integers and len(degrees) > 0, name, "be a list of integers", degrees)
    return [int(degree) for degree in degrees]


@keras_gen_export("keras_gen.layers.MaskedConv2D")
class MaskedConv2D(keras.layers.Layer):
    """Masked convolution, the building block of PixelCNN: a pixel depends only on preceding pixels in raster order.

        y = conv(x, W * M) + b,   M = 1 in rows above, and on the left in the same row; at the pixel itself see below

    Channels form `groups` contiguous groups of equal size, for pixels with several values: at the pixel itself, group j
    of the output sees the groups up to j (mask "B" of the paper), or below j if `strict` (mask "A", of a first layer).
    With one group, the pixel itself is visible or masked. The output has the height and width of the input.

    Args:
        filters: int >= 1, channels of the output.
        kernel_size: odd int >= 1, or height and width. Defaults to `3`.
        strict: bool. Whether the same group at the pixel itself is masked, too. Defaults to `False`.
        groups: int >= 1. Must divide the channels of input and output. Defaults to `1`.
        kernel_initializer: initializer of W. Defaults to `"glorot_uniform"`.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        x: `(batch, height, width, channels)`.

    Returns:
        `(batch, height, width, filters)`.

    Raises:
        ValueError: if an argument is outside its range, or `x` is not a batch of images with `groups` groups.

    Example:

    >>> h = keras_gen.layers.MaskedConv2D(32, 7, strict=True)(images)
    >>> h = keras_gen.layers.MaskedConv2D(32, 3)(keras.ops.relu(h))

    Reference: van den Oord et al. 2016, arXiv:1601.06759, section 3.4.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, int] = 3,
        strict: bool = False,
        groups: int = 1,
        kernel_initializer: Any = "glorot_uniform",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.filters = check_integer("filters", filters)
        sizes = kernel_size if isinstance(kernel_size, tuple | list) else (kernel_size, kernel_size)
        self.kernel_size = tuple(check_integer("kernel_size", size) for size in sizes)
        odd = len(self.kernel_size) == 2 and all(size % 2 == 1 for size in self.kernel_size)
        check(odd, "kernel_size", "be odd, or two odd integers", kernel_size)
        self.strict = check_flag("strict", strict)
        self.groups = check_integer("groups", groups)
        check(self.filters % self.groups == 0, "groups", f"divide the number of filters, {filters}", groups)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, x_shape: Any) -> None:
        check(len(x_shape) == 4, "x", "have shape (batch, height, width, channels)", f"shape {tuple(x_shape)}")
        channels = x_shape[-1]
        check_divides("groups", self.groups, channels)
        self.mask = self._mask(channels)
        self.kernel = self.add_weight(name="kernel", shape=self.mask.shape, initializer=self.kernel_initializer)
        self.bias = self.add_weight(name="bias", shape=(self.filters,), initializer="zeros")

    def call(self, x: Any) -> Any:
        kernel = ops.convert_to_tensor(self.kernel)
        kernel = kernel * ops.cast(self.mask, kernel.dtype)
        return convolve(x, kernel, self.bias)

    def compute_output_shape(self, x_shape: Any) -> tuple[int | None, ...]:
        return (*x_shape[:-1], self.filters)

    def _mask(self, channels: int) -> np.ndarray:
        height, width = self.kernel_size
        mask = np.zeros((height, width, channels, self.filters), "float32")
        mask[: height // 2] = 1
        mask[height // 2, : width // 2] = 1
        inputs, outputs = (np.arange(size) * self.groups // size for size in (channels, self.filters))
        own = inputs[:, None] < outputs if self.strict else inputs[:, None] <= outputs
        mask[height // 2, width // 2] = own
        return mask

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strict": self.strict,
            "groups": self.groups,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
