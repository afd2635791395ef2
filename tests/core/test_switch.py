"""With the fast paths of PyTorch disabled, it runs the code of the other backends, to the same result."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

from keras_gen import config
from keras_gen.core.fixtures import randomize_weights, to_numpy
from keras_gen.core.torch.kernels import LARGE, convolve, product
from keras_gen.core.torch.switch import takes_fast_paths
from keras_gen.core.torch.trace import PLAIN_CALLS
from keras_gen.layers import GroupNorm
from keras_gen.models import UNet
from keras_gen.ops import gradient, nearest_code, nearest_neighbors

RNG = np.random.default_rng(0)
ON_TORCH = keras.backend.backend() == "torch"
torch_only = pytest.mark.skipif(not ON_TORCH, reason="the others have no fast paths")


@pytest.fixture(autouse=True)
def _enabled_again():
    yield
    config.enable_torch_fast_paths()


def normal(*shape):
    return ops.convert_to_tensor(RNG.standard_normal(shape).astype("float32"))


def both(function):
    """Returns what a function gives with the fast paths, and without them."""
    config.enable_torch_fast_paths()
    fast = function()
    config.disable_torch_fast_paths()
    return fast, function()


def assert_close(fast, plain):
    for a, b in zip(fast, plain, strict=True):
        np.testing.assert_allclose(to_numpy(a), to_numpy(b), rtol=1e-5, atol=1e-5)


def test_the_switch():
    assert config.is_torch_fast_paths_enabled()
    assert takes_fast_paths() == ON_TORCH
    config.disable_torch_fast_paths()
    assert not config.is_torch_fast_paths_enabled()
    assert not takes_fast_paths()
    config.enable_torch_fast_paths()
    assert config.is_torch_fast_paths_enabled()


@pytest.mark.one_backend
def test_the_environment_variable():
    environment = {**os.environ, "KERAS_GEN_TORCH_FAST_PATHS": "0"}
    script = "from keras_gen import config; print(config.is_torch_fast_paths_enabled())"
    result = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


@torch_only
@pytest.mark.parametrize("training", [False, True])
def test_unet(training):
    network = UNet((8, 8, 1), (8, 16), 1, (1,))
    randomize_weights(network)
    x, t = normal(3, 8, 8, 1), ops.convert_to_tensor(np.array([0, 3, 9], "int32"))
    kernel = next(weight for weight in network.trainable_weights if len(weight.shape) == 4)

    def call(x):
        return network([x, t], training=training)

    def by_kernel(value):
        with keras.StatelessScope(state_mapping=[(kernel, value)]):
            return ops.square(call(x))

    def outputs():
        for _ in range(PLAIN_CALLS + 1):  # the first calls are plain in any case
            y = call(x)
            slope = gradient(lambda x: ops.square(call(x)), x)
        return y, slope, gradient(by_kernel, ops.convert_to_tensor(kernel))

    config.disable_torch_fast_paths()
    plain = outputs()
    assert not network._trace.graphs
    assert not network._trace.calls
    config.enable_torch_fast_paths()
    fast = outputs()
    assert network._trace.graphs
    assert_close(fast, plain)
    config.disable_torch_fast_paths()  # graphs that were made before are not run
    network._trace.graphs = dict.fromkeys(network._trace.graphs)
    assert_close(outputs(), plain)


def test_group_norm():
    layer = GroupNorm(2)
    layer.build((None, 5, 5, 8))
    randomize_weights(layer)
    x = normal(3, 5, 5, 8)

    def by_gamma(value):
        with keras.StatelessScope(state_mapping=[(layer.gamma, value)]):
            return ops.sin(layer(x))

    def outputs():
        slope = gradient(lambda x: ops.sin(layer(x)), x)
        return layer(x), slope, gradient(by_gamma, ops.convert_to_tensor(layer.gamma))

    assert_close(*both(outputs))


def test_product():
    x, y = normal(LARGE // 2**10, 32) / 8, normal(32, 32) / 8

    def outputs():
        by_x = gradient(lambda x: ops.sin(product(x, y)), x)
        by_y = gradient(lambda y: ops.sin(product(x[:64], y)), y)
        return product(x, y), by_x, by_y

    assert_close(*both(outputs))


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_convolution(padding):
    x, kernel, bias = normal(2, 7, 8, 3), normal(3, 3, 3, 4), normal(4)

    def outputs():
        def y(x, kernel):
            return convolve(x, kernel, bias, (2, 2), padding)

        by_x = gradient(lambda x: ops.sin(y(x, kernel)), x)
        return y(x, kernel), by_x, gradient(lambda kernel: ops.sin(y(x, kernel)), kernel)

    assert_close(*both(outputs))


def test_nearest_code():
    x, codebook = normal(50, 4), normal(9, 4)
    np.testing.assert_array_equal(*map(to_numpy, both(lambda: nearest_code(x, codebook, chunk_size=16))))


def test_nearest_neighbors():
    points = RNG.standard_normal((300, 4)).astype("float32")
    for fast, plain in zip(*both(lambda: nearest_neighbors(points, k=3)), strict=True):
        np.testing.assert_allclose(fast, plain, rtol=1e-6)


@torch_only
def test_no_kernel_is_called_when_disabled(monkeypatch):
    from keras_gen.core.torch import kernels

    def refuse(*args, **kwargs):
        raise AssertionError("a fast path was taken")

    config.disable_torch_fast_paths()
    for name in ("_convolve_views", "_as_convolution", "_native_group_norm"):
        monkeypatch.setattr(kernels, name, refuse)
    map_of_keras = ops.map
    calls = []
    monkeypatch.setattr(ops, "map", lambda *args: calls.append(1) or map_of_keras(*args))
    convolve(normal(1, 4, 4, 2), normal(3, 3, 2, 2))
    product(normal(LARGE // 2**10, 32), normal(32, 32))
    GroupNorm(2)(normal(1, 3, 3, 4))
    nearest_code(normal(9, 2), normal(3, 2), chunk_size=4)
    assert calls
    assert kernels.tile_size(2**20, 1000, 16) == 1000
