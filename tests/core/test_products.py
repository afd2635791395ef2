"""Products whose exactness is promised, on a device that rounds the factors of others."""

import keras
import numpy as np
import pytest
from keras import ops
from laws import BIJECTORS, ISLANDS
from laws.islands import two_clusters
from programs import one_program
from rounded import rounded_products
from tolerances import rounds

from keras_gen.core.calculus.gradient import double_precision
from keras_gen.core.devices.products import precise_product
from keras_gen.core.fixtures import flat_numpy, randomize_weights, to_numpy
from keras_gen.ops import gradient, k_occurrence, nearest_code, nearest_neighbors

RNG = np.random.default_rng(0)
ON_TORCH = keras.backend.backend() == "torch"


def normal(*shape):
    return RNG.standard_normal(shape, "float32")


def numbers(results):
    return [x if isinstance(x, np.ndarray | float) else flat_numpy(x)[0] for x in keras.tree.flatten(results)]


@pytest.mark.parametrize("name", ISLANDS)
def test_island(name):
    """Nothing changes where the factors of products are rounded."""
    expected = numbers(ISLANDS[name]())
    with rounded_products():
        found = numbers(ISLANDS[name]())
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_products_of_any_number_of_axes():
    """Of these shapes TensorFlow's own product on a CPU is NaN, or crashes (2.21)."""
    for shape in ((2, 1, 32, 4), (2, 1, 64, 4), (64, 4)):
        x, y = normal(*shape), normal(4, 16)
        actual = to_numpy(precise_product(ops.convert_to_tensor(x), ops.convert_to_tensor(y)))
        np.testing.assert_allclose(actual, x @ y, rtol=1e-5, atol=1e-5)


def test_layers_of_networks_are_left_to_the_device():
    """The simulation rounds: products and convolutions change, by 2^-11 or so."""
    if rounds():
        pytest.skip("this device rounds by itself")
    x, kernel = (ops.convert_to_tensor(array) for array in (normal(4, 5, 5, 8), normal(3, 3, 8, 8)))
    functions = [
        lambda x: ops.matmul(x, kernel[0, 0]),
        lambda x: x @ kernel[0, 0],
        lambda x: ops.einsum("bhwc,cd->bhwd", x, kernel[0, 0]),
        lambda x: ops.conv(x, kernel, padding="same"),
    ]
    expected = [to_numpy(function(x)) for function in functions]
    with rounded_products():
        found = [to_numpy(function(x)) for function in functions]
    for a, b in zip(found, expected, strict=True):
        assert 1e-5 < np.abs(a - b).max() < 2e-2


def test_neighbors_are_exact_under_rounded_products():
    points, queries = two_clusters(300, 24, 2), two_clusters(100, 24, 3)
    squares = np.square(queries[:, None].astype("float64") - points).sum(-1)
    among = np.square(points[:, None].astype("float64") - points).sum(-1)
    np.fill_diagonal(among, np.inf)
    order, nearest = squares.argsort(axis=1), among.argsort(axis=1)[:, :4]
    with rounded_products():
        codes = to_numpy(nearest_code(ops.convert_to_tensor(queries), points))
        _, indices = nearest_neighbors(queries, points, k=5)
        counts = k_occurrence(points, k=4)
    np.testing.assert_array_equal(codes, order[:, 0])
    np.testing.assert_array_equal(indices, order[:, :5])
    np.testing.assert_array_equal(counts, np.bincount(nearest.ravel(), minlength=300))


@pytest.mark.parametrize("shape", [(7, 33), (2, 5, 33)])
def test_errors_are_those_of_float32(shape):
    x, y = normal(*shape), normal(33, 9)
    w = normal(*shape[:-1], 9)

    def results():
        a, b, c = map(ops.convert_to_tensor, (x, y, w))
        by_x = gradient(lambda a: precise_product(a, b) * c, a)
        by_y = gradient(lambda b: precise_product(a, b) * c, b)
        by_both = gradient(lambda b: gradient(lambda a: ops.square(precise_product(a, b)) / 2, a), b)
        slope = ops.jvp(lambda a: precise_product(a, b), (a,), (a,))[1]
        return [to_numpy(part) for part in (precise_product(a, b), by_x, by_y, by_both, slope)]

    with rounded_products():
        found = results()
    x, y, w = (array.astype("float64") for array in (x, y, w))
    rows = x.reshape(-1, 33)
    sums = rows.sum(axis=0)
    by_both = np.outer(sums, y.sum(axis=0)) + sums @ y  # of the sum of the entries of x y y^T
    expected = [x @ y, w @ y.T, rows.T @ w.reshape(-1, 9), by_both, x @ y]
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-5)


def test_in_a_vectorized_map():
    x, y = normal(4, 3, 33), normal(33, 9)
    with rounded_products():
        found = ops.vectorized_map(
            lambda rows: precise_product(rows, ops.convert_to_tensor(y)), ops.convert_to_tensor(x)
        )
    np.testing.assert_allclose(to_numpy(found), x.astype("float64") @ y, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_without_rounding_it_is_the_plain_product(dtype):
    x, y = normal(6, 5).astype(dtype), normal(5, 4).astype(dtype)
    with double_precision():
        result = precise_product(ops.convert_to_tensor(x), ops.convert_to_tensor(y))
        assert keras.backend.standardize_dtype(result.dtype) == dtype
        np.testing.assert_allclose(to_numpy(result), x @ y, rtol=1e-5, atol=1e-6 if dtype == "float32" else 1e-14)


def test_a_coupling_inverts_itself_under_rounded_products():
    """The network that predicts its parameters may round: both directions predict them from the same numbers."""
    make, x = BIJECTORS["spline_coupling"]
    bijector, x = make(), ops.convert_to_tensor(x)
    bijector.build(x.shape)
    randomize_weights(bijector)

    def both_directions(x):
        y, log_det = bijector(x)
        return *bijector(y, inverse=True), log_det

    with rounded_products():
        back, minus, log_det = map(to_numpy, one_program(bijector, both_directions)(x))
    np.testing.assert_allclose(back, to_numpy(x), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(minus, -log_det, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not ON_TORCH, reason="settings of PyTorch's")
def test_settings_of_pytorch(monkeypatch):
    """Split where factors are rounded, and nowhere else; the settings stay as they are."""
    import torch

    from keras_gen.core.devices import products

    x = torch.ones(3, 4)  # on the CPU
    before = torch.get_float32_matmul_precision()
    try:
        for has_amx, setting, expected in (
            (True, "highest", False),
            (False, "high", False),
            (True, "high", True),
            (True, "medium", True),
        ):
            monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda has_amx=has_amx: has_amx)
            torch.set_float32_matmul_precision(setting)
            assert products._rounds_on_torch(x) == expected, (has_amx, setting)
            assert not products._rounds_on_torch(x.double())
            precise_product(x, x.T)
            assert torch.get_float32_matmul_precision() == setting
    finally:
        torch.set_float32_matmul_precision(before)
