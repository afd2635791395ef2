"""`UNet.from_diffusers` against diffusers' own `UNet2DModel`, with random weights."""

import json
import sys

import numpy as np
import pytest
from offenders import not_refused

import keras_gen
from keras_gen.core.fixtures import randomize_weights, save_and_load, to_numpy
from keras_gen.models import UNet, UNetConventions

pytest.importorskip("diffusers")
import torch
from diffusers import UNet2DModel
from foreign import with_older_names_of_attention
from safetensors.numpy import load_file, save_file

WEIGHTS = "diffusion_pytorch_model.safetensors"
T = np.array([3, 977], "int32")
PLAIN = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
SMALL = {
    "sample_size": 8,
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
}
DDPM = {
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "downsample_padding": 0,
    "norm_eps": 1e-6,
    "attention_head_dim": None,
}
CONFIGS = {
    "defaults": {},
    "ddpm": DDPM,
    "attention_in_levels": {
        "block_out_channels": (8, 8, 16),
        "down_block_types": ("AttnDownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D", "AttnUpBlock2D"),
        "attention_head_dim": 4,
        "layers_per_block": 2,
    },
    "classes": {**PLAIN, "num_class_embeds": 5, "out_channels": 6},
    "no_middle_any_size": {**PLAIN, "mid_block_type": None, "sample_size": None, "act_fn": "swish"},
    "scale_shift": {**PLAIN, "resnet_time_scale_shift": "scale_shift", "add_attention": False},
    "norm_of_middle": {"resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 4},
    "gray": {
        "sample_size": 32,
        "in_channels": 1,
        "out_channels": 1,
        "layers_per_block": 2,
        "block_out_channels": (32, 64, 64),
        "down_block_types": ("DownBlock2D",) * 3,
        "up_block_types": ("UpBlock2D",) * 3,
        "norm_num_groups": 8,
        "add_attention": False,
    },
}


def peer(**config):
    torch.manual_seed(0)
    model = UNet2DModel(**{**SMALL, **config}).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:  # PyTorch starts normalizations at one and zero, which would hide exchanges
                parameter.add_(0.2 * torch.randn_like(parameter))
            assert parameter.abs().max() > 0, name
    return model


def outputs(theirs, ours, size=8):
    channels = theirs.config.in_channels
    x = np.random.default_rng(0).normal(size=(2, size, size, channels)).astype("float32")
    labels = [] if theirs.config.num_class_embeds is None else [np.array([4, 1], "int32")]
    with torch.no_grad():
        expected = theirs(
            torch.from_numpy(x.transpose(0, 3, 1, 2)), torch.from_numpy(T), *map(torch.from_numpy, labels)
        )
    return to_numpy(ours([x, T, *labels])), expected.sample.numpy().transpose(0, 2, 3, 1)


@pytest.mark.parametrize("name", CONFIGS)
def test_instance(name):
    theirs = peer(**CONFIGS[name])
    ours = UNet.from_diffusers(theirs)
    actual, expected = outputs(theirs, ours, 32 if name == "gray" else 8)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)
    assert np.abs(expected).max() > 0.1
    assert ours.count_params() - (32 if name == "classes" else 0) == sum(p.numel() for p in theirs.parameters())


def test_null_class_adds_nothing():
    ours = UNet.from_diffusers(peer(**CONFIGS["classes"]))
    vectors = to_numpy(ours.get_layer("label_embedding").embeddings)
    assert ours.num_classes == 5
    assert vectors.shape == (6, 32)
    assert not vectors[5].any()
    assert vectors[:5].any(axis=1).all()


