"""Flows on PyTorch: traced calls are the calls, and what may branch is not traced."""

import copy

import keras
import numpy as np
import pytest
from keras import ops

from keras_gen import config
from keras_gen.core.fixtures import randomize_weights, to_numpy
from keras_gen.core.torch import trace
from keras_gen.layers import AffineCoupling, Chain, Dequantize, MaskedAutoregressive, Scale
from keras_gen.models import Flow
from keras_gen.ops import gradient

pytestmark = pytest.mark.skipif(keras.backend.backend() != "torch", reason="only PyTorch calls layer by layer")

X = np.random.default_rng(0).standard_normal((16, 4)).astype("float32")
CONDITION = X[:, :3]


@pytest.fixture(autouse=True)
def _soon_traced(monkeypatch):
    monkeypatch.setattr(trace, "PLAIN_CALLS", 2)
    yield
    config.enable_torch_fast_paths()


def flow_of(*bijectors, condition_shape=(None, 3)):
    flow = Flow(Chain(list(bijectors)), base="logistic", seed=0)
    flow.build((None, 4), condition_shape)
    randomize_weights(flow)
    return flow


def couplings():
    return [AffineCoupling(units=[8]), Scale(), AffineCoupling(units=[], flip=True)]


def call_often(function):
    return [function() for _ in range(4)][-1]


def graphs(flow):
    return len(flow._traced_density.trace.graphs), len(flow._traced_inverse.trace.graphs)


def values(flow, x=X):
    inputs = [ops.convert_to_tensor(array) for array in (x, CONDITION)]
    slope = gradient(lambda x: flow.log_density(x, inputs[1]), inputs[0])
    return [flow.log_prob(x, CONDITION), flow.decode(x, CONDITION), to_numpy(slope)]


def plain_values(flow, x=X):
    config.disable_torch_fast_paths()
    result = values(flow, x)
    config.enable_torch_fast_paths()
    return result


def assert_close(fast, plain):
    for a, b in zip(fast, plain, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_traced_calls_are_the_calls():
    flow = flow_of(*couplings())
    assert_close(call_often(lambda: values(flow)), plain_values(flow))
    assert graphs(flow) == (2, 1)  # of the density also the one with gradients
    assert_close(values(flow, 2 * X), plain_values(flow, 2 * X))
    randomize_weights(flow, seed=1)
    assert_close(values(flow), plain_values(flow))
    twin = copy.deepcopy(flow)
    randomize_weights(twin, seed=2)
    assert_close(call_often(lambda: [twin.log_prob(X, CONDITION)]), plain_values(twin)[:1])
    assert_close(values(flow), plain_values(flow))


def test_training_is_what_it_was():
    def fit():
        keras.utils.set_random_seed(0)
        flow = Flow(Chain(couplings()), seed=0)
        flow.compile(keras.optimizers.Adam(0.01))
        losses = flow.fit(X, batch_size=8, epochs=3, shuffle=False, verbose=0).history["loss"]
        return losses, graphs(flow)[0]

    fast, traced = fit()
    config.disable_torch_fast_paths()
    plain, none = fit()
    assert (traced, none) == (1, 0)
    np.testing.assert_allclose(fast, plain, rtol=1e-4)


def test_what_is_called_normally():
    """Layers that may branch, loop, draw, or are called again by autograd."""

    class Own(keras.layers.Layer):
        def call(self, inputs):
            x, condition = inputs
            return ops.tile(x if float(ops.max(x)) > 1 else condition[:, :2], (1, 2))

    flows = {
        "own layer": flow_of(AffineCoupling(Own())),
        "loop": flow_of(MaskedAutoregressive([8])),
        "draw": flow_of(Dequantize(4), *couplings()),
        "remat": flow_of(AffineCoupling(units=[8], remat=True)),
    }
    for flow in flows.values():
        call_often(lambda flow=flow: to_numpy(flow.log_density(*map(ops.convert_to_tensor, (X, CONDITION)))))
    assert {name: graphs(flow)[0] for name, flow in flows.items()} == dict.fromkeys(flows, 0)
