"""`AutoencoderKL.from_diffusers` against diffusers' own `AutoencoderKL`, with random weights."""

import json

import keras
import numpy as np
import pytest
from keras import ops
from offenders import not_refused

from keras_gen import models
from keras_gen.core.fixtures import to_numpy

pytest.importorskip("diffusers")
import torch
from diffusers import AutoencoderKL
from foreign import with_older_names_of_attention, wrong_gradients
from safetensors.numpy import load_file

WEIGHTS = "diffusion_pytorch_model.safetensors"
SMALL = {
    "block_out_channels": (8, 16),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "sample_size": 16,
}
# As in Stable Diffusion 1 and 3.
CONFIGS = {
    "sd": {},
    "sd3": {
        "block_out_channels": (8, 8, 16),
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
        "layers_per_block": 2,
        "latent_channels": 6,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
        "scaling_factor": 1.5305,
        "shift_factor": 0.0609,
        "force_upcast": False,
    },
}
X = np.random.default_rng(0).uniform(-1, 1, (2, 8, 12, 3)).astype("float32")


def peer(**config):
    """Returns an autoencoder with all weights jittered: norms of 1 and 0 would hide exchanges."""
    torch.manual_seed(0)
    model = AutoencoderKL(**{**SMALL, **config}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def channels_first(x):
    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


def channels_last(x):
    return x.detach().numpy().transpose(0, 2, 3, 1)


def outputs(theirs, x=X):
    """Returns mean, log-variance and the decoded mean."""
    latents = theirs.encode(channels_first(x)).latent_dist
    return latents.mean, latents.logvar, theirs.decode(latents.mean).sample


def same_outputs(ours, theirs):
    with torch.no_grad():
        expected = [channels_last(output) for output in outputs(theirs)]
    mean, log_var, z = *map(to_numpy, ours.encoder(X)), ours.encode(X)
    for a, b in zip((mean, log_var, ours.decode(z), z), [*expected, expected[0]], strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max())


@pytest.mark.parametrize("name", CONFIGS)
def test_read_and_written(name, tmp_path):
    theirs = peer(**CONFIGS[name])
    theirs.save_pretrained(tmp_path / "theirs")
    ours = models.AutoencoderKL.from_diffusers(tmp_path / "theirs")
    same_outputs(ours, theirs)
    assert ours.count_params() == theirs.num_parameters()
    assert (ours.image_shape, ours.scaling_factor) == ((16, 16, 3), theirs.config.scaling_factor)
    assert ours.shift_factor == (theirs.config.shift_factor or 0)

    ours.to_diffusers(tmp_path / "ours")
    source, written = (load_file(tmp_path / who / WEIGHTS) for who in ("theirs", "ours"))
    assert source.keys() == written.keys()
    assert all(np.array_equal(tensor, written[key]) for key, tensor in source.items())
    loaded = AutoencoderKL.from_pretrained(tmp_path / "ours", low_cpu_mem_usage=False).eval()
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(outputs(loaded), outputs(theirs), strict=True))
    config = {key: loaded.config[key] for key in CONFIGS[name].keys() | SMALL.keys() if key != "force_upcast"}
    expected = {key: theirs.config[key] for key in config}
    assert json.dumps(config) == json.dumps(expected)


def test_gradients_of_all_weights():
    """They are the steps of SGD at a learning rate of one."""
    theirs = peer()
    ours = models.AutoencoderKL.from_diffusers(theirs)
    generator = np.random.default_rng(1)
    expected = outputs(theirs)
    factors = [generator.normal(size=channels_last(output).shape).astype("float32") for output in expected]
    sum(
        (output * channels_first(factor)).sum() / 2 for output, factor in zip(expected, factors, strict=True)
    ).backward()
    gradients = {name: parameter.grad.numpy() for name, parameter in theirs.named_parameters()}

    x = keras.Input(X.shape[1:], batch_size=2)
    mean, log_var = ours.encoder(x)
    pairs = zip((mean, log_var, ours.decoder(mean)), factors, strict=True)
    scalar = keras.Model(x, sum(ops.sum(ops.reshape(output * factor, (2, -1)), axis=1) for output, factor in pairs))
    scalar.compile(keras.optimizers.SGD(1.0), loss=lambda _, sums: sums)
    offenders = wrong_gradients(ours.foreign_table(), gradients, lambda: scalar.train_on_batch(X, np.zeros(2)))
    assert not offenders, "\n".join(offenders)


def test_trained_here_it_runs_there(tmp_path):
    blocks = {"down_block_types": ("DownEncoderBlock2D",), "up_block_types": ("UpDecoderBlock2D",)}
    theirs = peer(**blocks, block_out_channels=(8,))
    ours = models.AutoencoderKL.from_diffusers(theirs)
    ours.compile(keras.optimizers.SGD(3e-4))
    losses = ours.fit(X, epochs=10, verbose=0).history["loss"]
    assert losses[-1] < 0.98 * losses[0]
    ours.to_diffusers(tmp_path)
    trained = AutoencoderKL.from_pretrained(tmp_path, low_cpu_mem_usage=False).eval()
    same_outputs(ours, trained)
    with torch.no_grad():
        assert (outputs(trained)[2] - outputs(theirs)[2]).abs().max() > 1e-2


def test_older_names_of_attention(tmp_path):
    theirs = peer()
    theirs.save_pretrained(tmp_path)
    assert with_older_names_of_attention(tmp_path / WEIGHTS) == 2
    same_outputs(models.AutoencoderKL.from_diffusers(tmp_path), theirs)


def test_refused_configurations(tmp_path):
    peer().save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    wrong = {
        "_class_name": ("VQModel", 3),
        "act_fn": ("gelu", None),
        "block_out_channels": (8, [], [8, "x"], [8, 10**9], [8, 16, 16], [8, 18], None),
        "down_block_types": (["AttnDownEncoderBlock2D"] * 2, ["DownEncoderBlock2D"], "DownEncoderBlock2D", None),
        "up_block_types": (["AttnUpDecoderBlock2D"] * 2, [["UpDecoderBlock2D"]], 3),
        "in_channels": (0, "3", 10**9, 1),
        "out_channels": (0, 4, 10**9, None),
        "latent_channels": (0, 2.5, 10**9),
        "layers_per_block": (0, [1, 1], 10**7),
        "norm_num_groups": (0, "4", 3),
        "sample_size": (0, 10**9, [16], [16, 0], 15, None, "16"),
        "scaling_factor": (0, "x", None, float("nan")),
        "shift_factor": ("x", [0.1], float("inf")),
        "latents_mean": ([0.0] * 4,),
        "latents_std": ([1.0] * 4,),
        "force_upcast": (1,),
        "use_quant_conv": (False, "no"),
        "use_post_quant_conv": (False, None),
        "mid_block_add_attention": (False,),
    }
    cases = []
    for key, value in ((key, value) for key, values in wrong.items() for value in values):
        folder = tmp_path / str(len(cases))
        folder.mkdir()
        (folder / WEIGHTS).symlink_to(tmp_path / WEIGHTS)
        (folder / "config.json").write_text(json.dumps({**saved, key: value}))
        match = rf"`source` must have .*Received: source={folder}/config.json: .*must"
        cases.append((f"{key}={value}", lambda folder=folder: models.AutoencoderKL.from_diffusers(folder), match))
    assert not not_refused(cases)