def test_folder(tmp_path):
    theirs = peer(**DDPM)
    theirs.save_pretrained(tmp_path)
    for source in (tmp_path, str(tmp_path)):
        ours = UNet.from_diffusers(source)
        np.testing.assert_allclose(*outputs(theirs, ours), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(*outputs(theirs, save_and_load(ours)), rtol=1e-5, atol=1e-5)


def test_older_names_of_attention(tmp_path):
    theirs = peer()
    theirs.save_pretrained(tmp_path)
    assert with_older_names_of_attention(tmp_path / WEIGHTS) > 0
    np.testing.assert_allclose(*outputs(theirs, UNet.from_diffusers(tmp_path)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"_class_name": "UNet2DConditionModel"}, "`_class_name` must be 'UNet2DModel' for a UNet"),
        ({"center_input_sample": True}, "`center_input_sample` must be False for a UNet. Received: .*=True"),
        ({"time_embedding_type": "fourier"}, "`time_embedding_type` must be 'positional' for a UNet"),
        ({"time_embedding_dim": 64}, "`time_embedding_dim` must be 32 or None for a UNet. Received: .*=64"),
        ({"mid_block_scale_factor": 2.0}, "`mid_block_scale_factor` must be 1 for a UNet"),
        ({"downsample_padding": 2}, "`downsample_padding` must be 1 or 0 for a UNet"),
        ({"downsample_type": "resnet"}, "`downsample_type` must be 'conv' for a UNet"),
        ({"upsample_type": "resnet"}, "`upsample_type` must be 'conv' for a UNet"),
        ({"act_fn": "gelu"}, "`act_fn` must be 'silu' or 'swish' for a UNet"),
        ({"class_embed_type": "timestep"}, "`class_embed_type` must be None for a UNet"),
        ({"resnet_time_scale_shift": "spatial"}, "`resnet_time_scale_shift` must be 'default' or 'scale_shift'"),
        ({"resnet_time_scale_shift": "scale_shift"}, "`attn_norm_num_groups` must be 4 for a UNet. Received: .*=None"),
        ({"attn_norm_num_groups": 2}, "`attn_norm_num_groups` must be None or 4 for a UNet"),
        ({"attention_head_dim": 3}, "`attention_head_dim` must divide the widths"),
        ({"block_out_channels": [7, 16]}, "`block_out_channels` must start with an even number"),
        ({"block_out_channels": [8, 16, 16]}, "`block_out_channels` must have 2 entries"),
        ({"freq_shift": 4}, "`freq_shift` must be < 4"),
        ({"down_block_types": ["SkipDownBlock2D"] * 2}, "`down_block_types` must consist of DownBlock2D and Attn"),
        ({"up_block_types": ["UpBlock2D", "ResnetUpsampleBlock2D"]}, "`up_block_types` must consist of UpBlock2D and"),
        ({"up_block_types": ["UpBlock2D", "AttnUpBlock2D"]}, "`up_block_types` must mirror"),
    ],
)
def test_refused_configurations(config, message, tmp_path):
    save_file({}, tmp_path / WEIGHTS)
    (tmp_path / "config.json").write_text(json.dumps({**SMALL, **config}))
    with pytest.raises(ValueError, match=message):
        UNet.from_diffusers(tmp_path)


