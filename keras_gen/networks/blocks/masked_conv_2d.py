from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.checks import check, check_integer
from keras_gen.core.torch.convolution import convolve
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.layers.MaskedConv2D")
class MaskedConv2D(keras.layers.Layer):
    """Convolution in which a pixel sees only those before it, row by row: the part that PixelCNN is made of.

        y = conv(x, W * M) + b,   M = 1 at rows above, and in the same row on the left; at the pixel itself see below

    Channels are `groups` equal parts, one after the other, for pixels of several numbers: at the pixel itself, group j
    of the output sees the groups up to j (mask "B" of the paper), or below j if `strict` (mask "A", of a first layer).
    With one group, it sees the pixel itself, or not. The output has the size of the input.

    Args:
        filters: int >= 1, channels of the output.
        kernel_size: odd int >= 1, or height and width. Defaults to `3`.
        strict: bool. Whether the own group at the pixel itself is hidden, too. Defaults to `False`.
        groups: int >= 1. Must divide the channels of input and output. Defaults to `1`.
        kernel_initializer: initializer of W. Defaults to `"glorot_uniform"`.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        x: `(batch, height, width, channels)`.

    Returns:
        `(batch, height, width, filters)`.

    Raises:
        ValueError: if an argument is outside its range, or `x` is no batch of images of `groups` parts.

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
        self.strict = bool(strict)
        self.groups = check_integer("groups", groups)
        check(self.filters % self.groups == 0, "groups", f"divide the number of filters, {filters}", groups)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, x_shape: Any) -> None:
        check(len(x_shape) == 4, "x", "have shape (batch, height, width, channels)", f"shape {tuple(x_shape)}")
        channels = x_shape[-1]
        check(channels % self.groups == 0, "groups", f"divide {channels} channels", self.groups)
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
