"""Text encoders beyond the laws of all layers: what reaches what, half precision, sizes, bad input."""

import keras
import numpy as np
import pytest
from keras import ops
from laws.arrays import IDS
from laws.text import TEXT_ENCODERS
from offenders import not_refused
from programs import one_program

from keras_gen.core.fixtures import randomize_weights, to_numpy
from keras_gen.models import CLIPTextEncoder, T5Encoder
from keras_gen.networks.text.t5_encoder import bucket_table


def encoder(name, **options):
    made = TEXT_ENCODERS[name][0]()
    made = type(made).from_config({**made.get_config(), **options})
    randomize_weights(made)
    return made


def outputs(network, ids, **options):
    run = one_program(network, lambda ids: network(ids, **options))
    return {key: to_numpy(value) for key, value in run(ops.convert_to_tensor(np.array(ids, "int32"))).items()}


def changed(tokens):
    """Returns which tokens of the first two texts differ."""
    return (np.abs(tokens[0] - tokens[1]).max(axis=-1) > 1e-5).tolist()


def test_no_token_of_clip_knows_those_after_it():
    network = encoder("clip_text_encoder")
    found = outputs(network, [[9, 3, 4, 10, 10, 10], [9, 3, 4, 10, 5, 7]])
    assert changed(found["tokens"]) == changed(found["penultimate"]) == [False] * 4 + [True] * 2
    np.testing.assert_allclose(*found["pooled"], rtol=0, atol=1e-6)
    short = outputs(network, [[9, 3, 4, 10]] * 2)  # the same positions
    np.testing.assert_allclose(found["tokens"][:, :4], short["tokens"], rtol=0, atol=1e-6)


def test_where_clip_pools():
    """At the first end token, not at the last one, nor at a larger id; by the older rule at the largest id."""
    ids = [[9, 3, 8, 10, 8, 10], [9, 8, 1, 2, 3, 10]]
    for end, places in ((8, (2, 1)), (None, (3, 5))):
        found = outputs(encoder("clip_text_encoder", projection_dim=None, end_id=end), ids)
        np.testing.assert_array_equal(found["pooled"], found["tokens"][[0, 1], places])


def test_t5_masks():
    network = encoder("t5_encoder")
    ids = [[9, 3, 4, 1, 0, 0], [9, 3, 4, 1, 5, 7]]
    assert changed(outputs(network, ids)["tokens"]) == [True] * 6  # without a mask, padding is text
    masked = outputs(network, ids, attention_mask=ops.convert_to_tensor(np.arange(6) < [[4], [4]]))["tokens"]
    assert changed(masked) == [False] * 4 + [True] * 2
    short = outputs(network, [[9, 3, 4, 1]] * 2)["tokens"]
    np.testing.assert_allclose(masked[:, :4], short, rtol=0, atol=1e-5)


@pytest.mark.one_backend
def test_buckets_of_distances():
    table = bucket_table(16, 128)
    assert table[:9].tolist() == [*range(8), 8]
    # 8 + floor(8 log_16(d / 8)), at most 15
    assert [table[d] for d in (15, 16, 31, 32, 63, 64, 127, 128)] == [9, 10, 11, 12, 13, 14, 15, 15]
    assert (np.diff(table) >= 0).all()


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="on a CPU, JAX has no attention in float16")
def test_t5_in_float16_does_not_overflow():
    """Sums and products of 1e6, as trained weights have them, beyond the 65,504 of float16."""
    values = {}
    for dtype in ("float32", "mixed_float16"):
        network = encoder("t5_encoder", dtype=dtype)
        for block in network.blocks:
            block.mlp_2.kernel.assign(block.mlp_2.kernel * 1e6)
        values[dtype] = outputs(network, IDS)["tokens"]
    assert np.isfinite(values["mixed_float16"]).all()
    np.testing.assert_allclose(values["mixed_float16"], values["float32"], rtol=0, atol=0.02)
    assert keras.backend.standardize_dtype(network(IDS)["tokens"].dtype) == "float16"