def test_refused_weights(tmp_path):
    peer().save_pretrained(tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    name = "up_blocks.0.attentions.1.to_k.weight"
    for change, message in (
        ({"up_blocks.7.weight": np.zeros(1)}, "contain only a UNet.s weights. Received: source=up_blocks.7.weight"),
        ({name: None}, f"`source` must contain the weight {name}"),
        ({"conv_in.weight": np.zeros((8, 3, 1, 1))}, r"contain conv_in.weight of shape \(8, 3, 3, 3\)"),
    ):
        changed = {key: tensor for key, tensor in {**tensors, **change}.items() if tensor is not None}
        save_file(changed, tmp_path / WEIGHTS)
        with pytest.raises(ValueError, match=message):
            UNet.from_diffusers(tmp_path)


def test_values_of_a_configuration_that_make_no_sense_are_refused_by_name(tmp_path):
    peer().save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    wrong = {
        "block_out_channels": (8, "8", [], [8, "x"], [8, 0], None, [8, 10**9]),
        "freq_shift": ("x", None, float("nan"), [1]),
        "attention_head_dim": (0, -1, 2.5, "8"),
        "sample_size": ([8], [8, 8, 8], 0, "8", 10**9, [8, "8"]),
        "layers_per_block": (10**7, 0, 1.5, "2", [1, 1], None),
        "flip_sin_to_cos": ("no", 1, None),
        "add_attention": ("no", 1),
        "norm_num_groups": (0, "4", None, 3, 10**9),
        "norm_eps": (0, -1, "x", float("nan")),
        "dropout": (1, -0.1, "x", None),
        "in_channels": (0, "3", None, 10**9),
        "out_channels": (0, "3", None, 10**9),
        "num_class_embeds": (0, "3", 10**9),
        "down_block_types": ("DownBlock2D", None, 3, [3, 4], []),
        "up_block_types": (None, {}, [None, None]),
        "mid_block_type": ("x", [], 3),
        "center_input_sample": ("no",),
        "time_embedding_dim": ("x", []),
        "attn_norm_num_groups": ("x", [], 0),
    }
    cases = []
    for key, values in wrong.items():
        for i, value in enumerate(values):
            folder = tmp_path / f"{key}_{i}"
            folder.mkdir()
            (folder / WEIGHTS).symlink_to(tmp_path / WEIGHTS)
            (folder / "config.json").write_text(json.dumps({**saved, key: value}))
            match = rf"`source` must have .*Received: source={folder}/config.json: .*(must|divi)"
            cases.append((f"{key}={value}", lambda folder=folder: UNet.from_diffusers(folder), match))
    assert not not_refused(cases)


def test_damaged_files_are_refused_by_name(tmp_path):
    peer().save_pretrained(tmp_path)
    config, weights = (tmp_path / "config.json").read_bytes(), (tmp_path / WEIGHTS).read_bytes()
    texts = {f"text_{i}": text for i, text in enumerate((b"{", b"", b"[]", b"null", b"3", b"\xff", b"[" * 100_000))}
    files = {name: ("config.json", text, weights) for name, text in texts.items()}
    cut = [weights[:n] for n in (0, 4, 100, len(weights) // 2, len(weights) - 1)]
    flipped = [weights[:i] + bytes([weights[i] ^ 0xFF]) + weights[i + 1 :] for i in (0, 7, 8, 20, 60)]
    tensors = load_file(tmp_path / WEIGHTS)
    name = "conv_in.weight"
    for i, tensor in enumerate((np.full((8, 3, 3, 3), np.nan, "float32"), np.ones((8, 3, 3, 3), "int64"))):
        save_file({**tensors, name: tensor}, tmp_path / "changed")
        files[f"tensor_{i}"] = (WEIGHTS, config, (tmp_path / "changed").read_bytes())
    files |= {f"weights_{i}": (WEIGHTS, config, content) for i, content in enumerate([*cut, *flipped])}
    cases = []
    for name, (file, own_config, own_weights) in files.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_bytes(own_config)
        (folder / WEIGHTS).write_bytes(own_weights)
        match = rf"`source` must have .*Received: source={folder}/{file}"
        cases.append((name, lambda folder=folder: UNet.from_diffusers(folder), match))
    assert not not_refused(cases)


def test_a_model_that_is_not_supported_is_named():
    with pytest.raises(ValueError, match="Received: source=UNet2DModel: `upsample_type` must be 'conv'"):
        UNet.from_diffusers(peer(upsample_type="resnet"))


def test_refused_sources(tmp_path):
    with pytest.raises(ValueError, match="`source` must be a UNet2DModel, or a folder with config.json"):
        UNet.from_diffusers(tmp_path)
    peer().save_pretrained(tmp_path, safe_serialization=False)
    with pytest.raises(ValueError, match="pickles in particular. Received: .*diffusion_pytorch_model.bin"):
        UNet.from_diffusers(tmp_path)
    with pytest.raises(ValueError, match="`source` must be a UNet2DModel, or a folder.*Received: source=int"):
        UNet.from_diffusers(3)


def test_missing_safetensors(tmp_path, monkeypatch):
    peer().save_pretrained(tmp_path)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(ImportError, match="need `pip install safetensors`"):
        UNet.from_diffusers(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_files_in_half_precision(dtype, tmp_path):
    theirs = peer(**PLAIN).to(dtype)
    theirs.save_pretrained(tmp_path)
    ours = UNet.from_diffusers(tmp_path)
    assert {weight.dtype for weight in ours.weights} == {"float32"}
    np.testing.assert_allclose(*outputs(theirs.float(), ours), rtol=1e-5, atol=1e-5)


def written(network, folder):
    """The model of diffusers that reads what a network writes."""
    network.to_diffusers(folder)
    model, report = UNet2DModel.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    return model.eval()


@pytest.mark.parametrize("name", CONFIGS)
def test_round_trip_is_exact(name, tmp_path):
    theirs = peer(**CONFIGS[name])
    theirs.save_pretrained(tmp_path / "source")
    UNet.from_diffusers(tmp_path / "source").to_diffusers(tmp_path / "copy")
    expected, actual = (load_file(tmp_path / folder / WEIGHTS) for folder in ("source", "copy"))
    assert actual.keys() == expected.keys()
    for key, tensor in expected.items():
        np.testing.assert_array_equal(actual[key], tensor, err_msg=key)
    assert not UNet2DModel.from_pretrained(tmp_path / "copy", output_loading_info=True)[1]["missing_keys"]


def test_written_here_and_evaluated_there(tmp_path):
    groups = UNetConventions(groups=4, max_period=5000.0, symmetric_padding=True, head_dim=4, scale_shift=True)
    ours = UNet((8, 16, 3), (8, 16), 1, attention_levels=(1,), num_classes=3, out_channels=6, conventions=groups)
    randomize_weights(ours)
    theirs = written(ours, tmp_path)
    x = np.random.default_rng(0).normal(size=(2, 8, 16, 3)).astype("float32")
    labels = np.array([1, 3], "int32")  # the last one is the null class
    with torch.no_grad():
        expected = theirs(torch.from_numpy(x.transpose(0, 3, 1, 2)), torch.from_numpy(T), torch.from_numpy(labels))
    np.testing.assert_allclose(
        to_numpy(ours([x, T, labels])), expected.sample.numpy().transpose(0, 2, 3, 1), rtol=1e-5, atol=1e-5
    )


def test_what_has_no_equal_there_is_refused(tmp_path):
    shuffle = keras_gen.layers.PixelShuffle2D()
    cases = [
        ("tokens", {"condition_dim": (None, 4), "attention_levels": (1,)}, "`condition_dim` must be None for a UNet2D"),
        ("vectors", {"condition_dim": 4}, "`condition_dim` must be None for a UNet2DModel"),
        ("upsampling", {"upsampling": shuffle}, "`upsampling` must be None for a UNet2DModel"),
        ("groups", {"widths": (8, 64)}, "`widths` must have one number of groups for a UNet2DModel.*groups .2, 8"),
        ("odd", {"widths": (7, 14)}, "`widths` must start with an even number for a UNet2DModel"),
    ]
    networks = [(name, UNet((8, 8, 1), **{"widths": (32, 32), **arguments}), match) for name, arguments, match in cases]
    calls = [(name, lambda own=network: own.to_diffusers(tmp_path), match) for name, network, match in networks]
    assert not not_refused(calls)
    assert not list(tmp_path.iterdir())
