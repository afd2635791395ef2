"""Exported samplers: the images of `sample`, in a process that has neither this library nor Keras."""

import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from exported import BACKEND, FORMATS, read_back, skip_unless_installed
from laws import ddpm
from laws.models import continuous

from keras_gen import models
from keras_gen.core.checks import check_image_shape
from keras_gen.core.compiled import as_tensor, compiled
from keras_gen.core.fixtures import randomize_weights
from keras_gen.diffusion.models.exporting import SamplerGraph
from keras_gen.samplers import (
    ClassifierFreeGuidance,
    DDIMSampler,
    DDPMSampler,
    DPMSolverPPSampler,
    HeunSampler,
    ReverseSDESampler,
)

ROOT = pathlib.Path(__file__).parents[2]


def arrays_for(steps=None, n=3):
    generator = np.random.default_rng(0)
    draw = lambda *shape: generator.standard_normal((*shape, 8, 8, 1), "float32")  # noqa: E731
    arrays = {"noise": draw(n), "condition": np.arange(n, dtype="int32")}
    return arrays if steps is None else {**arrays, "step_noise": draw(steps, n)}


@pytest.fixture(scope="module")
def model():
    result = ddpm(num_classes=10)
    randomize_weights(result)
    return result


@pytest.mark.parametrize("suffix", FORMATS)
def test_exported_ddim_draws_the_same_images(model, suffix, tmp_path):
    skip_unless_installed(suffix)
    sampler, arrays = DDIMSampler(4, clip_x0=1.0), arrays_for()
    model.export_sampler(tmp_path / f"ddim{suffix}", sampler)
    [(whole, one)] = read_back([(tmp_path / f"ddim{suffix}", "sample", arrays)])
    expected = model.sample(3, sampler, arrays["condition"], noise=arrays["noise"], verbose=0)
    np.testing.assert_allclose(whole, expected, atol=1e-5)
    np.testing.assert_allclose(one, expected[:1], atol=1e-5)


@pytest.mark.parametrize("suffix", FORMATS)
def test_noise_of_the_steps_is_an_input(model, suffix, tmp_path):
    skip_unless_installed(suffix)
    sampler, arrays = DDPMSampler(3), arrays_for(steps=3)
    model.export_sampler(tmp_path / f"ddpm{suffix}", sampler)
    [(whole, _)] = read_back([(tmp_path / f"ddpm{suffix}", "sample", arrays)])
    options = {"noise": arrays["noise"], "step_noise": arrays["step_noise"], "verbose": 0}
    np.testing.assert_allclose(whole, model.sample(3, sampler, arrays["condition"], **options), atol=1e-5)


@pytest.mark.skipif(BACKEND != "jax", reason="TensorFlow is kept out of JAX's tests: another process writes")
def test_jax_writes_a_saved_model(tmp_path, request):
    if request.config.option.turn is not None:
        pytest.skip("a process with TensorFlow and JAX takes a GB: in a run of all cases")
    code = """
import sys
sys.path.insert(0, "tests")
import pathlib
import keras, numpy as np
from laws import ddpm
from keras_gen.core.fixtures import randomize_weights
from keras_gen.samplers import DDIMSampler
assert keras.backend.backend() == "jax"
model = ddpm(num_classes=10)
randomize_weights(model)
model.export_sampler(sys.argv[1], DDIMSampler(4, clip_x0=1.0))
"""
    command = [sys.executable, "-c", code, str(tmp_path / "ddim")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)
    if "No module named 'tensorflow'" in result.stderr:
        pytest.skip("TensorFlow is not installed")
    assert result.returncode == 0, result.stderr[-3000:]
    model, arrays = ddpm(num_classes=10), arrays_for()
    randomize_weights(model)
    [(whole, one)] = read_back([(tmp_path / "ddim", "sample", arrays)])
    expected = model.sample(3, DDIMSampler(4, clip_x0=1.0), arrays["condition"], noise=arrays["noise"], verbose=0)
    np.testing.assert_allclose(whole, expected, atol=1e-5)
    np.testing.assert_allclose(one, expected[:1], atol=1e-5)


