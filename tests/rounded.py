"""A device that multiplies in TF32, simulated on a CPU: factors of float32 products have 11 significant bits."""

import contextlib
from unittest import mock

import keras
import numpy as np

from keras_gen.core.devices import products
from keras_gen.hubness.neighbors import nearest_program

MANTISSA = 10
LOST = 23 - MANTISSA


@contextlib.contextmanager
def rounded_products():
    """Rounds the factors of all products, also of those in derivatives; the library reads the device's settings."""
    nearest_program.cache_clear()  # compiled for another device
    with contextlib.ExitStack() as stack:
        {"torch": _on_torch, "jax": _on_jax, "tensorflow": _on_tensorflow}[keras.backend.backend()](stack)
        yield
    nearest_program.cache_clear()


def _on_torch(stack):
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    aten = torch.ops.aten
    factors = {
        **dict.fromkeys([aten.mm, aten.bmm, aten.mv, aten.dot, aten.convolution, aten.convolution_backward], (0, 1)),
        **dict.fromkeys([aten.addmm, aten.baddbmm, aten.addmv], (1, 2)),
    }

    class Rounding(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            places = factors.get(function.overloadpacket, ())
            args = [round_torch(value) if place in places else value for place, value in enumerate(args)]
            return function(*args, **(kwargs or {}))

    def round_torch(x):
        if x.dtype != torch.float32:
            return x
        return ((x.contiguous().view(torch.int32) + 2 ** (LOST - 1)) & -(2**LOST)).view(torch.float32).reshape(x.shape)

    stack.enter_context(mock.patch.object(products, "_has_amx", return_value=True))
    stack.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
    torch.set_float32_matmul_precision("high")
    stack.enter_context(Rounding())


def _on_jax(stack):
    import jax
    from jax import lax
    from jax.extend.core import primitives

    exact = lax.Precision.HIGHEST

    def rounding(bind):
        def rounded_bind(x, y, *, precision, **options):
            if x.dtype == np.float32 and precision not in (exact, (exact, exact)):
                x, y = (lax.reduce_precision(factor, 8, MANTISSA) for factor in (x, y))
            return bind(x, y, precision=precision, **options)

        return rounded_bind

    stack.callback(jax.clear_caches)
    for primitive in (primitives.dot_general_p, primitives.conv_general_dilated_p):
        stack.enter_context(mock.patch.object(primitive, "bind", rounding(primitive.bind)))
    jax.clear_caches()


def _on_tensorflow(stack):
    import tensorflow as tf
    from tensorflow.python.ops import gen_linalg_ops, gen_math_ops, gen_nn_ops

    def rounded(x):
        if not tf.is_tensor(x) or x.dtype != tf.float32:
            return x
        bits = tf.bitwise.bitwise_and(tf.bitcast(x, tf.int32) + 2 ** (LOST - 1), -(2**LOST))
        return x + tf.stop_gradient(tf.bitcast(bits, tf.float32) - x)  # differentiable, and exactly so

    def rounding(function):
        def rounded_call(*args, **options):
            args, options = keras.tree.map_structure(rounded, (args, options))
            return function(*args, **options)

        return rounded_call

    for module, name in (
        (gen_math_ops, "mat_mul"),
        (gen_math_ops, "batch_mat_mul_v2"),
        (gen_math_ops, "batch_mat_mul_v3"),
        (gen_nn_ops, "conv2d"),
        (gen_linalg_ops, "einsum"),
    ):
        stack.enter_context(mock.patch.object(module, name, rounding(getattr(module, name))))
    stack.enter_context(mock.patch.object(products, "_rounds_on_tensorflow", lambda x: x.dtype == tf.float32))
