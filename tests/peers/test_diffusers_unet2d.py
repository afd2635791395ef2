"""`UNet2DCondition` against diffusers' `UNet2DConditionModel`, with jittered weights."""

import json

import keras
import numpy as np
import pytest
from keras import ops
from offenders import not_refused
from programs import one_program

from keras_gen.core.fixtures import to_numpy
from keras_gen.models import UNet2DCondition

pytest.importorskip("diffusers")
import torch
from diffusers import UNet2DConditionModel
from foreign import wrong_gradients
from safetensors.numpy import load_file

WEIGHTS = "diffusion_pytorch_model.safetensors"
RNG = np.random.default_rng(0)
SMALL = {
    "sample_size": (8, 16),
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": (8, 12),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "cross_attention_dim": 10,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "attention_head_dim": 4,
}
LINEAR = {"use_linear_projection": True, "attention_head_dim": (4, 2)}
SIZED = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 6,
    "projection_class_embeddings_input_dim": 5 + 6 * 6,
}
# As Stable Diffusion 1, the one for inpainting, 2 and XL.
CONFIGS = {
    "sd1": {"norm_eps": 1e-3},
    "inpainting": {"in_channels": 9, "sample_size": None},
    "sd2": {
        **LINEAR,
        "upcast_attention": True,
        "block_out_channels": (8, 12, 12),
        "layers_per_block": 2,
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        "attention_head_dim": (2, 4, 6),
    },
    "xl": {
        **LINEAR,
        **SIZED,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2),
    },
}
SHORT = ("sd1", "xl")
T = np.array([3, 977], "int32")
# Two prompts, of 7 and 4 tokens: the shorter one is padded by zeros, which are attended to.
TOKENS = RNG.normal(size=(2, 7, 10)).astype("float32")
TOKENS[1, 4:] = 0
SIZES = np.array([[64, 48, 0, 3, 64, 64], [100, 50, 1, 0, 96, 64]], "float32")
SIZED_TEXT = {"tokens": TOKENS, "pooled": RNG.normal(size=(2, 5)).astype("float32"), "sizes": SIZES}
IMAGES = RNG.normal(size=(2, 8, 12, 9)).astype("float32")


