"""`MMDiT` and `DiT` against diffusers' `SD3Transformer2DModel` and `DiTTransformer2DModel`, with jittered weights."""

import json

import keras
import numpy as np
import pytest
from keras import ops
from offenders import not_refused
from programs import one_program

from keras_gen.core.fixtures import to_numpy
from keras_gen.models import DiT, DiTConventions, MMDiT

pytest.importorskip("diffusers")
import torch
from diffusers import DiTTransformer2DModel, SD3Transformer2DModel
from foreign import wrong_gradients
from safetensors.numpy import load_file, save_file

WEIGHTS = "diffusion_pytorch_model.safetensors"
RNG = np.random.default_rng(0)
SD3 = {
    "sample_size": 16,
    "in_channels": 4,
    "out_channels": 6,
    "num_layers": 2,
    "attention_head_dim": 8,
    "num_attention_heads": 3,
    "joint_attention_dim": 10,
    "caption_projection_dim": 24,
    "pooled_projection_dim": 5,
    "pos_embed_max_size": 12,
}
PLAIN_DIT = {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 8,
    "num_layers": 2,
    "attention_head_dim": 8,
    "num_attention_heads": 3,
    "num_embeds_ada_norm": 5,
}
CONFIGS = {
    "sd3": SD3,
    "sd35": {**SD3, "qk_norm": "rms_norm"},
    "sd35_dual": {**SD3, "num_layers": 3, "qk_norm": "rms_norm", "dual_attention_layers": (0, 2), "out_channels": None},
    "dit": PLAIN_DIT,
    "dit_epsilon": {**PLAIN_DIT, "norm_eps": 1e-2, "patch_size": 4, "out_channels": None},
}
# Two prompts, of 7 and 4 tokens: the shorter one is padded by zeros, which are attended to.
TOKENS = RNG.normal(size=(2, 7, 10)).astype("float32")
TOKENS[1, 4:] = 0
X, SQUARE = (RNG.normal(size=shape).astype("float32") for shape in ((2, 10, 16, 4), (2, 8, 8, 4)))
T = np.array([3.5, 977], "float32")
TEXT = {"tokens": TOKENS, "pooled": RNG.normal(size=(2, 5)).astype("float32")}
LABELS = np.array([3, 5], "int32")  # 5 is the null class


def is_dit(name):
    return name.startswith("dit")


def peer(name, **config):
    """Returns a model of diffusers with jittered weights; the copies of a DiT's embedders stay equal."""
    torch.manual_seed(0)
    kind = DiTTransformer2DModel if is_dit(name) else SD3Transformer2DModel
    model = kind(**{**CONFIGS[name], **config}).eval()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.add_(0.05 * torch.randn_like(tensor))
        for block in model.transformer_blocks[1:] if is_dit(name) else []:
            block.norm1.emb.load_state_dict(model.transformer_blocks[0].norm1.emb.state_dict())
    return model


def ours(name, source):
    return (DiT if is_dit(name) else MMDiT).from_diffusers(source)


def inputs(name):
    return [SQUARE, T, LABELS] if is_dit(name) else [X, T, TEXT]


def theirs(model):
    """Returns the output of a model of diffusers, channels last, as a tensor of PyTorch."""
    x, t = torch.from_numpy(X), torch.from_numpy(T)
    if isinstance(model, DiTTransformer2DModel):
        x = torch.from_numpy(SQUARE)
        output = model(x.permute(0, 3, 1, 2), t, torch.from_numpy(LABELS))
    else:
        tokens, pooled = (torch.from_numpy(TEXT[key]) for key in ("tokens", "pooled"))
        output = model(x.permute(0, 3, 1, 2), tokens, pooled, t)
    return output.sample.permute(0, 2, 3, 1)


def assert_same_output(network, model, name, tolerance=1e-5):
    actual = to_numpy(one_program(network, network)(keras.tree.map_structure(ops.convert_to_tensor, inputs(name))))
    with torch.no_grad():
        expected = theirs(model).numpy()
    assert np.abs(expected).max() > 0.1
    assert np.abs(actual - expected).max() < tolerance * np.abs(expected).max()


def gradients(model, target):
    """Returns the gradients of the mean squared error by name, those of equal copies as their sum."""
    (theirs(model) - torch.from_numpy(target)).square().mean().backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    found = {name: torch.zeros(1) if grad is None else grad for name, grad in found.items()}
    summed = {}
    for name, grad in found.items():
        copies = [
            own for own in found if ".norm1.emb." in name and own.split(".norm1.")[1:] == name.split(".norm1.")[1:]
        ]
        summed[name] = sum(found[own] for own in copies).numpy() if copies else grad.numpy()
    return summed


def train_and_compare(network, model, name, steps=9):
    """Trains the network by steps, and returns the weights whose first gradients differ from those of diffusers."""
    target = RNG.normal(size=network.output_shape[-1:]).astype("float32") * np.ones_like(theirs(model).detach().numpy())
    expected, rate = gradients(model, target), 1e4  # of a step that is all gradient, and no rounding of the weight
    network.compile(keras.optimizers.SGD(rate), loss="mse")

    def step():
        network.train_on_batch(inputs(name), target)

    offenders = wrong_gradients(network.foreign_table(), expected, step, rate)
    network.optimizer.learning_rate = 0.1
    for _ in range(steps):
        step()
    return offenders


