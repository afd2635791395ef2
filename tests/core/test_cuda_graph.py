"""CUDA graphs of traced networks, on a CPU with a stand-in for the capture, and as they are where there is a GPU."""

import concurrent.futures
import copy
import gc
import warnings

import keras
import numpy as np
import pytest
from keras import ops

from keras_gen.core.compiled import compiled
from keras_gen.core.fixtures import randomize_weights, to_numpy
from keras_gen.core.stateless import stateless
from keras_gen.core.torch import cuda_graph, trace
from keras_gen.core.torch.cuda_graph import CudaGraph
from keras_gen.models import DDPM, LightUNet, UNet
from keras_gen.samplers import DDIMSampler

pytestmark = pytest.mark.skipif(keras.backend.backend() != "torch", reason="CUDA graphs are PyTorch's")

SHAPE = (4, 4, 1)
RNG = np.random.default_rng(0)
X = RNG.uniform(-1, 1, (8, *SHAPE)).astype("float32")
CALLS = trace.PLAIN_CALLS + cuda_graph.PLAIN_CALLS + 1


@pytest.fixture
def captures(monkeypatch):
    """Lists the captures; without a GPU each runs its operations again, and writes where the capture has written."""
    import torch

    captures, capture = [], cuda_graph._captured

    def stand_in(function):
        if torch.cuda.is_available():
            captures.append(True)
            return capture(function)
        outputs = function()

        def replay():
            for place, value in zip(keras.tree.flatten(outputs), keras.tree.flatten(function()), strict=True):
                place.copy_(value)

        captures.append(True)
        return replay, outputs

    monkeypatch.setattr(cuda_graph, "_captured", stand_in)
    if not torch.cuda.is_available():
        monkeypatch.setattr(cuda_graph, "_on_gpu", lambda tensors: True)
        monkeypatch.setattr(cuda_graph, "_is_capturing", lambda: False)
        monkeypatch.setattr(cuda_graph, "_stream", lambda: 0)
    return captures


def network_of(dtype="float32", **options):
    network = LightUNet(SHAPE, (4,), 1, dtype=dtype, **options)
    randomize_weights(network)
    return network, inputs_of(2)


def inputs_of(n):
    return [ops.convert_to_tensor(X[:n]), ops.convert_to_tensor(np.arange(n, dtype="int32"))]


def often(network, inputs, training=False):
    import torch

    with torch.no_grad():
        return [to_numpy(network(inputs, training=training)) for _ in range(CALLS)]