def test_remat_changes_no_gradient():
    """Nor that of the biases, which all blocks share."""
    trained = []
    for remat in (False, True):
        network = encoder("t5_encoder", remat=remat)
        model = keras.Model(ids := keras.Input((6,), dtype="int32"), network(ids)["tokens"])
        model.compile(keras.optimizers.SGD(0.5), loss="mse")
        start = [to_numpy(weight).copy() for weight in network.weights]
        model.train_on_batch(IDS, np.ones((2, 6, 8), "float32"))
        trained.append([to_numpy(weight) for weight in network.weights])
    offenders = []
    for weight, before, a, b in zip(network.weights, start, *trained, strict=True):
        if np.abs(a - b).max() > 1e-6 or np.array_equal(a, before):
            offenders.append(weight.path)
    assert not offenders, offenders


# Of T5's token embedding, files may have a twin, which counts here but once.
SIZES = {
    "CLIP ViT-L/14": (CLIPTextEncoder, {}, 123_060_480),
    "OpenCLIP ViT-bigG/14": (
        CLIPTextEncoder,
        {"dim": 1280, "depth": 32, "num_heads": 20, "hidden_dim": 5120, "projection_dim": 1280, "activation": "gelu"},
        694_659_840,
    ),
    "T5-v1.1-XXL": (T5Encoder, {}, 4_893_906_944 - 32_128 * 4096),
}


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="counts without memory")
@pytest.mark.parametrize("name", SIZES)
def test_real_sizes(name):
    make, options, count = SIZES[name]
    with keras.device("meta"):
        assert make(**options).count_params() == count


@pytest.mark.one_backend
def test_bad_input():
    clip, t5 = TEXT_ENCODERS["clip_text_encoder"][0], TEXT_ENCODERS["t5_encoder"][0]
    wrong = {
        CLIPTextEncoder: {
            **dict.fromkeys(
                ("vocabulary_size", "max_length", "dim", "depth", "num_heads", "hidden_dim"), (0, 2.5, "x")
            ),
            "projection_dim": (0, "x"),
            "activation": ("relu", None),
            "end_id": (-1, 49408, 2.5),
            "epsilon": (0, float("nan")),
            "remat": (1,),
        },
        T5Encoder: {
            **dict.fromkeys(("vocabulary_size", "dim", "depth", "num_heads", "head_dim", "hidden_dim"), (0, 2.5, "x")),
            "num_buckets": (2, 7, "x"),
            "max_distance": (8, 2**20 + 1, "x"),
            "epsilon": (0, "x"),
            "remat": (None,),
        },
    }
    cases = [
        (f"{make.__name__}({name}={value})", lambda make=make, name=name, value=value: make(**{name: value}), name)
        for make, arguments in wrong.items()
        for name, values in arguments.items()
        for value in values
    ]
    cases = [(name, call, f"`{argument}` must .*Received: {argument}=") for name, call, argument in cases]
    cases += [
        ("heads", lambda: CLIPTextEncoder(dim=8, num_heads=3), "`num_heads` must divide dim, 8. Received: num_heads=3"),
        (
            "too long",
            lambda: clip()(np.zeros((2, 7), "int32")),
            "`ids` must have at most 6 tokens. Received: ids=shape",
        ),
        ("too long, symbolic", lambda: clip()(keras.Input((7,), dtype="int32")), "`ids` must have at most 6 tokens"),
        ("outside", lambda: clip()(np.full((2, 6), 11)), r"`ids` must be in 0 .. 10. Received: ids=\[11\]"),
        ("negative", lambda: t5()(np.full((2, 6), -1)), r"`ids` must be in 0 .. 10. Received: ids=\[-1\]"),
        ("floats", lambda: t5()(np.zeros((2, 6))), "`ids` must be integers. Received: ids=dtype float"),
        ("one text", lambda: t5()(np.zeros(6, "int32")), r"`ids` must have shape \(batch, tokens\)"),
        ("texts", lambda: t5()("a cat"), "`ids` must be an array or a tensor. Received: ids=str"),
        ("mask", lambda: t5()(IDS, attention_mask=ops.ones((2, 6))), "`attention_mask` must be bool"),
    ]
    assert not not_refused(cases)
