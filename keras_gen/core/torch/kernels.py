"""Kernels that are faster than Keras's on PyTorch, each next to the plain version that the other backends run."""

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.checks import check
from keras_gen.core.torch.switch import takes_fast_paths

LARGE = 2**24  # multiplications; for smaller products, starting the other kernel takes longer than the product
LARGE_KERNEL = 2**18  # weights of a convolution
CACHED_CELLS = 2**23  # 32 MB: glibc frees larger buffers at once, and allocates each again, page by page


def transforming() -> bool:
    """Returns whether PyTorch is transforming a function, as for `ops.jvp` or `vectorized_map`.

    Not all of PyTorch's kernels support these transforms.
    """
    if keras.backend.backend() != "torch":
        return False
    import torch

    return torch._C._functorch.maybe_current_level() is not None or torch.autograd.forward_ad._current_level >= 0


def convolve(x: Any, kernel: Any, bias: Any = None, strides: tuple[int, int] = (1, 1), padding: str = "same") -> Any:
    """Computes `ops.conv(x, kernel) + bias` for images with channels last.

    On PyTorch, Keras 3.15 copies each input to the channels-first layout and back, and adds the bias in a separate
    pass. PyTorch's kernels support the channels-last layout: a transposed view is enough.

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
    if takes_fast_paths():
        return _convolve_views(x, kernel, bias, strides, padding)
    y = ops.conv(x, kernel, strides, padding, data_format="channels_last")
    return y if bias is None else y + bias


def _convolve_views(x: Any, kernel: Any, bias: Any, strides: tuple[int, int], padding: str) -> Any:
    import torch
    from torch.nn import functional

    groups = x.shape[-1] // kernel.shape[2]
    pads = [_same_padding(*sizes) for sizes in zip(x.shape[1:3], kernel.shape[:2], strides, strict=True)]
    if groups == 1 and _has_few_pixels(x, kernel, strides):
        return _product_of_patches(x, kernel, bias, strides, pads if padding == "same" else [(0, 0), (0, 0)])
    x, kernel = x.permute(0, 3, 1, 2), _filters_first(kernel)
    if len(kernel) == 1 and (x.shape[0] == 1 or x.dtype in (torch.float64, torch.float16)):
        # PyTorch (2.13) takes one filter for channels first, and its kernel for one image, as those for float64 and
        # float16, then wants this layout in the backward pass: "grad_weight must be contiguous".
        kernel = kernel.contiguous()
    if padding == "valid":
        pads = [(0, 0), (0, 0)]
    elif any(before != after for before, after in pads):
        (top, bottom), (left, right) = pads
        x, pads = functional.pad(x, (left, right, top, bottom)), [(0, 0), (0, 0)]
    y = functional.conv2d(x, kernel, bias, strides, [before for before, _ in pads], groups=groups)
    return y.permute(0, 2, 3, 1)


def _filters_first(kernel: Any) -> Any:
    """Returns a kernel with shape `(filters, channels, height, width)`, a large one in the channels-last layout."""
    if kernel.device.type != "cpu" or kernel.numel() < LARGE_KERNEL:
        return kernel.permute(3, 2, 0, 1)
    height, width, channels, filters = kernel.shape
    # PyTorch would copy it number by number; it transposes a matrix in blocks.
    matrix = kernel.reshape(-1, filters).t().contiguous()
    return matrix.reshape(filters, height, width, channels).permute(0, 3, 1, 2)


def _has_few_pixels(x: Any, kernel: Any, strides: tuple[int, int]) -> bool:
    """Returns whether a convolution's kernel outweighs its patches, so that a copy of the kernel takes longest."""
    import torch

    plain = x.dtype == kernel.dtype == torch.float32 and x.device.type == "cpu"
    is_known = plain and all(isinstance(size, int) for size in x.shape)  # in an exported graph they are any numbers
    return is_known and 4 * math.prod(x.shape[:3]) <= math.prod(strides) * kernel.shape[3]


