import keras
import numpy as np
import pytest
from keras import ops

from keras_gen.core.fixtures import randomize_weights, to_numpy
from keras_gen.layers import DiTBlock, GatedAttentionUnit, RotaryEmbedding2D
from keras_gen.models import DiT, PixelTransformer
from keras_gen.networks.blocks.patches import from_patches, to_patches
from keras_gen.networks.blocks.positions import sincos_positions

X = np.random.default_rng(0).normal(size=(2, 4, 6, 1)).astype("float32")
T = np.array([0, 999], "int32")
TOKENS = np.random.default_rng(1).normal(size=(2, 6, 8)).astype("float32")
EMBEDDING = np.random.default_rng(2).normal(size=(2, 5)).astype("float32")
NETWORKS = {
    "dit": lambda **options: DiT((4, 6, 1), 2, 16, 2, 2, **options),
    "dit_sincos": lambda **options: DiT((4, 6, 1), 2, 16, 2, 2, "sincos", **options),
    "pixel": lambda **options: PixelTransformer((4, 6, 1), 2, 16, 2, **options),
}


def outputs(network, *inputs):
    return to_numpy(network([np.asarray(one) for one in inputs]))


def test_rotary_formula():
    x = np.random.default_rng(0).normal(size=(1, 6, 2, 8)).astype("float32")
    expected = np.empty_like(x)
    for token in range(6):
        row, column = divmod(token, 3)
        for pair, angle in enumerate([row, row * 100**-0.5, column, column * 100**-0.5]):
            turned = (x[:, token, :, 2 * pair] + 1j * x[:, token, :, 2 * pair + 1]) * np.exp(1j * angle)
            expected[:, token, :, 2 * pair], expected[:, token, :, 2 * pair + 1] = turned.real, turned.imag
    np.testing.assert_allclose(to_numpy(RotaryEmbedding2D(2, 3, base=100)(x)), expected, rtol=1e-5, atol=1e-5)


def test_rotary_logits_depend_on_relative_positions_only():
    height, width = 4, 5
    q, k = np.random.default_rng(0).normal(size=(2, 1, 1, 1, 16)).astype("float32").repeat(height * width, axis=2)
    rotary = RotaryEmbedding2D(height, width, base=50)
    q, k = (to_numpy(rotary(one))[0, :, 0] for one in (q, k))
    logits = (q @ k.T).reshape(height, width, height, width)
    np.testing.assert_allclose(logits[1:, :, 1:], logits[:-1, :, :-1], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(logits[:, 2:, :, 2:], logits[:, :-2, :, :-2], rtol=1e-4, atol=1e-4)
    apart = [logits[0, 0, 0, 0], logits[0, 0, 1, 0], logits[1, 0, 0, 0], logits[0, 0, 0, 1], logits[0, 1, 0, 0]]
    assert np.abs(np.subtract.outer(apart, apart) + np.eye(5)).min() > 1e-2


def test_half_precision_keeps_the_angles_in_float32():
    x = np.ones((1, 300, 1, 4), "float32")
    exact, half = RotaryEmbedding2D(300, 1), RotaryEmbedding2D(300, 1, dtype="bfloat16")
    np.testing.assert_allclose(to_numpy(half(x)), to_numpy(exact(x)), atol=1e-2)


def test_gated_attention_formula():
    layer = GatedAttentionUnit(5, 3)
    layer(TOKENS)
    randomize_weights(layer, scale=2.0)
    weight = {one.path.split("/", 1)[-1]: to_numpy(one) for one in layer.weights}
    h = TOKENS / np.sqrt(np.mean(TOKENS**2, axis=-1, keepdims=True) + 1e-6) * weight["norm/scale"]
    h = h @ weight["dense/kernel"]
    u, v, z = np.split(h / (1 + np.exp(-h)), [5, 10], axis=-1)
    q, k = z * weight["gammas"][0], z * weight["gammas"][1]
    a = np.exp(q @ k.transpose(0, 2, 1) / np.sqrt(3))
    expected = TOKENS + (u * (a / a.sum(-1, keepdims=True) @ v)) @ weight["output/kernel"]
    np.testing.assert_allclose(to_numpy(layer(TOKENS)), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("positions", [False, True])
def test_only_positions_tell_the_order(positions):
    order = np.random.default_rng(0).permutation(6)
    for make, width in ((GatedAttentionUnit, 8), (DiTBlock, 2)):
        layer = make(width, positions=RotaryEmbedding2D(2, 3) if positions else None)
        inputs = [[x, EMBEDDING] if make is DiTBlock else x for x in (TOKENS, TOKENS[:, order])]
        layer(inputs[0])
        randomize_weights(layer, scale=3.0)
        straight, permuted = (to_numpy(layer(one)) for one in inputs)
        change = np.abs(straight[:, order] - permuted).max() / np.abs(straight).max()
        assert (change > 1e-3) if positions else (change < 1e-5), make


def test_dit_block_formula():
    block = DiTBlock(2, expansion=3)
    block([TOKENS, EMBEDDING])
    randomize_weights(block, scale=2.0)

    def dense(layer, x):
        return x @ to_numpy(layer.kernel) + to_numpy(layer.bias)

    def norm(x):
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)

    def rms(layer, x):
        return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 1e-6) * to_numpy(layer.scale)

    a_1, b_1, g_1, a_2, b_2, g_2 = np.split(dense(block.modulation, EMBEDDING)[:, None], 6, axis=-1)
    h = norm(TOKENS) * (1 + a_1) + b_1
    q, k, v = dense(block.qkv, h).reshape(2, 6, 3, 2, 4).transpose(2, 0, 3, 1, 4)
    weights = np.exp(rms(block.q_norm, q) @ rms(block.k_norm, k).swapaxes(-1, -2) / 2)
    attended = (weights / weights.sum(-1, keepdims=True) @ v).transpose(0, 2, 1, 3).reshape(2, 6, 8)
    x = TOKENS + g_1 * dense(block.output_dense, attended)
    h = dense(block.mlp_1, norm(x) * (1 + a_2) + b_2)
    gelu = h / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3)))
    expected = x + g_2 * dense(block.mlp_2, gelu)
    np.testing.assert_allclose(to_numpy(block([TOKENS, EMBEDDING])), expected, rtol=1e-4, atol=1e-4)


