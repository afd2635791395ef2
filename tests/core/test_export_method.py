"""Exported methods: what `log_prob`, `encode` and `decode` return, in a process without this library and Keras."""

import math
from importlib.util import find_spec

import numpy as np
import pytest
from exported import BACKEND, FORMATS, read_back, skip_unless_installed
from keras import ops
from laws.models import MODELS
from offenders import not_refused

from keras_gen.core.exporting.graph import Graph, Input
from keras_gen.core.exporting.writers import writer_for
from keras_gen.core.fixtures import randomize_weights
from keras_gen.layers import AdditiveCoupling, Chain, Dequantize, Reshape, Scale
from keras_gen.models import Flow

RNG = np.random.default_rng(0)
LEVELS = 4
PIXELS = RNG.integers(0, LEVELS, (3, 8, 8, 1)).astype("int32")
X = (2 * PIXELS / (LEVELS - 1) - 1).astype("float32")
NOISE = RNG.random(X.shape, dtype="float32")
LABELS = np.arange(3, dtype="int32")
VECTORS = np.eye(3, dtype="float32")
# model, method, inputs
METHODS = [
    ("flow", "log_prob", {"x": X, "condition": VECTORS, "noise": NOISE}),
    ("vae", "encode", {"x": X}),
    ("vqvae", "decode", {"codes": RNG.integers(0, 8, (3, 4, 4)).astype("int32")}),
    ("pixel_cnn_labels", "log_prob", {"x": PIXELS, "condition": LABELS}),
]


def built(name):
    if name == "flow":
        model = Flow(Chain([Dequantize(LEVELS), Reshape(), AdditiveCoupling(units=[16])]), seed=0)
        model.build((None, 8, 8, 1), (None, 3))
    else:
        model = MODELS[name][0]()
        model.build((None, 8, 8, 1))
    randomize_weights(model)
    return model


def expected(model, method, inputs):
    if "noise" not in inputs:
        return getattr(model, method)(*inputs.values())
    # The flow behind `Dequantize`, at the data with their noise added.
    rest = Flow(Chain(model.bijector.bijectors[1:]))
    rest.build((None, 8, 8, 1), (None, 3))
    y = ((PIXELS + NOISE) / LEVELS).astype("float32")
    return rest.log_prob(y, inputs["condition"], verbose=0) - y[0].size * math.log(LEVELS)


@pytest.mark.parametrize("suffix", FORMATS)
def test_exported_methods_return_what_the_methods_return(suffix, tmp_path):
    skip_unless_installed(suffix)
    files, right = [], []
    for i, (name, method, inputs) in enumerate(METHODS):
        model, path = built(name), tmp_path / f"{i}{suffix}"
        model.export_method(path, method)
        files.append((path, method, inputs))
        right.append(expected(model, method, inputs))
    for (name, method, _), (whole, one), values in zip(METHODS, read_back(files), right, strict=True):
        assert whole.dtype == values.dtype
        np.testing.assert_allclose(whole, values, rtol=1e-5, atol=1e-5, err_msg=f"{name}.{method}")
        np.testing.assert_allclose(one, values[:1], rtol=1e-5, atol=1e-5, err_msg=f"{name}.{method} of one")


def endless(x):
    [y] = ops.while_loop(lambda y: ops.sum(y) < 1, lambda y: [y + 1], [x])
    return y


def test_refused(tmp_path):
    flow, late = built("flow"), Flow(Chain([Scale(), Dequantize(levels=2)]))
    late.build((None, 4))
    path = tmp_path / f"graph{FORMATS[-1]}"
    cases = [
        ("suffix", lambda: flow.export_method(tmp_path / "flow.pb", "encode"), "`path` must end with .onnx or"),
        (
            "method",
            lambda: flow.export_method(path, "sample"),
            "`method` must be one that Flow exports: 'log_prob', 'e",
        ),
        ("kind", lambda: flow.export_method(path, ["encode"]), r"`method` must be .*Received: method=\['encode'\]"),
        ("none", lambda: built("ddpm").export_method(path, "elbo"), "`method` must be .* DDPM exports: it has none"),
        ("unbuilt", lambda: Flow(Scale()).export_method(path, "encode"), "`model` must be built"),
        (
            "draws",
            lambda: late.export_method(path, "log_prob"),
            "`method` must draw nothing but.*, drawing from .*seed",
        ),
    ]
    if BACKEND == "torch" and find_spec("onnxscript"):
        graph = Graph("endless", endless, [Input("x", (None, 4))], "y", [])
        rule = "`endless` must consist of operations that torch can write as ONNX, not loops"
        cases.append(("loop", lambda: writer_for(path)(graph, path), rule))
    assert not not_refused(cases)
    assert not path.exists()
