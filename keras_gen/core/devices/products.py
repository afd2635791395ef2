"""Matrix products in full float32, where the device would round their factors to TF32 or bfloat16."""

import functools
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_gen.core.torch.kernels import product
from keras_gen.core.torch.rounding import is_rounded

KEPT, HALF = -(2**16), 2**15  # of the bits of a float32: those that bfloat16 keeps, and half of its last place


def precise_product(x: Any, y: Any) -> Any:
    """Computes the matrix product `x @ y` in the precision of its factors, on any device and with any settings.

    GPUs may round the factors of float32 products to the 11 significant bits of TF32, and some CPUs to the 8 of
    bfloat16: with JAX and TensorFlow by default, with PyTorch if asked to. That is enough for the layers of a network,
    but not for inverses, log-determinants, distances and statistics. JAX has a precision for each product. Elsewhere,
    and only where the factors would be rounded, each is split into three parts of 8 significant bits, which no device
    rounds; products of parts that are smaller than the rounding error of float32 are left out. No setting is changed.

    Args:
        x: float tensor `(..., dim)`.
        y: float tensor `(dim, m)`, of the same dtype.

    Returns:
        `(..., m)`.

    Reference: Henry, Tang and Heinecke 2019, arXiv:1904.06376.
    """
    backend = keras.backend.backend()  # not by `match`, which AutoGraph cannot read
    if backend == "jax":
        import jax.numpy as jnp

        return jnp.matmul(x, y, precision="highest")
    if backend == "tensorflow":
        return _product_of_rows(_split_on_tensorflow() if _rounds_on_tensorflow(x) else product, x, y)
    if backend == "torch" and _rounds_on_torch(x):
        return _split_on_torch().apply(x, y)
    return product(x, y)


def _product_of_rows(multiply: Callable[[Any, Any], Any], x: Any, y: Any) -> Any:
    """Multiplies a tensor of any number of axes as one matrix.

    TensorFlow's own product of shapes (2, 1, 16, 4) and (4, 16) reads beyond its factors on a CPU (2.21, oneDNN): the
    result is NaN, or the process crashes.
    """
    if len(x.shape) == 2:
        return multiply(x, y)
    rows = multiply(ops.reshape(x, (-1, x.shape[-1])), y)
    return ops.reshape(rows, (*ops.shape(x)[:-1], ops.shape(y)[-1]))


def _rounds_on_tensorflow(x: Any) -> bool:
    import tensorflow as tf

    # While a function is traced, its device is not known.
    is_rounded = tf.config.experimental.tensor_float_32_execution_enabled() and tf.config.list_logical_devices("GPU")
    return bool(is_rounded) and x.dtype == tf.float32


def _rounds_on_torch(x: Any) -> bool:
    import torch

    if x.dtype != torch.float32:
        return False
    match x.device.type:
        case "cuda":
            return is_rounded("cuda.matmul")
        case "cpu" | "xpu" as kind:
            may_round = kind == "xpu" or _has_amx()
            return may_round and (is_rounded("mkldnn.matmul") or is_rounded("mkldnn.conv"))
    return False


def _has_amx() -> bool:
    """Returns whether the CPU has the matrix unit for which oneDNN rounds; if PyTorch does not know, it may have it."""
    import torch

    known = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return known is None or known()


@functools.cache
def _split_on_torch() -> Any:
    import torch

    class SplitProduct(torch.autograd.Function):
        """The product of split factors: its derivatives are split products as well."""

        generate_vmap_rule = True

        @staticmethod
        def forward(x: Any, y: Any) -> Any:
            return _split_product(x, y)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, Any], output: Any) -> None:
            ctx.save_for_backward(*inputs)
            ctx.save_for_forward(*inputs)

        @staticmethod
        def backward(ctx: Any, slope: Any) -> tuple[Any, Any]:
            x, y = ctx.saved_tensors
            return _slopes(SplitProduct.apply, x, y, slope)

        @staticmethod
        def jvp(ctx: Any, of_x: Any, of_y: Any) -> Any:
            x, y = ctx.saved_tensors
            return SplitProduct.apply(of_x, y) + SplitProduct.apply(x, of_y)

    return SplitProduct


@functools.cache
def _split_on_tensorflow() -> Any:
    import tensorflow as tf

    @tf.custom_gradient
    def split_product(x: Any, y: Any) -> tuple[Any, Any]:
        # Forward mode would else differentiate the bits.
        value = _split_product(tf.stop_gradient(x), tf.stop_gradient(y))
        return value, lambda slope: _slopes(split_product, x, y, slope)

    return split_product


def _slopes(multiply: Any, x: Any, y: Any, slope: Any) -> tuple[Any, Any]:
    """Returns the derivatives by the factors, given that by the product."""
    x, rows = ops.reshape(x, (-1, x.shape[-1])), ops.reshape(slope, (-1, y.shape[-1]))
    return multiply(slope, ops.transpose(y)), multiply(ops.transpose(x), rows)


def _split_product(x: Any, y: Any) -> Any:
    (a, b, c), (d, e, f) = _parts(x), _parts(y)
    # The small products in one sum of their own: its rounding errors are as small as they are.
    small = ops.concatenate([a, b, a, b, c], axis=-1) @ ops.concatenate([e, d, f, e, d], axis=0)
    return a @ d + small


def _parts(x: Any) -> tuple[Any, Any, Any]:
    """Splits float32 numbers into sums of three of 8 significant bits, exactly."""
    first = _rounded(x)
    second = _rounded(x - first)
    return first, second, x - first - second


def _rounded(x: Any) -> Any:
    """Rounds float32 numbers to 8 significant bits, by their bits: compilers may drop a cast there and back."""
    if keras.backend.backend() == "torch":
        import torch

        return ((x.view(torch.int32) + HALF) & KEPT).view(torch.float32)
    import tensorflow as tf

    return tf.bitcast(tf.bitwise.bitwise_and(tf.bitcast(x, tf.int32) + HALF, KEPT), tf.float32)
