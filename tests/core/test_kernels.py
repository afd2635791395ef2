import itertools

import keras
import numpy as np
import pytest
from keras import ops
from tolerances import within

from keras_gen.core.calculus.gradient import double_precision
from keras_gen.core.fixtures import randomize_weights, to_numpy
from keras_gen.core.torch import kernels
from keras_gen.core.torch.kernels import LARGE, Conv2D, convolve, product, segment_sum
from keras_gen.models import UNet
from keras_gen.ops import gradient

RNG = np.random.default_rng(0)
N = LARGE // 2**12  # rows of a product that is large enough for the other kernel
FILTERS = {(7, 6): 6, (8, 9): 6, (3, 5): 180}  # in the last case more weights than pixels, which has a way of its own
CASES = list(itertools.product(FILTERS, [(3, 3), (1, 1), (2, 5)], [(1, 1), (2, 2)], ["same", "valid"], [1, 2]))


@pytest.mark.parametrize(("size", "kernel_size", "strides", "padding", "groups"), CASES)
def test_convolution_is_that_of_keras(size, kernel_size, strides, padding, groups):
    check_convolution(size, kernel_size, strides, padding, groups)


@pytest.mark.parametrize(("strides", "groups"), [((1, 1), 1), ((2, 2), 2)])
def test_convolution_with_a_large_kernel(monkeypatch, strides, groups):
    monkeypatch.setattr(kernels, "LARGE_KERNEL", 1)
    check_convolution((8, 9), (2, 5), strides, "same", groups)