def test_blocks_start_as_the_identity():
    np.testing.assert_array_equal(to_numpy(DiTBlock(2)([TOKENS, EMBEDDING])), TOKENS)
    np.testing.assert_array_equal(to_numpy(GatedAttentionUnit(expansion=8)(TOKENS)), TOKENS)


def test_patches_are_squares_of_pixels():
    images = np.arange(2 * 4 * 6 * 3, dtype="float32").reshape(2, 4, 6, 3)
    patches = to_patches(ops.convert_to_tensor(images), 2)
    assert tuple(patches.shape) == (2, 6, 12)
    np.testing.assert_array_equal(to_numpy(patches)[1, 4], images[1, 2:4, 2:4].ravel())
    np.testing.assert_array_equal(to_numpy(from_patches(patches, 2, 3, 2)), images)


def test_sincos_positions_differ():
    table = sincos_positions(3, 5, 8)
    assert table.shape == (15, 8)
    assert table.dtype == "float32"
    row, column = np.array([1, 0.01]), np.array([2, 0.02])  # of the place 1, 2
    np.testing.assert_allclose(table[7], np.concatenate([np.sin(row), np.cos(row), np.sin(column), np.cos(column)]))
    assert len(np.unique(table.round(4), axis=0)) == 15


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_start_at_zero(name):
    network = NETWORKS[name](out_channels=2)
    output = outputs(network, X, T)
    assert output.shape == (2, 4, 6, 2)
    assert np.abs(output).max() == 0
    assert (network.image_shape, network.num_classes, network.condition_dim) == ((4, 6, 1), None, None)


@pytest.mark.parametrize("name", NETWORKS)
def test_time_place_and_condition_reach_the_output(name):
    x = X[:1].repeat(2, axis=0)
    t = np.array([500.25, 500.75], "float32")
    for options, conditions in (({"num_classes": 3}, [1, 3]), ({"condition_dim": 2}, [[0.0, 1.0], [1.0, 0.0]])):
        network = NETWORKS[name](**options)
        randomize_weights(network, scale=1.0)
        condition = np.array(conditions, "int32" if "num_classes" in options else "float32")
        by_time = outputs(network, x, t, condition[:1].repeat(2, axis=0))
        assert np.abs(by_time[0] - by_time[1]).max() > 1e-3
        by_condition = outputs(network, x, t[:1].repeat(2), condition)
        assert np.abs(by_condition[0] - by_condition[1]).max() > 1e-3
        flat = outputs(network, np.ones_like(x), t, condition)
        if name == "dit_sincos":  # rotary positions cannot tell equal tokens apart, but different ones
            assert np.abs(flat[:, :2] - flat[:, 2:]).max() > 1e-3
        swapped = outputs(network, np.concatenate([x[:, 2:], x[:, :2]], axis=1), t, condition)
        there = outputs(network, x, t, condition)
        assert np.abs(np.concatenate([there[:, 2:], there[:, :2]], axis=1) - swapped).max() > 1e-4