def peer(name, **config):
    """Returns a model of diffusers with all weights jittered: norms of 1 and 0 would hide exchanges."""
    torch.manual_seed(0)
    model = UNet2DConditionModel(**{**SMALL, **CONFIGS[name], **config}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def inputs(model):
    is_sized = model.config.addition_embed_type is not None
    return [IMAGES[..., : model.config.in_channels], T, SIZED_TEXT if is_sized else TOKENS]


def theirs(model):
    """Returns the output of a model of diffusers, channels last, as a tensor of PyTorch."""
    x, t, condition = keras.tree.map_structure(torch.from_numpy, inputs(model))
    more = {}
    if isinstance(condition, dict):
        more = {"added_cond_kwargs": {"text_embeds": condition["pooled"], "time_ids": condition["sizes"]}}
        condition = condition["tokens"]
    return model(x.permute(0, 3, 1, 2), t, condition, **more).sample.permute(0, 2, 3, 1)


def assert_same_output(ours, model):
    given = keras.tree.map_structure(ops.convert_to_tensor, inputs(model))
    actual = to_numpy(one_program(ours, ours)(given))
    with torch.no_grad():
        expected = theirs(model).numpy()
    assert np.abs(expected).max() > 0.1
    assert np.abs(actual - expected).max() < 1e-5 * np.abs(expected).max()


def train_and_compare(ours, model):
    """Trains our network by ten steps, and returns the weights whose first gradients differ from those of diffusers."""
    target = np.ones(theirs(model).shape, "float32")
    (theirs(model) - torch.from_numpy(target)).square().mean().backward()
    expected = {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}
    rate = 1e4  # of a step that is all gradient, and no rounding of the weight
    ours.compile(keras.optimizers.SGD(rate), loss="mse")

    def step():
        ours.train_on_batch(inputs(model), target)

    offenders = wrong_gradients(ours.foreign_table(), expected, step, rate)
    ours.optimizer.learning_rate = 0.1
    for _ in range(10):
        step()
    return offenders


@pytest.mark.parametrize("name", CONFIGS)
def test_read_trained_and_written(name, tmp_path, request):
    """Outputs, files bit for bit, gradients, and what is trained here gives the same numbers there."""
    if name not in SHORT and not request.config.getoption("--all-cases"):
        pytest.skip("runs with --all-cases")
    model = peer(name)
    model.save_pretrained(tmp_path / "theirs")
    ours = UNet2DCondition.from_diffusers(tmp_path / "theirs")
    assert ours.count_params() == model.num_parameters()
    assert_same_output(ours, model)

    ours.to_diffusers(tmp_path / "ours")
    expected, written = (load_file(tmp_path / folder / WEIGHTS) for folder in ("theirs", "ours"))
    assert expected.keys() == written.keys()
    assert not [key for key, tensor in expected.items() if not np.array_equal(tensor, written[key])]
    loaded = UNet2DConditionModel.from_pretrained(tmp_path / "ours", low_cpu_mem_usage=False)
    assert not differences(loaded.config, model.config)

    offenders = train_and_compare(ours, model)
    assert not offenders, "\n".join(offenders)
    ours.to_diffusers(tmp_path / "trained")
    trained = UNet2DConditionModel.from_pretrained(tmp_path / "trained", low_cpu_mem_usage=False).eval()
    with torch.no_grad():
        assert (theirs(trained) - theirs(model)).abs().max() > 1e-2
    assert_same_output(ours, trained)


def differences(actual, expected):
    """Returns the keys of two configurations that mean different networks."""
    by_level = ("attention_head_dim", "transformer_layers_per_block")
    levels = len(expected["block_out_channels"])

    def meaning(config, key):
        value = config[key]
        value = [value] * levels if key in by_level and isinstance(value, int) else value
        return list(value) if isinstance(value, tuple) else value

    keys = [key for key in expected if not key.startswith("_")]
    return [key for key in keys if meaning(actual, key) != meaning(expected, key)]


def test_refused(tmp_path):
    """Values of a configuration, and networks that diffusers does not have, each by its name."""
    wrong = {
        "sd1": {
            "center_input_sample": (True,),
            "flip_sin_to_cos": (False, None),
            "freq_shift": (1, "x"),
            "down_block_types": (["SimpleCrossAttnDownBlock2D"] * 2, ["DownBlock2D"], "DownBlock2D", None),
            "up_block_types": (["CrossAttnUpBlock2D"] * 2, [["UpBlock2D"]], 3),
            "mid_block_type": ("UNetMidBlock2DSimpleCrossAttn", None),
            "only_cross_attention": (True, [True, False]),
            "block_out_channels": ([8, "x"], [8, 12, 12], [9, 12], [8, 10**9], 8, None),
            "layers_per_block": ([1, 1], 0, 10**7),
            "norm_num_groups": (0, 3, None),
            "norm_eps": (0, "x", float("nan")),
            "cross_attention_dim": (0, [10, 10], 10**9, 11),
            "transformer_layers_per_block": (0, [1], [[1], [1]], 10**7),
            "reverse_transformer_layers_per_block": ([1, 1],),
            "attention_head_dim": (0, 5, [4], None),
            "num_attention_heads": (4,),
            "dual_cross_attention": (True,),
            "use_linear_projection": (True, "no"),
            "upcast_attention": ("no",),
            "class_embed_type": ("timestep",),
            "num_class_embeds": (5,),
            "addition_embed_type": ("text", "image"),
            "encoder_hid_dim": (16,),
            "resnet_time_scale_shift": ("scale_shift",),
            "time_embedding_type": ("fourier",),
            "time_embedding_dim": (64, "x"),
            "time_cond_proj_dim": (256,),
            "conv_in_kernel": (1,),
            "conv_out_kernel": (5,),
            "attention_type": ("gated",),
            "sample_size": (0, [8], 15, 10**9),
            "dropout": (1, None),
            "in_channels": (0, 4, 10**9),
            "out_channels": (0, 10**9),
        },
        "xl": {
            "addition_embed_type": (None,),
            "addition_time_embed_dim": (None, 5, 0, "x"),
            "projection_class_embeddings_input_dim": (None, 36, 10**9),
        },
    }
    cases = []
    for name, changes in wrong.items():
        peer(name).save_pretrained(tmp_path / name)
        config = json.loads((tmp_path / name / "config.json").read_text())
        for key, value in ((key, value) for key, values in changes.items() for value in values):
            folder = tmp_path / str(len(cases))
            folder.mkdir()
            (folder / WEIGHTS).symlink_to(tmp_path / name / WEIGHTS)
            (folder / "config.json").write_text(json.dumps({**config, key: value}))
            rule = rf"`source` must have .*Received: source={folder}/.*must"
            cases.append((f"{key}={value}", lambda folder=folder: UNet2DCondition.from_diffusers(folder), rule))
    for key, value in (("depths", (0, 2)), ("widths", (7, 8))):
        options = {"widths": (8, 8), "depths": (1, 0), "blocks_per_level": 1, "groups": 1, "num_heads": 1, key: value}
        network = UNet2DCondition((8, 8, 1), 4, **options)
        rule = rf"`{key}` must .* for a UNet2DConditionModel. Received: {key}="
        cases.append((key, lambda network=network: network.to_diffusers(tmp_path / "no"), rule))
    assert not not_refused(cases)
    assert not (tmp_path / "no").exists()