def check_convolution(size, kernel_size, strides, padding, groups):
    x = ops.convert_to_tensor(RNG.standard_normal((3, *size, 4), "float32"))
    filters = FILTERS[size]
    kernel = ops.convert_to_tensor(RNG.standard_normal((*kernel_size, 4 // groups, filters), "float32"))
    bias = ops.convert_to_tensor(RNG.standard_normal(filters, "float32"))

    def plain(x, kernel):
        return ops.conv(x, kernel, strides, padding, data_format="channels_last") + bias

    def ours(x, kernel):
        return convolve(x, kernel, bias, strides, padding)

    np.testing.assert_allclose(to_numpy(ours(x, kernel)), to_numpy(plain(x, kernel)), **within(1e-5))
    for of_x, at in ((True, x), (False, kernel)):
        slopes = [
            to_numpy(gradient(lambda z: ops.sin(f(z, kernel) if of_x else f(x, z)), at))  # noqa: B023
            for f in (ours, plain)
        ]
        np.testing.assert_allclose(*slopes, **within(1e-4))


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16", "float64"])
def test_layer_is_that_of_keras(dtype):
    options = {"strides": 2, "padding": "same", "activation": "silu", "use_bias": dtype != "float64", "dtype": dtype}
    ours, theirs = Conv2D(5, 3, **options), keras.layers.Conv2D(5, 3, **options)
    x = RNG.standard_normal((2, 8, 6, 3))
    for layer in (ours, theirs):
        layer.build(x.shape)
    randomize_weights(ours)
    theirs.set_weights(ours.get_weights())
    with double_precision():
        a, b = ours(x), theirs(x)
    assert a.dtype == b.dtype
    assert tuple(a.shape) == tuple(ours.compute_output_shape(x.shape)) == (2, 4, 3, 5)
    limits = {"float32": within(1e-5), "mixed_bfloat16": within(2e-2), "float64": {"rtol": 1e-12, "atol": 1e-12}}
    np.testing.assert_allclose(*(to_numpy(ops.cast(y, "float64")) for y in (a, b)), **limits[dtype])


@pytest.mark.parametrize("options", [{"data_format": "channels_first"}, {"dilation_rate": 2}])
def test_what_it_cannot_do_is_refused(options):
    with pytest.raises(ValueError, match=f"`{next(iter(options))}` must be"):
        Conv2D(4, 3, **options)


def test_images_lie_with_channels_last_whatever_keras_is_set_to():
    keras.config.set_image_data_format("channels_first")
    try:
        assert Conv2D(5, 3)(np.zeros((1, 6, 7, 2), "float32")).shape == (1, 4, 5, 5)
    finally:
        keras.config.set_image_data_format("channels_last")


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_one_image_teaches_one_filter(padding):
    """A last batch of one, as every n = 1 mod the batch size leaves."""
    x = RNG.standard_normal((1, 8, 8, 3), "float32")
    kernels = []
    for batch in (x, np.concatenate([x, x])):
        layer = Conv2D(1, 3, padding=padding, kernel_initializer="ones")
        model = keras.Sequential([keras.Input((8, 8, 3)), layer, keras.layers.Flatten()])
        model.compile(keras.optimizers.SGD(0.1), "mse")
        model.fit(batch, np.zeros((len(batch), *model.output_shape[1:])), verbose=0)
        kernels.append(to_numpy(layer.kernel))
    np.testing.assert_allclose(kernels[0], kernels[1], **within(1e-5, 1e-6))


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="PyTorch's kernels")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_one_filter_learns_in_half_precision(dtype):
    x = RNG.standard_normal((2, 8, 8, 3), "float32")
    layers = [Conv2D(1, 3, kernel_initializer="ones", dtype=policy) for policy in (f"mixed_{dtype}", "float32")]
    slopes = [
        gradient(lambda x, layer=layer: ops.cast(layer(x), "float32"), ops.convert_to_tensor(x)) for layer in layers
    ]
    for layer in layers:
        model = keras.Sequential([keras.Input((8, 8, 3)), layer, keras.layers.Flatten()])
        model.compile(keras.optimizers.SGD(0.01), "mse")
        model.fit(x, np.zeros((2, *model.output_shape[1:])), verbose=0)
    half, single = (to_numpy(layer.kernel) for layer in layers)
    np.testing.assert_allclose(half, single, rtol=2e-2, atol=2e-2)
    np.testing.assert_allclose(*map(to_numpy, slopes), rtol=2e-2, atol=2e-2)


def test_a_part_of_a_network_loads(tmp_path):
    network = UNet((8, 8, 1), (8,), 1)
    part = keras.Model(network.inputs, network.layers[-2].output)
    part.save(tmp_path / "part.keras")
    x = [RNG.standard_normal((2, 8, 8, 1), "float32"), np.array([1, 2], "int32")]
    loaded = keras.models.load_model(tmp_path / "part.keras")
    np.testing.assert_allclose(to_numpy(loaded(x)), to_numpy(part(x)), **within(1e-5, 1e-6))


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
    limits = within(1e-4) if dtype == "float32" else {"rtol": 1e-12, "atol": 1e-12}
    np.testing.assert_allclose(to_numpy(result), exact, **limits)


def test_gradients_of_a_product():
    a, b = (RNG.standard_normal(shape).astype("float32") for shape in ((N, 64), (64, 64)))
    x, y = ops.convert_to_tensor(a), ops.convert_to_tensor(b)
    slope = np.cos(a.astype("float64") @ b)
    by_x = to_numpy(gradient(lambda x: ops.sin(product(x, y)), x))
    by_y = to_numpy(gradient(lambda y: ops.sin(product(x, y)), y))
    # As means, so that a sum of many rows may have the rounding errors of many.
    np.testing.assert_allclose(by_x / 64, slope @ b.T / 64, **within(1e-3, 1e-3 / 64))
    np.testing.assert_allclose(by_y / N, a.T @ slope / N, **within(1e-3, 1e-2 / N))


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="a setting of PyTorch's")
def test_product_without_onednn():
    from torch.backends import mkldnn

    x = ops.convert_to_tensor(RNG.standard_normal((N, 64)).astype("float32"))
    with mkldnn.flags(enabled=False):
        result = product(x, ops.transpose(x[:64]))
    np.testing.assert_array_equal(to_numpy(result), to_numpy(x @ ops.transpose(x[:64])))


def test_segment_sum():
    outside = [-1, 5] if keras.backend.backend() != "tensorflow" else []  # which raises an error there
    segments = np.array([2, 0, 2, 4, *outside], "int32")
    for shape in ((len(segments),), (len(segments), 3)):
        values = RNG.standard_normal(shape).astype("float32")
        expected = np.stack([values[segments == i].sum(axis=0) for i in range(5)])
        result = segment_sum(*map(ops.convert_to_tensor, (values, segments)), 5)
        np.testing.assert_allclose(to_numpy(result), expected, rtol=1e-5, atol=1e-6)


def test_product_with_a_bias():
    x, y, bias = (RNG.standard_normal(shape).astype("float32") for shape in ((N, 64), (64, 64), (64,)))
    for rows in (x, x[:3]):
        result = product(*map(ops.convert_to_tensor, (rows, y, bias)))
        np.testing.assert_allclose(to_numpy(result), rows @ y + bias, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="a setting of PyTorch's")
def test_product_on_one_thread_and_on_two(monkeypatch):
    import torch

    x, y, bias = (ops.convert_to_tensor(RNG.standard_normal(shape), "float32") for shape in ((N, 64), (64, 64), (64,)))
    calls = []
    convolution = kernels._as_convolution
    monkeypatch.setattr(kernels, "_as_convolution", lambda *args: calls.append(1) or convolution(*args))
    results = []
    for threads in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        results.append(to_numpy(product(x, y, bias)))
    assert len(calls) == 1
    np.testing.assert_allclose(*results, rtol=1e-4, atol=1e-4)


def test_product_of_pixels():
    """Dense layers call it with more axes, too."""
    x, y = RNG.standard_normal((2, 5, 4)).astype("float32"), RNG.standard_normal((4, 3)).astype("float32")
    np.testing.assert_allclose(to_numpy(product(*map(ops.convert_to_tensor, (x, y)))), x @ y, **within(1e-5))
