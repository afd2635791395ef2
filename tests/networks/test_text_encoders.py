"""Text encoders beyond the laws of all layers: what reaches what, half precision, sizes, bad input."""

import keras
import numpy as np
import pytest
from keras import ops
from laws.arrays import IDS
from laws.text import TEXT_ENCODERS
from offenders import not_refused

from keras_gen.core.fixtures import randomize_weights, to_numpy
from keras_gen.models import CLIPTextEncoder, T5Encoder
from keras_gen.networks.text.t5_encoder import bucket_table


def encoder(name, **options):
    made = TEXT_ENCODERS[name][0]()
    made = type(made).from_config({**made.get_config(), **options})
    randomize_weights(made)
    return made


def outputs(network, ids, **options):
    return {key: to_numpy(value) for key, value in network(np.asarray(ids, "int32"), **options).items()}


def changed(a, b, key="tokens"):
    """Returns which tokens of the first text differ."""
    return (np.abs(a[key] - b[key]).max(axis=-1)[0] > 1e-5).tolist()


def test_no_token_of_clip_knows_those_after_it():
    network = encoder("clip_text_encoder")
    plain, other = outputs(network, [[9, 3, 4, 10, 10, 10]] * 2), outputs(network, [[9, 3, 4, 10, 5, 7]] * 2)
    assert changed(plain, other) == [False] * 4 + [True] * 2
    assert changed(plain, other, "penultimate") == [False] * 4 + [True] * 2
    np.testing.assert_allclose(plain["pooled"], other["pooled"], rtol=0, atol=1e-6)
    short = outputs(network, [[9, 3, 4, 10]] * 2)  # the same positions
    np.testing.assert_allclose(plain["tokens"][:, :4], short["tokens"], rtol=0, atol=1e-6)


def test_where_clip_pools():
    """At the first end token, not at the last one, nor at a larger id; by the older rule at the largest id."""
    ids = np.array([[9, 3, 8, 10, 8, 10], [9, 8, 1, 2, 3, 10]], "int32")
    for name, end, places in (
        ("clip_text_encoder_older", 8, (2, 1)),
        ("clip_text_encoder_older", 10, (3, 5)),
        ("clip_text_encoder_older", None, (3, 5)),
    ):
        found = outputs(encoder(name, end_id=end), ids)
        np.testing.assert_array_equal(found["pooled"], found["tokens"][[0, 1], places])


def test_t5_masks():
    network = encoder("t5_encoder")
    mask = ops.convert_to_tensor(np.array([[True] * 4 + [False] * 2] * 2))
    a, b = [[9, 3, 4, 1, 0, 0]] * 2, [[9, 3, 4, 1, 5, 7]] * 2
    assert changed(outputs(network, a), outputs(network, b)) == [True] * 6  # without a mask, padding is text
    masked = outputs(network, a, attention_mask=mask)
    assert changed(masked, outputs(network, b, attention_mask=mask)) == [False] * 4 + [True] * 2
    short = outputs(network, [[9, 3, 4, 1]] * 2)
    np.testing.assert_allclose(masked["tokens"][:, :4], short["tokens"], rtol=0, atol=1e-5)


@pytest.mark.one_backend
def test_buckets_of_distances():
    table = bucket_table(16, 128)
    assert table[:9].tolist() == [*range(8), 8]
    # 8 + floor(8 log_16(d / 8)), at most 15
    assert [table[d] for d in (15, 16, 31, 32, 63, 64, 127, 128)] == [9, 10, 11, 12, 13, 14, 15, 15]
    assert (np.diff(table) >= 0).all()


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
    """Nor that of the biases of T5, which all blocks share."""
    offenders = []
    for name in ("clip_text_encoder_older", "t5_encoder"):
        trained = []
        for remat in (False, True):
            network = encoder(name, remat=remat)
            model = keras.Model(ids := keras.Input((6,), dtype="int32"), network(ids)["tokens"])
            model.compile(keras.optimizers.SGD(0.5), loss="mse")
            before = [to_numpy(weight).copy() for weight in network.weights]
            model.train_on_batch(IDS, np.ones((2, 6, 8), "float32"))
            trained.append([to_numpy(weight) for weight in network.weights])
        for weight, start, a, b in zip(network.weights, before, *trained, strict=True):
            if np.abs(a - b).max() > 1e-6 or np.array_equal(a, start):
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
