import concurrent.futures
import copy
import itertools

import keras
import numpy as np
import pytest
from keras import ops

from keras_gen.core.compiled import compiled
from keras_gen.core.fixtures import randomize_weights, to_numpy
from keras_gen.core.stateless import stateless
from keras_gen.core.torch import trace
from keras_gen.core.torch.trace import PLAIN_CALLS, Trace
from keras_gen.models import DDPM, DiT, LightUNet, PixelTransformer, UNet
from keras_gen.ops import gradient
from keras_gen.samplers import DDIMSampler

pytestmark = pytest.mark.skipif(keras.backend.backend() != "torch", reason="only PyTorch calls layer by layer")

SHAPE = (8, 8, 1)
RNG = np.random.default_rng(0)
X = RNG.standard_normal((3, *SHAPE), "float32")
INPUTS = [X, np.array([0, 3, 9], "int32")]
LABELS = np.array([0, 1, 2], "int32")
NETWORKS = {
    "unet": (lambda **options: UNet(SHAPE, (8, 16), 1, (1,), **options), INPUTS),
    "unet_labels": (lambda **options: UNet(SHAPE, (8, 16), 1, num_classes=3, **options), [*INPUTS, LABELS]),
    "unet_tokens": (
        lambda **options: UNet(SHAPE, (8, 16), 1, (1,), condition_dim=(2, 5), **options),
        [*INPUTS, RNG.standard_normal((3, 2, 5), "float32")],
    ),
    "light_unet": (lambda **options: LightUNet(SHAPE, (8, 16), 1, num_steps=10, **options), INPUTS),
    "dit": (lambda **options: DiT(SHAPE, 4, 16, 2, 2, **options), INPUTS),
    "pixel_transformer": (lambda **options: PixelTransformer(SHAPE, 2, 16, 2, **options), INPUTS),
}
DTYPES = ["float32", "mixed_bfloat16"]


def network_of(name="unet", dtype="float32"):
    make, inputs = NETWORKS[name]
    network = make(dtype=dtype)
    randomize_weights(network)
    return network, [ops.convert_to_tensor(x) for x in inputs]


def traced(network):
    return len(network._trace.graphs)


def call_often(network, inputs, training=False):
    return [to_numpy(network(inputs, training=training)) for _ in range(PLAIN_CALLS + 1)]


@pytest.mark.parametrize(
    ("name", "training", "dtype"),
    [
        *itertools.product(NETWORKS, [False, True], ["float32"]),
        ("light_unet", True, "mixed_bfloat16"),
        ("dit", False, "mixed_bfloat16"),
        ("pixel_transformer", True, "mixed_float16"),
    ],
)
def test_traced_calls_are_the_calls(name, training, dtype):
    network, inputs = network_of(name, dtype)
    outputs = call_often(network, inputs, training)
    assert traced(network) == 1
    for output in outputs[1:]:
        np.testing.assert_array_equal(output, outputs[0])
    other = [ops.flip(x, axis=0) for x in inputs]
    np.testing.assert_array_equal(to_numpy(network(other, training=training)), to_numpy(network(other)))
    assert np.abs(to_numpy(network(other, training=training)) - outputs[0]).max() > 1e-3


@pytest.mark.parametrize("name", ["unet", "dit", "pixel_transformer"])
def test_constants_are_copied_once(name):
    """A call of the graph copies none: on a GPU that would be a wait for the host, which no CUDA graph can hold."""
    network, inputs = network_of(name)
    call_often(network, inputs)
    (graph,) = network._trace.graphs.values()
    constants = [node for node in graph.graph.nodes if node.op == "get_attr"]
    assert constants
    users = [str(user.target) for node in constants for user in node.users]
    assert not [user for user in users if "copy" in user]


@pytest.mark.parametrize("dtype", DTYPES)
def test_present_weights_count(dtype):
    network, inputs = network_of("dit", dtype)
    before = call_often(network, inputs)[-1]
    randomize_weights(network, seed=1)
    now = to_numpy(network(inputs, training=False))
    np.testing.assert_array_equal(now, to_numpy(network(inputs)))
    assert np.abs(now - before).max() > 1e-3
    with stateless(network):
        np.testing.assert_array_equal(to_numpy(network(inputs, training=False)), now)


@pytest.mark.parametrize(("name", "dtype"), [("unet", "float32"), ("dit", "mixed_bfloat16")])
def test_gradients_reach_weights_and_inputs(name, dtype):
    network, inputs = network_of(name, dtype)

    def slopes():
        loss = ops.sum(ops.square(network(inputs, training=True)))
        loss.backward()
        found = [to_numpy(weight.value.grad).copy() for weight in network.trainable_weights]
        for weight in network.trainable_weights:
            weight.value.grad = None
        return found

    first = slopes()
    for _ in range(PLAIN_CALLS):
        last = slopes()
    assert traced(network) == 1
    for a, b in zip(first, last, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)

    def by_x():
        return to_numpy(gradient(lambda x: network([x, *inputs[1:]], training=False), inputs[0]))

    first = by_x()
    for _ in range(PLAIN_CALLS):
        np.testing.assert_allclose(by_x(), first, rtol=1e-5, atol=1e-6)
    assert traced(network) == 2


