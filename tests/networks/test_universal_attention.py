import numpy as np
import pytest
from keras import ops
from laws.arrays import TOKENS
from offenders import not_refused
from programs import one_program

from keras_gen.core.fixtures import randomize_weights, to_numpy
from keras_gen.layers import RotaryEmbedding, UniversalAttention
from keras_gen.networks.blocks.universal_attention import normalized

MASK = np.random.default_rng(3).random((2, 1, 6, 6)) < 0.6
MASK[0, 0, 4] = False


def test_rows_of_norm_one():
    logits = ops.convert_to_tensor([[0, 0.5, 1], [1, 0, 0.5], [0.2, 0.1, 0]], "float32")
    sums = [to_numpy(normalized(logits, name)).sum(-1) for name in ("softmax", "l2")]
    np.testing.assert_allclose(sums, [[1, 1, 1], [1.610374, 1.610374, 1.726320]], rtol=1e-6)


def outputs(layer, x, mask=None):
    run = one_program(layer, layer if mask is None else lambda x, mask: layer(x, attention_mask=mask))
    return to_numpy(run(*(ops.convert_to_tensor(one) for one in (x, mask) if one is not None)))


def test_toeplitz_of_even_weights():
    """g(i - j) = 0.1, 0.5, 1, 2, 3 from -2 to 2, or of that 0.5, 1, 2 and the same beyond."""
    for distance, expected in ((2, [0.533333, 1.166667, 2.0]), (1, [2 / 3, 3.5 / 3, 5 / 3])):
        layer = UniversalAttention(1, distance)
        layer.build((None, 3, 1))
        layer.qkv.set_weights([np.zeros((1, 3)), np.array([0, 0, 1])])
        layer.output_dense.set_weights([np.ones((1, 1)), np.zeros(1)])
        layer.toeplitz.assign(np.array([[0.1, 0.5, 1, 2, 3]])[:, 2 - distance : 3 + distance])
        np.testing.assert_allclose(outputs(layer, np.zeros((1, 3, 1), "float32"))[0, :, 0], expected, rtol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("normalization", "power"), [("softmax", 1), ("l2", 2)])
def test_formula(normalization, power, masked):
    layer = UniversalAttention(2, 3, normalization)
    layer.build(TOKENS.shape)
    randomize_weights(layer, scale=2.0)
    weight = {one.path.split("/", 1)[-1]: to_numpy(one) for one in layer.weights}
    qkv = TOKENS @ weight["qkv/kernel"] + weight["qkv/bias"]
    q, k, v = np.moveaxis(qkv.reshape(2, 6, 3, 2, 4), (2, 3), (0, 2))
    a = np.exp(q @ np.swapaxes(k, -1, -2) / 2) * (MASK if masked else 1)
    a /= np.maximum((a**power).sum(-1, keepdims=True), 1e-30) ** (1 / power)
    place = np.arange(6)
    c = weight["toeplitz"][:, np.clip(place[:, None] - place, -3, 3) + 3]
    attended = np.swapaxes((a * c) @ v, 1, 2).reshape(2, 6, 8)
    expected = attended @ weight["output/kernel"] + weight["output/bias"]
    actual = outputs(layer, TOKENS, MASK if masked else None)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)
    if masked:
        np.testing.assert_allclose(actual[0, 4], weight["output/bias"], rtol=1e-5)


def test_equal_tokens_are_told_apart_by_either_cure():
    spread = {}
    for distance, normalization in ((None, "softmax"), (3, "softmax"), (None, "l2")):
        layer = UniversalAttention(2, distance, normalization, RotaryEmbedding(10))
        layer.build(TOKENS.shape)
        randomize_weights(layer, scale=2.0)
        y = outputs(layer, np.broadcast_to(TOKENS[:, :1], TOKENS.shape).copy())
        spread[distance, normalization] = np.abs(y - y[:, :1]).max()
    assert spread.pop((None, "softmax")) < 1e-5
    assert min(spread.values()) > 1e-2


def test_refused():
    def call(mask):
        return lambda: UniversalAttention(2)(TOKENS, attention_mask=mask)

    rule = "`attention_mask` must be bool. Received: attention_mask=dtype"
    lines = not_refused(
        [
            ("float mask", call(np.zeros((6, 6), "float32")), rule),
            ("integer mask", call(np.ones((6, 6), "int32")), rule),
            (
                "heads",
                lambda: UniversalAttention(3)(TOKENS),
                "`num_heads` must divide 8 channels. Received: num_heads=3",
            ),
            ("rank", lambda: UniversalAttention(2)(TOKENS[0]), "`x` must have shape"),
            ("distance", lambda: UniversalAttention(2, 0), "`max_distance` must be an integer >= 1"),
            (
                "norm",
                lambda: UniversalAttention(2, normalization="l1"),
                "`normalization` must be one of 'softmax', 'l2'",
            ),
            ("positions", lambda: UniversalAttention(2, positions=6), "`positions` must be a layer or None"),
        ]
    )
    assert not lines, "\n".join(lines)
