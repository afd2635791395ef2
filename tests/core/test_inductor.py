"""`jit_compile=True` on PyTorch: the graphs of traced networks are compiled, and nothing else."""

import warnings

import keras
import numpy as np
import pytest
from keras import ops

from keras_gen.core.fixtures import randomize_weights, to_numpy
from keras_gen.core.torch import switch
from keras_gen.core.torch.inductor import compiling
from keras_gen.core.torch.trace import PLAIN_CALLS, WATCHED_CALLS, Trace
from keras_gen.models import DDPM, LightUNet
from keras_gen.samplers import DDIMSampler

pytestmark = pytest.mark.skipif(keras.backend.backend() != "torch", reason="only PyTorch traces")

SHAPE = (4, 4, 1)
RNG = np.random.default_rng(0)
X = RNG.uniform(-1, 1, (8, *SHAPE)).astype("float32")


@pytest.fixture
def compilations(monkeypatch):
    """Stands in for Inductor, which takes seconds for the smallest graph, and lists what it was to compile."""
    import torch._inductor

    graphs = []

    def stand_in(graph, inputs, options):
        graphs.append(graph)
        return graph

    monkeypatch.setattr(torch._inductor, "compile", stand_in)
    return graphs


def network_of(dtype="float32"):
    network = LightUNet(SHAPE, (4,), 1, dtype=dtype)
    randomize_weights(network)
    return network, [ops.convert_to_tensor(X[:2]), ops.convert_to_tensor(np.array([0, 9], "int32"))]


def history(jit_compile, epochs=3, batch_size=4):
    model = DDPM(network_of()[0], seed=0)
    model.compile(keras.optimizers.SGD(1e-2), jit_compile=jit_compile)
    return model, model.fit(X, batch_size=batch_size, epochs=epochs, shuffle=False, verbose=0).history["loss"]


def often(network, inputs):
    with compiling(True):
        return [to_numpy(network(inputs, training=False)) for _ in range(WATCHED_CALLS + 1)][-1]


def test_a_training_step_and_a_sampler_compile_once_each(compilations):
    model, compiled = history(True)
    assert len(compilations) == 1
    model.sample(2, sampler=DDIMSampler(4), seed=0, verbose=0)
    model.sample(2, sampler=DDIMSampler(4), seed=1, verbose=0)
    assert len(compilations) == 2
    np.testing.assert_allclose(compiled, history(False)[1], rtol=1e-6)
    assert len(compilations) == 2
    assert model.jit_compile is True


def test_changed_weights_are_seen(compilations):
    network, inputs = network_of("mixed_bfloat16")
    before = often(network, inputs)
    dense = next(layer for layer in network._flatten_layers() if isinstance(layer, keras.layers.Dense))

    def adapt():
        dense.enable_lora(2)
        dense.lora_kernel_b.assign(100 * RNG.standard_normal(dense.lora_kernel_b.shape))

    changes = {
        "swapped": lambda: randomize_weights(network, seed=1),
        "frozen": lambda: setattr(network, "trainable", False),
        "adapted": adapt,
        "quantized": lambda: dense.quantize("int8"),
    }
    numbers = []
    for name, change in changes.items():
        change()
        now = often(network, inputs)
        np.testing.assert_array_equal(now, to_numpy(network(inputs)), err_msg=name)
        if name in ("swapped", "adapted"):
            assert not np.array_equal(now, before), name
        numbers.append(len(compilations))
        before = now
    assert numbers == [1, 2, 3, 3]  # the same graph, another, another, none


def test_second_derivatives_are_not_compiled(compilations):
    network, (x, t) = network_of()
    x.requires_grad_()
    often(network, [x, t])
    assert network._trace.graphs
    assert not compilations


def test_without_a_compiler(monkeypatch):
    import torch._inductor

    def refuse(graph, inputs, options):
        graph.graph.erase_node(next(node for node in reversed(graph.graph.nodes)))  # Inductor owns what it is given
        raise RuntimeError("No working C++ compiler found\nand more")

    monkeypatch.setattr(torch._inductor, "compile", refuse)
    network, inputs = network_of()
    with pytest.warns(UserWarning, match=f"`{network.name}` runs as traced, not compiled: .*No working C") as caught:
        result = often(network, inputs)
    assert sum("runs as traced" in str(warning.message) for warning in caught) == 1
    np.testing.assert_array_equal(result, to_numpy(network(inputs)))
    assert len(network._trace.graphs) == 1


def test_a_network_that_branches_is_named_and_called_plainly(compilations):
    class Branch(keras.layers.Layer):
        def call(self, x):
            return x if ops.mean(x) > 0 else -2 * x

    model = keras.Sequential([keras.Input((3,)), Branch()], name="branching")
    trace = Trace(model, lambda inputs, training: model(inputs[0], training=training))
    x = ops.convert_to_tensor(np.ones((2, 3), "float32"))
    with (
        compiling(True),
        pytest.warns(UserWarning, match="`branching` is called plainly.*Branch.*control flow") as caught,
    ):
        outputs = [to_numpy(trace([sign * x], False)) for sign in (1, 1, -1, 1)]
    assert sum("called plainly" in str(warning.message) for warning in caught) == 1
    np.testing.assert_array_equal(np.stack(outputs)[:, 0, 0], [1, 1, 2, 1])
    other = Trace(model, lambda inputs, training: model(inputs[0], training=training))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nobody asked for compilation
        for _ in range(PLAIN_CALLS + 1):
            other([x], False)
    assert not trace.graphs
    assert not other.graphs


def test_without_a_private_name(monkeypatch):
    monkeypatch.setattr(switch, "_has_private_names", None)
    monkeypatch.setattr(switch, "PRIVATE_NAMES", (*switch.PRIVATE_NAMES, "torch._C._autograd._gone", "torch._gone.x"))
    with pytest.warns(UserWarning, match="lacks torch._C._autograd._gone, torch._gone.x") as caught:
        taken = [switch.takes_fast_paths() for _ in range(2)]
    assert taken == [False, False]
    assert len(caught) == 1


def test_without_the_tracer(monkeypatch):
    from torch.fx.experimental import proxy_tensor

    monkeypatch.delattr(proxy_tensor, "make_fx")
    network, inputs = network_of()
    with pytest.warns(UserWarning, match="called plainly.*make_fx"):
        outputs = [to_numpy(network(inputs, training=False)) for _ in range(PLAIN_CALLS + 1)]
    np.testing.assert_array_equal(outputs[-1], outputs[0])
    assert not network._trace.graphs


def test_weights_on_another_device():
    import torch

    network, inputs = network_of()
    for variable in network.variables:
        variable._value = torch.nn.Parameter(variable.value.to("meta"))  # `Module.to` leaves Keras its own
    with pytest.raises(ValueError, match=r"`network` must have its weights on cpu.* Received: network=weights on meta"):
        network(inputs, training=False)


def test_by_inductor(request):
    if not request.config.getoption("--all-cases"):
        pytest.skip("compiles for a minute: runs with --all-cases")
    np.testing.assert_allclose(history(True)[1], history(False)[1], rtol=1e-4)
