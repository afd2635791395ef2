"""The features of FID against those of torch-fidelity, with random weights, and against the resizing of clean-fid."""

import pathlib
import runpy

import numpy as np
import pytest
from keras import ops

from keras_gen.core.compiled import compiled
from keras_gen.core.fixtures import to_numpy
from keras_gen.data import normalize_images
from keras_gen.models import FIDInception
from keras_gen.networks.backbones.fid_inception import SIZE, Pixels
from keras_gen.networks.blocks.resizing import bicubic_weights

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")
peer = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")

SCRIPT = pathlib.Path(__file__).parents[2] / "tools" / "convert_inception.py"
PIXELS = np.random.default_rng(0).integers(0, 256, (2, 24, 40, 3), dtype="uint8")
IMAGES = normalize_images(PIXELS)


def random_state(module):
    """Weights with which maps neither vanish nor explode, no two of which could be exchanged."""
    generator, state = torch.Generator().manual_seed(0), module.state_dict()
    for name, tensor in state.items():
        if tensor.is_floating_point():
            noise = torch.randn(tensor.shape, generator=generator)
            if tensor.ndim > 1:
                state[name] = noise * (2 / tensor[0].numel()) ** 0.5
            else:
                state[name] = 0.1 * noise + name.endswith(("bn.weight", "running_var"))
    return state


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """The file of a state with random weights, as PyTorch writes it."""
    path = tmp_path_factory.mktemp("inception") / "random.pth"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "load", lambda *args, **options: {})
        patch.setattr(torch.nn.Module, "load_state_dict", lambda module, state: None)
        module = peer.FeatureExtractorInceptionV3("unread", ["2048"], str(path))
    torch.save(random_state(module), path)
    return path


@pytest.fixture(scope="module")
def theirs(file):
    return peer.FeatureExtractorInceptionV3("random", ["2048"], str(file))


@pytest.fixture(scope="module")
def converted(file):
    state = torch.load(file, weights_only=True)
    target = file.with_suffix(".safetensors")
    safetensors.save_file(runpy.run_path(str(SCRIPT))["folded"](state), target)
    return target


def features_of(network, images):
    return to_numpy(compiled(network, network)(ops.convert_to_tensor(images)))


def clean(pixels):
    """Each channel by Pillow, in float32: what clean-fid hands to its network, channels first."""
    image = pytest.importorskip("PIL.Image")

    def resized(channel):
        return np.asarray(image.fromarray(channel).resize((SIZE, SIZE), image.Resampling.BICUBIC))

    channels = np.moveaxis(pixels.astype("float32"), -1, 1)
    return np.clip([[resized(channel) for channel in channels] for channels in channels], 0, 255)


def test_features_are_those_of_torch_fidelity(theirs, converted, monkeypatch):
    images = torch.from_numpy(np.moveaxis(PIXELS, -1, 1).copy())
    (expected,) = theirs(images)
    assert expected.std() > 0.1
    network = FIDInception.from_safetensors(converted, "legacy_tensorflow")
    np.testing.assert_allclose(features_of(network, IMAGES), expected.numpy(), atol=1e-4)
    resized = torch.from_numpy(clean(PIXELS))
    monkeypatch.setattr(peer, "interpolate_bilinear_2d_like_tensorflow1x", lambda images, **options: resized)
    (expected,) = theirs(images)
    network = FIDInception.from_safetensors(converted)
    np.testing.assert_allclose(features_of(network, IMAGES), expected.numpy(), atol=1e-4)


def test_resizing_is_that_of_clean_fid():
    resizer = pytest.importorskip("cleanfid.resize").build_resizer("clean")
    expected = np.stack([resizer(pixels) for pixels in PIXELS])
    actual = to_numpy(Pixels(bicubic_weights)(IMAGES))
    np.testing.assert_allclose(actual, (expected - 128) / 128, atol=1e-6)


def test_the_script_takes_no_other_file(file, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", [SCRIPT.name, str(file), str(file.with_name("out.safetensors"))])
    with pytest.raises(SystemExit):
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert "must be the file whose SHA-256 is 6726825d" in capsys.readouterr().err
    assert not file.with_name("out.safetensors").exists()