@pytest.mark.parametrize("name", CONFIGS)
def test_read_trained_and_written(name, tmp_path, request):
    """Outputs, gradients, files bit for bit, and what is trained here gives the same numbers there."""
    if name not in ("sd35_dual", "dit") and not request.config.getoption("--all-cases"):
        pytest.skip("runs with --all-cases")
    model = peer(name)
    model.save_pretrained(tmp_path / "theirs")
    network = ours(name, tmp_path / "theirs")
    assert_same_output(network, model, name)
    network.to_diffusers(tmp_path / "ours")
    expected, written = (load_file(tmp_path / folder / WEIGHTS) for folder in ("theirs", "ours"))
    assert expected.keys() == written.keys()
    assert not [key for key, tensor in expected.items() if not np.array_equal(tensor, written[key])]

    offenders = train_and_compare(network, model, name)
    assert not offenders, "\n".join(offenders)
    network.to_diffusers(tmp_path / "trained")
    trained = type(model).from_pretrained(tmp_path / "trained", low_cpu_mem_usage=False).eval()
    with torch.no_grad():
        assert (theirs(trained) - theirs(model)).abs().max() > 1e-2
    assert_same_output(network, trained, name)


def test_modules_are_read_like_folders(tmp_path):
    """Here in half precision, whose values are kept; and written in the network's own."""
    model = peer("sd3").half()
    network = MMDiT.from_diffusers(model, dtype="float16")
    network.to_diffusers(tmp_path)
    written = load_file(tmp_path / WEIGHTS)
    assert {tensor.dtype.name for tensor in written.values()} == {"float16"}
    for key, tensor in model.state_dict().items():
        np.testing.assert_array_equal(written[key], tensor.numpy(), err_msg=key)


def test_older_files_of_a_dit(tmp_path):
    """Of a class with another name and more options, which had its table of positions among the weights."""
    model = peer("dit")
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"_class_name": "Transformer2DModel", "cross_attention_dim": None, "only_cross_attention": False}
    (tmp_path / "config.json").write_text(json.dumps(config))
    weights = load_file(tmp_path / WEIGHTS)
    save_file({**weights, "pos_embed.pos_embed": np.zeros((1, 16, 24), "float32")}, tmp_path / WEIGHTS)
    network = DiT.from_diffusers(tmp_path)
    np.testing.assert_array_equal(to_numpy(network.get_layer("last_dense").bias), weights["proj_out_2.bias"])
    assert network.num_classes == 5


def test_refused(tmp_path):
    """Values of a configuration, weights, and networks that diffusers does not have, each by its name."""
    wrong = {
        "sd3": {
            "qk_norm": ("layer_norm", 1),
            "caption_projection_dim": (32, 0, "24"),
            "attention_head_dim": (7, 0, None, 10**9),
            "num_layers": (0, 10**7, "2", [2]),
            "sample_size": (15, 0, None, [16, 16]),
            "patch_size": (0, 3, 10**9),
            "dual_attention_layers": ([2], [-1], ["0"], 0, None),
            "pos_embed_max_size": (0, 10**9, None),
            "joint_attention_dim": (0, 11, 10**9),
            "out_channels": (0, 7, 10**9),
        },
        "dit": {
            "norm_type": ("layer_norm", "ada_norm_single"),
            "activation_fn": ("geglu",),
            "norm_elementwise_affine": (True,),
            "attention_bias": (False,),
            "dropout": (0.1,),
            "norm_eps": (0, "x", None),
            "num_layers": (0, 3, 10**7),
            "sample_size": (7, 10**9, None),
            "num_attention_heads": (0, 10**9),
            "num_embeds_ada_norm": (4, None),
        },
    }
    cases = []
    for name, changes in wrong.items():
        model = peer(name)
        model.save_pretrained(tmp_path / name)
        config = json.loads((tmp_path / name / "config.json").read_text())
        for key, value in ((key, value) for key, values in changes.items() for value in values):
            folder = tmp_path / f"{len(cases)}"
            folder.mkdir()
            (folder / WEIGHTS).symlink_to(tmp_path / name / WEIGHTS)
            (folder / "config.json").write_text(json.dumps({**config, key: value}))
            rule = rf"`source` must have .*Received: source={folder}/"
            cases.append((f"{key}={value}", lambda name=name, folder=folder: ours(name, folder), rule))
    unequal = peer("dit")
    with torch.no_grad():
        unequal.transformer_blocks[1].norm1.emb.timestep_embedder.linear_1.bias[0] += 1
    cases += [
        ("unequal copies", lambda: DiT.from_diffusers(unequal), "must hold . equal copies"),
        ("another class", lambda: MMDiT.from_diffusers(unequal), "must be 'SD3Transformer2DModel' for a MMDiT"),
    ]
    written = {
        "conventions": (
            DiT((4, 4, 1), 2, 8, 1, 1, "sincos", num_classes=2),
            "`conventions` must be those of diffusers",
        ),
        "positions": (dit_of_diffusers(positions="rotary"), "`positions` must be 'sincos'"),
        "classes": (dit_of_diffusers(num_classes=None), "`num_classes` must be given"),
        "square": (dit_of_diffusers(image_shape=(4, 6, 1)), "`image_shape` must be square"),
    }
    cases += [
        (name, lambda network=network: network.to_diffusers(tmp_path / "no"), rule)
        for name, (network, rule) in written.items()
    ]
    assert not not_refused(cases)


def dit_of_diffusers(**changes):
    conventions = DiTConventions(qk_norm=False, mlp_epsilon=1e-5, columns_first=True, max_period=1e4 ** (128 / 127))
    return DiT(
        **{
            "image_shape": (4, 4, 1),
            "width": 8,
            "depth": 1,
            "num_heads": 1,
            "positions": "sincos",
            "num_classes": 2,
            "conventions": conventions,
            **changes,
        }
    )