GRAPHS = {
    "multistep": (ddpm, DPMSolverPPSampler(4), None, []),
    "two draws a step": (lambda: continuous(models.ScoreSDE), ReverseSDESampler(3, corrector_steps=1), None, [3, 2]),
    "noise of deviation above 1": (lambda: continuous(models.EDM), HeunSampler(3), None, []),
    "guidance": (
        lambda: continuous(models.ScoreSDE, labels=True, condition_dropout=0.1),
        DDIMSampler(3),
        ClassifierFreeGuidance(2.0),
        [],
    ),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_the_graph_is_the_loop_of_sample(name):
    make, sampler, guidance, draws = GRAPHS[name]
    model = make()
    randomize_weights(model)
    graph = SamplerGraph(model, sampler, guidance)
    generator = np.random.default_rng(0)
    given = {"noise": generator.standard_normal((3, 8, 8, 1), "float32")}
    if guidance is not None:
        given["condition"] = np.arange(3, dtype="int32")
    if draws:
        given["step_noise"] = generator.standard_normal((*draws, 3, 8, 8, 1), "float32")
    assert [one.name for one in graph.inputs] == list(given)
    images = compiled(None, graph)(*map(as_tensor, given.values()))
    expected = model.sample(3, sampler, guidance=guidance, verbose=0, **given)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(images), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(BACKEND != "torch", reason="PyTorch's exporter")
def test_the_network_exports_on_pytorch_for_any_batch(model, tmp_path):
    import torch

    network = models.UNet((8, 8, 1), (4, 8), 1)
    x, t = torch.randn(3, 8, 8, 1), torch.tensor([1, 2, 3], dtype=torch.int32)
    batch = torch.export.Dim("batch")

    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, x, t):
            return self.network([x, t], training=False)

    with torch.no_grad():
        exported = torch.export.export(Module(), (x, t), dynamic_shapes=({0: batch}, {0: batch}), strict=False).module()
        for n in (3, 2):
            torch.testing.assert_close(exported(x[:n], t[:n]), network([x[:n], t[:n]], training=False))
        traced = torch.jit.trace(Module(), (x, t), check_trace=False)
        torch.testing.assert_close(traced(x, t), network([x, t], training=False))


def test_wrong_sizes_are_refused_still():
    network = models.UNet((None, None, 1), (4, 8), 1)
    with pytest.raises(ValueError, match="`x_t` must have height and width that are multiples of 2"):
        network([np.zeros((1, 7, 8, 1), "float32"), np.zeros(1, "int32")])
    with pytest.raises(ValueError, match="`x_t` must be images"):
        check_image_shape("x_t", (8, 8), 2, "")


def test_refused(model, tmp_path):
    with pytest.raises(ValueError, match="`path` must end with .onnx or .stablehlo, or have no suffix"):
        model.export_sampler(tmp_path / "ddim.pb", DDIMSampler(2))
    with pytest.raises(ValueError, match="`sampler` must be a DiffusionSampler"):
        model.export_sampler(tmp_path / "ddim", "ddim")
    other = {"tensorflow": ".stablehlo", "jax": ".onnx", "torch": ".stablehlo"}[BACKEND]
    with pytest.raises(ValueError, match=f"`path` must have a suffix that {BACKEND} can write: with {other}, load the"):
        model.export_sampler(tmp_path / f"ddim{other}", DDIMSampler(2))
    if BACKEND == "torch":
        long = continuous(models.ScoreSDE)
        with pytest.raises(ValueError, match="`sampler` must have at most 50 steps for ONNX from PyTorch.*=51"):
            long.export_sampler(tmp_path / "ddim.onnx", DDIMSampler(51))