def _product_of_patches(x: Any, kernel: Any, bias: Any, strides: tuple[int, int], pads: list[tuple[int, int]]) -> Any:
    """Computes a convolution as one product, which takes the kernel as it lies; oneDNN copies it to another layout."""
    import torch
    from torch.nn import functional

    (top, bottom), (left, right) = pads
    x = functional.pad(x, (0, 0, left, right, top, bottom))
    height, width, channels, filters = kernel.shape
    patches = x.unfold(1, height, strides[0]).unfold(2, width, strides[1])  # (batch, rows, columns, channels, h, w)
    rows = patches.permute(0, 1, 2, 4, 5, 3).reshape(-1, height * width * channels)
    matrix = kernel.reshape(-1, filters)
    y = rows @ matrix if bias is None else torch.addmm(bias, rows, matrix)
    return y.reshape(*patches.shape[:3], filters)


def _same_padding(size: int, kernel_size: int, stride: int) -> tuple[int, int]:
    padding = max((-(-size // stride) - 1) * stride + kernel_size - size, 0)
    return padding // 2, padding - padding // 2


@keras.saving.register_keras_serializable("keras_gen")
class Conv2D(keras.layers.Conv2D):
    """`keras.layers.Conv2D` computed by `convolve`: channels last, no dilation."""

    def __init__(self, filters: int, kernel_size: Any, data_format: str = "channels_last", **options: Any):
        super().__init__(filters, kernel_size, data_format=data_format, **options)
        check(self.data_format == "channels_last", "data_format", "be channels_last", repr(self.data_format))
        check(self.dilation_rate == (1, 1), "dilation_rate", "be 1", self.dilation_rate)

    def call(self, inputs: Any) -> Any:
        return self.activation(convolve(inputs, self.kernel, self.bias, self.strides, self.padding))


def product(x: Any, y: Any, bias: Any = None) -> Any:
    """Computes the matrix product `x @ y`, plus a bias.

    PyTorch's matrix product on a CPU is MKL's, which runs at less than half the speed of oneDNN on AMD processors.
    Large float32 products are therefore computed as a 1 x 1 convolution, which is oneDNN's on several threads.

    Args:
        x: `(n, dim)`.
        y: `(dim, m)`.
        bias: `(m,)` or `None`. Defaults to `None`.

    Returns:
        `(n, m)`.
    """
    if takes_fast_paths() and _is_faster_by_onednn(x, y):
        return _as_convolution(x, y, bias)
    if takes_fast_paths() and bias is not None and x.ndim == 2 and x.dtype == y.dtype == bias.dtype:
        return bias.addmm(x, y)  # no second pass over the result
    return x @ y if bias is None else x @ y + bias


def _is_faster_by_onednn(x: Any, y: Any) -> bool:
    import torch

    plain = x.ndim == 2 and x.dtype == y.dtype == torch.float32 and x.device.type == "cpu"
    is_known = plain and isinstance(x.shape[0], int)  # in an exported graph it is any number
    is_large = is_known and x.shape[0] * x.shape[1] * y.shape[1] >= LARGE
    return is_large and _has_onednn() and torch.get_num_threads() > 1


def _has_onednn() -> bool:
    from torch.backends import mkldnn

    return bool(mkldnn.is_available() and mkldnn.enabled)


def _as_convolution(x: Any, y: Any, bias: Any = None) -> Any:
    from torch.nn import functional

    pixels = x[None, :, None].permute(0, 3, 1, 2)
    return functional.conv2d(pixels, y.t()[:, :, None, None], bias)[0, :, :, 0].t()


def normalize_groups(x: Any, gamma: Any, beta: Any, groups: int, epsilon: float) -> Any:
    """Computes `gamma (x - mean) / sqrt(var + epsilon) + beta`, with the moments of each group of adjacent channels.

    Statistics are summed per channel, and normalization becomes one multiply-add per pixel; PyTorch uses its native
    kernel.

    Args:
        x: float32 `(batch, ..., channels)`.
        gamma: float32 `(channels,)`.
        beta: float32 `(channels,)`.
        groups: int >= 1. Divides the number of channels.
        epsilon: float > 0.

    Returns:
        A tensor like `x`.
    """
    # PyTorch's kernel (2.13) has no forward-mode derivative for channels last.
    normalize = _native_group_norm if takes_fast_paths() and not transforming() else _group_norm_by_channel_sums
    return normalize(x, gamma, beta, groups, epsilon)


def _group_norm_by_channel_sums(x: Any, gamma: Any, beta: Any, groups: int, epsilon: float) -> Any:
    channels, axes = x.shape[-1], tuple(range(1, len(x.shape) - 1))

    def over_groups(moments: Any) -> Any:
        # (batch, channels) -> the mean over each group, repeated for its channels
        grouped = ops.reshape(moments, (-1, groups, channels // groups))
        mean = ops.mean(grouped, axis=-1, keepdims=True)
        return ops.reshape(ops.broadcast_to(mean, ops.shape(grouped)), (-1, channels))

    mean = over_groups(ops.mean(x, axis=axes))
    # E[x^2] - mean^2 needs no second pass over x; in float32 it is accurate enough for activations.
    var = ops.maximum(over_groups(ops.mean(ops.square(x), axis=axes)) - ops.square(mean), 0)
    scale = gamma * ops.rsqrt(var + epsilon)
    shift = beta - mean * scale
    shape = (-1, *[1] * len(axes), channels)
    return x * ops.reshape(scale, shape) + ops.reshape(shift, shape)


def _native_group_norm(x: Any, gamma: Any, beta: Any, groups: int, epsilon: float) -> Any:
    # PyTorch's kernel takes channels last through a transposed view.
    import torch

    if torch.is_grad_enabled():
        # With channels last (torch 2.13) the process crashes if gamma or beta requires a gradient and x does not. So x
        # is made to require a gradient whenever gamma or beta does.
        x = x + (gamma[:0].sum() + beta[:0].sum())
    return torch.group_norm(x.movedim(-1, 1), groups, gamma, beta, epsilon).movedim(1, -1)


def put_token(tokens: Any, i: Any, token: Any) -> Any:
    """Returns `tokens` with `token` in place of the one at index `i`.

    With an index that is a tensor, Keras 3.15 on PyTorch writes each number to an index of its own.

    Args:
        tokens: `(batch, n, heads, dim)`.
        i: int tensor.
        token: `(batch, 1, heads, dim)`.

    Returns:
        A tensor like `tokens`.
    """
    if takes_fast_paths():
        return tokens.index_copy(1, ops.reshape(ops.cast(i, "int64"), (1,)), token)
    first = np.int32(0)  # of the dtype of `i`: JAX takes no other
    return ops.slice_update(tokens, (first, i, first, first), token)


def segment_sum(values: Any, segments: Any, n: int) -> Any:
    """Computes `ops.segment_sum(values, segments, n)`, the sums of the rows of each segment.

    On PyTorch, Keras 3.15 makes an index for each number, and looks at all of them on the host.

    Args:
        values: float `(rows, ...)`.
        segments: int `(rows,)` in 0 .. n - 1. Rows of other numbers are left out, but raise an error on TensorFlow.
        n: int >= 1.

    Returns:
        `(n, ...)`.
    """
    if not takes_fast_paths():
        return ops.segment_sum(values, segments, n)
    outside = (segments < 0) | (segments >= n)
    sums = values.new_zeros((n + 1, *values.shape[1:]))
    return sums.index_add(0, segments.masked_fill(outside, n), values)[:n]


def map_chunks(function: Callable[..., Any], *chunks: Any) -> Any:
    """Computes `ops.map` of a function whose result is small beside what it computes on the way, and has no gradient.

    Args:
        function: takes a chunk of each of `chunks`, `(rows, ...)`, and returns a tensor.
        *chunks: `(n, rows, ...)`.

    Returns:
        The results, `(n, ...)`.
    """
    if not takes_fast_paths() or transforming():
        return ops.map(lambda rows: function(*rows), chunks)
    import torch

    # Into one array: a small result that outlives its chunk is allocated in the memory that the chunk freed, so the
    # next chunk no longer fits there, and in the end the process occupies as much memory as all chunks together.
    results = None
    for i, rows in enumerate(zip(*chunks, strict=True)):
        result = function(*rows)
        if results is None:
            results = torch.empty((len(chunks[0]), *result.shape), dtype=result.dtype, device=result.device)
        results[i] = result
    return results


def tile_size(rows: int, columns: int, multiple: int) -> int:
    """Returns the number of matrix columns to process at a time: all, or on PyTorch those that fit in `CACHED_CELLS`.

    Args:
        rows: int >= 1.
        columns: int >= 1.
        multiple: int >= 1. Divisor of the number of columns per tile.
    """
    return max(multiple, CACHED_CELLS // rows // multiple * multiple) if takes_fast_paths() else columns