def test_training_and_sampling_are_what_they_were(monkeypatch):
    def run():
        keras.utils.set_random_seed(0)
        network, _ = network_of()
        model = DDPM(network, seed=0)
        model.compile(keras.optimizers.AdamW(1e-3, use_ema=True))
        swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
        history = model.fit(np.tile(X, (8, 1, 1, 1)), batch_size=2, epochs=2, verbose=0, callbacks=[swap])
        samples = model.sample(3, sampler=DDIMSampler(12), seed=0, verbose=0)
        return history.history["loss"], samples, traced(network)

    fast = run()
    monkeypatch.setattr(trace, "PLAIN_CALLS", 10**6)
    plain = run()
    assert fast[2] > 1
    assert plain[2] == 0
    np.testing.assert_allclose(fast[0], plain[0], rtol=1e-5)
    np.testing.assert_allclose(fast[1], plain[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_changed_network_is_traced_again(dtype):
    network, inputs = network_of("dit", dtype)
    call_often(network, inputs)
    dense = next(layer for layer in network._flatten_layers() if isinstance(layer, keras.layers.Dense))
    dense.enable_lora(2)
    dense.lora_kernel_b.assign(RNG.standard_normal(dense.lora_kernel_b.shape))
    for output in call_often(network, inputs) + call_often(network, inputs):
        np.testing.assert_array_equal(output, to_numpy(network(inputs)))
    assert traced(network) == 1
    network.trainable = False
    np.testing.assert_array_equal(call_often(network, inputs)[-1], to_numpy(network(inputs)))


def test_long_calls_are_not_traced(monkeypatch):
    monkeypatch.setattr(trace, "LONGEST_CALL", 0.0)
    network, inputs = network_of("dit")
    outputs = call_often(network, inputs) + call_often(network, inputs)
    assert traced(network) == 0
    for output in outputs[1:]:
        np.testing.assert_array_equal(output, outputs[0])


def test_the_number_of_graphs_has_a_bound(monkeypatch):
    monkeypatch.setattr(trace, "KEPT", 2)
    network, inputs = network_of("pixel_transformer")
    plain = [call_often(network, [x[:n] for x in inputs]) for n in (1, 2, 3, 1)]
    assert traced(network) == 2
    np.testing.assert_array_equal(plain[0], plain[3])


@pytest.mark.parametrize(
    ("of", "dtype"), [*itertools.product(["network", "model", "layer"], ["float32"]), ("layer", "mixed_bfloat16")]
)
def test_a_quantized_network_is_called_normally(of, dtype):
    network, inputs = network_of("dit", dtype)
    before = call_often(network, inputs)[-1]
    dense = next(layer for layer in network._flatten_layers() if isinstance(layer, keras.layers.Dense))
    {"network": network, "model": DDPM(network), "layer": dense}[of].quantize("int8")
    quantized = to_numpy(network(inputs))
    assert np.abs(quantized - before).max() > 1e-6
    np.testing.assert_array_equal(call_often(network, inputs)[-1], quantized)


def test_lora_in_a_frozen_network():
    network, inputs = network_of("dit")
    network.trainable = False
    before = call_often(network, inputs)[-1]
    dense = next(layer for layer in network._flatten_layers() if isinstance(layer, keras.layers.Dense))
    dense.enable_lora(2)
    dense.lora_kernel_b.assign(RNG.standard_normal(dense.lora_kernel_b.shape))
    after = call_often(network, inputs)[-1]
    np.testing.assert_array_equal(after, to_numpy(network(inputs)))
    assert np.abs(after - before).max() > 1e-3


def test_one_tensor_given_twice():
    network, (x, t, labels) = network_of("unet_labels")
    call_often(network, [x, labels, labels])
    np.testing.assert_array_equal(to_numpy(network([x, t, labels], training=False)), to_numpy(network([x, t, labels])))


def test_other_strides():
    network, (x, t) = network_of()
    wide = ops.convert_to_tensor(RNG.standard_normal((8, 8, 1, 3), "float32"))
    call_often(network, [x, t])
    turned = wide.permute(3, 0, 1, 2)
    np.testing.assert_array_equal(to_numpy(network([turned, t], training=False)), to_numpy(network([turned, t])))


def test_in_threads():
    """Tracing touches what all threads share: it is left to the main one."""
    pairs = [network_of() for _ in range(3)]
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        outputs = list(pool.map(lambda pair: call_often(*pair)[-1], pairs))
    assert not any(traced(network) for network, _ in pairs)
    for output, (network, inputs) in zip(outputs, pairs, strict=True):
        np.testing.assert_array_equal(call_often(network, inputs)[-1], output)


def test_in_a_checkpoint():
    import torch

    network, inputs = network_of()
    for _ in range(PLAIN_CALLS + 1):
        y = torch.utils.checkpoint.checkpoint(
            lambda *inputs: network(list(inputs), training=True), *inputs, use_reentrant=False
        )
        y.sum().backward()
    assert traced(network) == 0


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_in_a_layer_of_another_dtype(dtype):
    network, inputs = network_of("dit", dtype)
    call_often(network, inputs)

    class Outer(keras.layers.Layer):
        def call(self, x):
            return network([x, inputs[1]], training=False)

    outer = Outer(dtype="mixed_bfloat16")
    first = to_numpy(ops.cast(outer(inputs[0]), "float32"))
    for _ in range(PLAIN_CALLS + 1):
        np.testing.assert_array_equal(to_numpy(ops.cast(outer(inputs[0]), "float32")), first)


@pytest.mark.parametrize("part", ["loss", "gradient"])
def test_what_a_trace_would_miss(part):
    class Part(keras.layers.Layer):
        def call(self, x):
            if part == "loss":
                self.add_loss(ops.mean(x))
                return x
            return ops.custom_gradient(lambda x: (2 * x, lambda *_, upstream: 5 * upstream))(x)

    x = ops.convert_to_tensor(X)
    x.requires_grad_()
    model = keras.Sequential([keras.Input(SHAPE), Part()])
    trace_of_model = Trace(model, lambda inputs, training: model(inputs[0], training=training))
    for _ in range(PLAIN_CALLS + 2):
        trace_of_model([x], True)
        assert part == "gradient" or len(model.losses) == 1
    assert not trace_of_model.graphs


def test_hooks_are_called():
    network, inputs = network_of()
    call_often(network, inputs)
    seen = []
    handle = network.get_layer("middle_block_0").register_forward_hook(lambda *arguments: seen.append(1))
    call_often(network, inputs)
    assert len(seen) == PLAIN_CALLS + 1
    handle.remove()
    call_often(network, inputs)
    assert len(seen) == PLAIN_CALLS + 1


def test_a_copy_runs_on_its_own_weights():
    network, inputs = network_of()
    before = call_often(network, inputs)[-1]
    twin = copy.deepcopy(network)
    randomize_weights(twin, seed=1)
    assert np.abs(call_often(twin, inputs)[-1] - before).max() > 1e-3
    np.testing.assert_array_equal(to_numpy(network(inputs, training=False)), before)


def test_a_recomputing_network_is_not_traced():
    network = UNet(SHAPE, (8, 16), 1, remat=True)
    call_often(network, [ops.convert_to_tensor(x) for x in INPUTS], training=True)
    assert traced(network) == 0


def test_dropout_draws_anew():
    network = UNet(SHAPE, (8, 16), 1, dropout=0.5)
    randomize_weights(network)
    outputs = call_often(network, [ops.convert_to_tensor(x) for x in INPUTS], training=True)
    for one, other in itertools.pairwise(outputs):
        assert np.abs(one - other).max() > 1e-3


@pytest.mark.parametrize("layer", [keras.layers.Dropout(0.5, seed=0), keras.layers.BatchNormalization()])
def test_state_goes_on(layer):
    """Random generators with a seed, and running statistics."""
    x = ops.convert_to_tensor(RNG.standard_normal((4, 3), "float32"))
    model, twin = (
        keras.Sequential([keras.Input((3,)), part]) for part in (layer, type(layer).from_config(layer.get_config()))
    )
    trace_of_model = Trace(model, lambda inputs, training: model(inputs, training=training))
    for _ in range(PLAIN_CALLS + 2):
        np.testing.assert_array_equal(to_numpy(trace_of_model([x], True)), to_numpy(twin([x], training=True)))
    for ours, theirs in zip(model.variables, twin.variables, strict=True):
        np.testing.assert_array_equal(to_numpy(ours), to_numpy(theirs))
    assert not trace_of_model.graphs


def test_transformed_and_symbolic_calls_pass_by():
    network, inputs = network_of("light_unet")
    call_often(network, inputs)
    _, slopes = ops.jvp(lambda x: network([x, inputs[1]], training=False), (inputs[0],), (inputs[0],))
    _, plain = ops.jvp(lambda x: network([x, inputs[1]]), (inputs[0],), (inputs[0],))
    np.testing.assert_array_equal(to_numpy(slopes), to_numpy(plain))
    x, t = keras.Input(SHAPE), keras.Input((), dtype="int32")
    assert tuple(network([x, t], training=False).shape) == (None, *SHAPE)


def test_in_compiled_functions_and_inference_mode():
    import torch

    network, inputs = network_of()
    call = compiled(network, lambda *inputs: network(list(inputs), training=False))
    first = to_numpy(call(*inputs))
    for _ in range(PLAIN_CALLS):
        np.testing.assert_array_equal(to_numpy(call(*inputs)), first)
    with torch.inference_mode():
        np.testing.assert_array_equal(call_often(network, inputs)[-1], first)
    np.testing.assert_array_equal(to_numpy(network(inputs, training=False)), first)
