import keras
import numpy as np
import pytest
from keras import ops
from precision import double_precision

from keras_gen.core.fixtures import to_numpy
from keras_gen.core.torch.product import LARGE, product
from keras_gen.ops import gradient

RNG = np.random.default_rng(0)
N = LARGE // 2**12  # large enough for the other kernel


@pytest.mark.parametrize("n", [3, N])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_product_is_the_product(n, transposed, dtype):
    a, b = RNG.standard_normal((n, 64)).astype(dtype), RNG.standard_normal((64, 64)).astype(dtype)
    with double_precision():
        x, y = ops.convert_to_tensor(a), ops.convert_to_tensor(b)
        result = product(x, ops.transpose(y) if transposed else y)
    exact = a.astype("float64") @ (b.T if transposed else b).astype("float64")
    assert tuple(result.shape) == (n, 64)
    tolerance = 1e-4 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(to_numpy(result), exact, rtol=tolerance, atol=tolerance)


def test_gradients():
    a, b = (RNG.standard_normal(shape).astype("float32") for shape in ((N, 64), (64, 64)))
    x, y = ops.convert_to_tensor(a), ops.convert_to_tensor(b)
    slope = np.cos(a.astype("float64") @ b)
    by_x = to_numpy(gradient(lambda x: ops.sin(product(x, y)), x))
    by_y = to_numpy(gradient(lambda y: ops.sin(product(x, y)), y))
    np.testing.assert_allclose(by_x, slope @ b.T, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(by_y, a.T @ slope, rtol=1e-3, atol=1e-2)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="a setting of PyTorch's")
def test_without_onednn():
    from torch.backends import mkldnn

    x = ops.convert_to_tensor(RNG.standard_normal((N, 64)).astype("float32"))
    with mkldnn.flags(enabled=False):
        result = product(x, ops.transpose(x[:64]))
    np.testing.assert_array_equal(to_numpy(result), to_numpy(x @ ops.transpose(x[:64])))


def test_layers_of_pixels():
    """Dense layers call it with more axes, too."""
    x, y = RNG.standard_normal((2, 5, 4)).astype("float32"), RNG.standard_normal((4, 3)).astype("float32")
    np.testing.assert_allclose(to_numpy(product(*map(ops.convert_to_tensor, (x, y)))), x @ y, rtol=1e-5, atol=1e-5)
