"""The convolution of the library's networks."""

from typing import Any

import keras
from keras import ops

from keras_gen.core.checks import check


def convolve(x: Any, kernel: Any, bias: Any = None, strides: tuple[int, int] = (1, 1), padding: str = "same") -> Any:
    """Computes `ops.conv(x, kernel) + bias` for images with channels last.

    On PyTorch, Keras 3.15 copies each input to the layout of channels first and back, and adds the bias in a pass of
    its own. PyTorch's kernels read channels last as they lie: a transposed view is all they need.

    Args:
        x: `(batch, height, width, channels)`.
        kernel: `(height, width, channels / groups, filters)`.
        bias: `(filters,)` or `None`. Defaults to `None`.
        strides: of height and width. Defaults to `(1, 1)`.
        padding: `"same"` or `"valid"`. Defaults to `"same"`.

    Returns:
        `(batch, new_height, new_width, filters)`.
    """
    kernel = ops.convert_to_tensor(kernel)
    bias = bias if bias is None else ops.convert_to_tensor(bias)
    if keras.backend.backend() == "torch":
        return _convolve_views(x, kernel, bias, strides, padding)
    y = ops.conv(x, kernel, strides, padding, data_format="channels_last")
    return y if bias is None else y + bias


@keras.saving.register_keras_serializable("keras_gen")
class Conv2D(keras.layers.Conv2D):
    """`keras.layers.Conv2D` by `convolve`: channels last, not dilated."""

    def __init__(self, filters: int, kernel_size: Any, data_format: str = "channels_last", **options: Any):
        super().__init__(filters, kernel_size, data_format=data_format, **options)
        check(self.data_format == "channels_last", "data_format", "be channels_last", repr(self.data_format))
        check(self.dilation_rate == (1, 1), "dilation_rate", "be 1", self.dilation_rate)

    def call(self, inputs: Any) -> Any:
        return self.activation(convolve(inputs, self.kernel, self.bias, self.strides, self.padding))


def _convolve_views(x: Any, kernel: Any, bias: Any, strides: tuple[int, int], padding: str) -> Any:
    from torch.nn import functional

    groups = x.shape[-1] // kernel.shape[2]
    pads = [_same_padding(*sizes) for sizes in zip(x.shape[1:3], kernel.shape[:2], strides, strict=True)]
    x, kernel = x.permute(0, 3, 1, 2), kernel.permute(3, 2, 0, 1)
    if padding == "valid":
        pads = [(0, 0), (0, 0)]
    elif any(before != after for before, after in pads):
        (top, bottom), (left, right) = pads
        x, pads = functional.pad(x, (left, right, top, bottom)), [(0, 0), (0, 0)]
    y = functional.conv2d(x, kernel, bias, strides, [before for before, _ in pads], groups=groups)
    return y.permute(0, 2, 3, 1)


def _same_padding(size: int, kernel_size: int, stride: int) -> tuple[int, int]:
    padding = max((-(-size // stride) - 1) * stride + kernel_size - size, 0)
    return padding // 2, padding - padding // 2
