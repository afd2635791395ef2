"""How much is computed at a time: on a CPU, on accelerators of any memory, and where it does not suffice."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_gen.core.devices import blocks
from keras_gen.core.devices.blocks import MOST_CELLS, UNKNOWN_CELLS, cells_at_once, halved_until_it_fits, on_cpu
from keras_gen.core.fixtures import to_numpy
from keras_gen.hubness import neighbors
from keras_gen.ops import k_occurrence, nearest_code, nearest_neighbors
from keras_gen.quantization import nearest_code as codes

MODULES = (blocks, neighbors, codes)
RNG = np.random.default_rng(0)


@pytest.fixture
def on_an_accelerator(monkeypatch):
    """The paths of an accelerator, on a CPU."""
    for module in MODULES:
        monkeypatch.setattr(module, "on_cpu", lambda x: False)
    neighbors.nearest_program.cache_clear()
    yield
    neighbors.nearest_program.cache_clear()


def no_memory():
    """The error by which the backend says that a tensor does not fit."""
    match keras.backend.backend():
        case "torch":
            import torch

            return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 4.00 GiB.")
        case "jax":
            import jax

            return jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Failed to allocate request for 4.00GiB")
        case _:
            import tensorflow as tf

            return tf.errors.ResourceExhaustedError(None, None, "failed to allocate memory")


@pytest.fixture
def small_memory(monkeypatch):
    """An allocator that refuses products of more than 2,000 numbers; lists the shapes that it was asked for."""
    asked = []
    for module in (neighbors, codes):

        def product(x, y, multiply=module.precise_product):
            asked.append((x.shape[0], y.shape[1]))
            if x.shape[0] * y.shape[1] > 2000:
                raise no_memory()
            return multiply(x, y)

        monkeypatch.setattr(module, "precise_product", product)
    neighbors.nearest_program.cache_clear()
    yield asked
    neighbors.nearest_program.cache_clear()


POINTS, QUERIES = RNG.standard_normal((2, 64, 5), "float32")
BRUTE_FORCE = np.square(QUERIES[:, None].astype("float64") - POINTS).sum(axis=-1).argsort(axis=1)


def assert_found():
    _, indices = nearest_neighbors(QUERIES, POINTS, k=3)
    np.testing.assert_array_equal(indices, BRUTE_FORCE[:, :3])
    np.testing.assert_array_equal(to_numpy(nearest_code(ops.convert_to_tensor(QUERIES), POINTS)), BRUTE_FORCE[:, 0])


@pytest.mark.usefixtures("on_an_accelerator")
def test_searches_of_an_accelerator_find_the_same():
    assert_found()


def test_blocks_shrink_where_memory_does_not_suffice(small_memory):
    assert_found()
    assert list(dict.fromkeys(small_memory)) == [(64, 64), (32, 64), (16, 64)]


def test_other_errors_are_raised_at_once():
    sizes = []

    def failing(error):
        def function(size):
            sizes.append(size)
            raise error

        return function

    with pytest.raises(ValueError, match="of another kind"):
        halved_until_it_fits(failing(ValueError("of another kind")), 8)
    assert sizes == [8]
    with pytest.raises(type(no_memory())):
        halved_until_it_fits(failing(no_memory()), 8)
    assert sizes == [8, 8, 4, 2, 1]
    with pytest.raises(MemoryError):
        halved_until_it_fits(failing(MemoryError()), 1)


def test_cells_by_free_memory(monkeypatch):
    x = ops.zeros((2, 2))
    if on_cpu(x):
        assert cells_at_once(x, 77) == 77
        monkeypatch.setattr(blocks, "on_cpu", lambda x: False)
        assert cells_at_once(x, 77) == UNKNOWN_CELLS  # a CPU has no memory of its own to ask for
    else:
        assert UNKNOWN_CELLS // 2**10 <= cells_at_once(x, 77) <= MOST_CELLS
    for free, expected in ((80 * 2**30, MOST_CELLS), (2**30, 2**24), (3 * 2**28, 2**23), (10, 1), (0, 1)):
        monkeypatch.setattr(blocks, "_free_memory", lambda x, free=free: free)
        assert cells_at_once(x, 77) == expected


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="the host of PyTorch waits for what it reads")
@pytest.mark.usefixtures("on_an_accelerator")
def test_an_accelerator_is_not_read_between_blocks(monkeypatch):
    events = []
    to_host, product = ops.convert_to_numpy, neighbors.precise_product
    monkeypatch.setattr(ops, "convert_to_numpy", lambda x: events.append("read") or to_host(x))
    monkeypatch.setattr(neighbors, "precise_product", lambda x, y: events.append("product") or product(x, y))
    k_occurrence(RNG.standard_normal((90, 4), "float32"), 3, block_size=10)
    assert events[:9] == ["product"] * 9
    assert events[9:] == ["read"] * 27