@pytest.mark.parametrize("name", NETWORKS)
def test_half_precision_tells_times_apart(name):
    network = NETWORKS[name](dtype="mixed_bfloat16")
    randomize_weights(network, scale=3.0)
    x = X[:1].repeat(3, axis=0)
    real = outputs(network, x, np.array([998.5, 999.0, 999.5], "float32"))
    assert np.abs(real[0] - real[1]).max() > 0
    assert np.abs(real[1] - real[2]).max() > 0
    np.testing.assert_array_equal(outputs(network, x, np.array([999, 999, 999], "int32"))[1], real[1])
    assert {weight.dtype for weight in network.weights} == {"float32"}
    assert keras.backend.standardize_dtype(network([x, np.zeros(3, "float32")]).dtype) == "bfloat16"


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: DiT((4, 5, 1)), "`image_shape` must have height and width that are multiples of 2, with patch_size=2"),
        (lambda: DiT((None, 4, 1)), "`image_shape` must have a known height and width"),
        (lambda: DiT((4, 4)), "`image_shape` must be images of shape"),
        (lambda: DiT((4, 4, 1), 0), "`patch_size` must be an integer >= 1"),
        (lambda: DiT((4, 4, 1), width=24), "`width` must be a multiple of 16, with 4 heads"),
        (lambda: DiT((4, 4, 1), width=6, num_heads=3, positions="sincos"), "`width` must be a multiple of 12"),
        (lambda: DiT((4, 4, 1), depth=0), "`depth` must be an integer >= 1"),
        (lambda: DiT((4, 4, 1), num_heads=0), "`num_heads` must be an integer >= 1"),
        (lambda: DiT((4, 4, 1), positions="learned"), "`positions` must be one of 'rotary', 'sincos'"),
        (lambda: DiT((4, 4, 1), num_classes=0), "`num_classes` must be an integer >= 1"),
        (lambda: DiT((4, 4, 1), condition_dim=0), "`condition_dim` must be an integer >= 1"),
        (lambda: DiT((4, 4, 1), out_channels=0), "`out_channels` must be an integer >= 1"),
        (lambda: DiT((4, 4, 1), num_classes=2, condition_dim=2), "`condition_dim` must be None where num_classes is"),
        (lambda: NETWORKS["dit"]()([X[:, :3], T]), "`x_t` must have height and width that are multiples of 2"),
        (lambda: PixelTransformer((4, 4, 1), 3), "`image_shape` must have height and width that are multiples of 3"),
        (lambda: PixelTransformer((4, 4, 1), width=0), "`width` must be an integer >= 1"),
        (lambda: PixelTransformer((4, 4, 1), depth=0), "`depth` must be an integer >= 1"),
        (lambda: PixelTransformer((4, 4, 1), out_channels=0), "`out_channels` must be an integer >= 1"),
        (lambda: RotaryEmbedding2D(0, 2), "`height` must be an integer >= 1"),
        (lambda: RotaryEmbedding2D(2, 0), "`width` must be an integer >= 1"),
        (lambda: RotaryEmbedding2D(2, 2, 1.0), "`base` must be > 1"),
        (lambda: RotaryEmbedding2D(2, 2)(X), r"`x` must have shape \(batch, 4, heads, a multiple of 4\)"),
        (lambda: GatedAttentionUnit(0), "`intermediate_dim` must be an integer >= 1"),
        (lambda: GatedAttentionUnit(4, 0), "`key_dim` must be an integer >= 1"),
        (lambda: GatedAttentionUnit(4, positions="rotary"), "`positions` must be a layer or None"),
        (lambda: GatedAttentionUnit(4)(X), "`x` must have shape"),
        (lambda: DiTBlock(0), "`num_heads` must be an integer >= 1"),
        (lambda: DiTBlock(2, 0), "`expansion` must be an integer >= 1"),
        (lambda: DiTBlock(2, positions=3), "`positions` must be a layer or None"),
        (lambda: DiTBlock(3)([TOKENS, EMBEDDING]), "`num_heads` must divide 8 channels"),
        (lambda: DiTBlock(2)([X, EMBEDDING]), "`tokens` must have shape"),
    ],
)
def test_bad_input(make, match):
    with pytest.raises(ValueError, match=match):
        make()