def plainly(network, inputs):
    """Returns the outputs of a network as Keras calls it."""
    return to_numpy(network(inputs))


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_replays_are_the_calls(captures, dtype):
    network, inputs = network_of(dtype)
    outputs = often(network, inputs)
    assert len(captures) == 1
    np.testing.assert_allclose(outputs[-1], outputs[0], rtol=1e-5, atol=1e-6)
    other = [ops.flip(x, axis=0) for x in inputs]
    first, second = often(network, other)[-1], often(network, inputs)[-1]
    np.testing.assert_allclose(first, plainly(network, other), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(second, outputs[0], rtol=1e-5, atol=1e-6)
    assert len(captures) == 1


def test_an_output_outlives_the_next_replay(captures):
    import torch

    network, inputs = network_of()
    expected = often(network, inputs)[-1]
    with torch.no_grad():
        held = network(inputs, training=False)
        network([ops.flip(x, axis=0) for x in inputs], training=False)
    np.testing.assert_allclose(to_numpy(held), expected, rtol=1e-5, atol=1e-6)


def test_present_weights_count(captures):
    network, inputs = network_of()
    before = often(network, inputs)[-1]
    randomize_weights(network, seed=1)
    after = often(network, inputs)[-1]
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(after, plainly(network, inputs), rtol=1e-5, atol=1e-6)
    assert len(captures) == 1


def test_weights_elsewhere_are_used_too(captures):
    import torch

    network, inputs = network_of()
    often(network, inputs)
    values = [2 * variable.value for variable in network.variables]
    scope = keras.StatelessScope(state_mapping=list(zip(network.variables, values, strict=True)))
    with torch.no_grad(), scope:
        there = to_numpy(network(inputs, training=False))
        np.testing.assert_allclose(there, plainly(network, inputs), rtol=1e-5, atol=1e-6)
    with stateless(network):
        often(network, inputs)
    for variable in network.variables:
        variable.assign(2 * variable.value)
    np.testing.assert_allclose(often(network, inputs)[-1], there, rtol=1e-5, atol=1e-6)


def test_a_copy_captures_its_own(captures):
    network, inputs = network_of()
    before = often(network, inputs)[-1]
    twin = copy.deepcopy(network)
    randomize_weights(twin, seed=1)
    assert np.abs(often(twin, inputs)[-1] - before).max() > 1e-3
    np.testing.assert_allclose(often(network, inputs)[-1], before, rtol=1e-5, atol=1e-6)


def test_four_are_kept(captures):
    network, _ = network_of()
    for n in range(1, 7):
        often(network, inputs_of(n))
    assert len(captures) == 6
    graphs = list(network._trace.graphs.values())
    assert [graph.recording is not None for graph in graphs] == [False, False, True, True, True, True]
    np.testing.assert_allclose(often(network, inputs_of(1))[-1], plainly(network, inputs_of(1)), rtol=1e-5, atol=1e-6)
    assert len(captures) == 7
    del network, graphs
    gc.collect()
    assert [ref for ref in cuda_graph._kept if ref() is not None] == []


@pytest.mark.parametrize("case", ["gradients", "dropout"])
def test_what_is_not_captured(captures, case):
    if case == "dropout":
        network = UNet(SHAPE, (4,), 1, dropout=0.5)
        randomize_weights(network)
        outputs = often(network, inputs_of(2), training=True)
        assert np.abs(outputs[-1] - outputs[-2]).max() > 1e-3
    else:
        network, inputs = network_of()
        for _ in range(CALLS):
            ops.sum(network(inputs, training=True)).backward()
    assert len(network._trace.graphs) == 1
    assert not captures


def test_another_precision_is_traced_anew(captures, monkeypatch):
    network, inputs = network_of()
    often(network, inputs)
    monkeypatch.setattr(trace, "rounded_operations", lambda: (True,))
    often(network, inputs)
    assert len(network._trace.graphs) == len(captures) == 2


@pytest.mark.parametrize("fault", ["a replay that does nothing", "an error"])
def test_a_bad_capture_leaves_the_trace(captures, monkeypatch, fault):
    def capture(function):
        if fault == "an error":
            raise RuntimeError("operation not permitted\nwhen stream is capturing")
        return lambda: None, keras.tree.map_structure(ops.zeros_like, function())

    monkeypatch.setattr(cuda_graph, "_captured", capture)
    network, inputs = network_of()
    with pytest.warns(UserWarning, match="runs as traced, not as a CUDA graph") as caught:
        outputs = often(network, inputs)
    assert len([warning for warning in caught if "CUDA graph" in str(warning.message)]) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        outputs += often(network, inputs)
    for output in outputs:
        np.testing.assert_array_equal(output, outputs[0])
    assert all(graph.recording is None for graph in network._trace.graphs.values())


def test_in_threads(captures):
    """A replay writes the same memory in all of them."""
    network, inputs = network_of()
    often(network, inputs)
    pairs = [[x, ops.full((2,), t, "int32")] for t, x in enumerate(ops.split(ops.convert_to_tensor(X), 4))]
    expected = [plainly(network, pair) for pair in pairs]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        outputs = list(pool.map(lambda pair: often(network, pair)[-1], pairs * 2))
    for output, target in zip(outputs, expected * 2, strict=True):
        np.testing.assert_allclose(output, target, rtol=1e-5, atol=1e-6)


def test_samples_are_the_same(captures, monkeypatch):
    def draw():
        model = DDPM(network_of()[0], seed=0)
        return model.sample(3, sampler=DDIMSampler(3 * CALLS), seed=0, verbose=0)

    fast = draw()
    assert captures
    monkeypatch.setattr(trace, "PLAIN_CALLS", 10**6)
    np.testing.assert_allclose(fast, draw(), rtol=1e-4, atol=1e-4)


def test_a_compiled_network_is_not_captured(captures):
    network, inputs = network_of()
    call = compiled(network, lambda *inputs: network(list(inputs), training=False))
    for _ in range(CALLS):
        call(*inputs)
    assert len(captures) == 1
    assert all(isinstance(graph, CudaGraph) for graph in network._trace.graphs.values())
