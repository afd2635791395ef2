import keras
import numpy as np
import pytest
from keras import ops
from laws.arrays import TOKENS, VECTOR
from offenders import not_refused
from programs import one_program

from keras_gen.core.fixtures import randomize_weights, to_numpy
from keras_gen.layers import MMDiTBlock, SinusoidalPositions2D
from keras_gen.models import DiT, DiTConventions, MMDiT, RectifiedFlow
from keras_gen.networks.backbones.mmdit_weights import mmdit_arguments

GRID = np.random.default_rng(0).normal(size=(2, 2, 3, 8)).astype("float32")
TEXT = {"tokens": TOKENS, "pooled": VECTOR}
T = np.array([3, 700], "int32")


def dense(layer, x):
    return x @ to_numpy(layer.kernel) + to_numpy(layer.bias)


def norm(x):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)


def rms(layer, x):
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 1e-6) * to_numpy(layer.scale)


def heads(stream, x):
    """Queries, keys and values `(batch, heads, tokens, dim)`."""
    q, k, v = (
        dense(layer, x).reshape(2, -1, 2, 4).swapaxes(1, 2) for layer in (stream.query, stream.key, stream.value)
    )
    return rms(stream.q_norm, q), rms(stream.k_norm, k), v


def attention(q, k, v):
    scores = np.exp(q @ k.swapaxes(-1, -2) / 2)
    attended = scores / scores.sum(-1, keepdims=True) @ v
    return attended.swapaxes(1, 2).reshape(2, -1, 8)


def mlp(layers, x):
    h = dense(layers.mlp_1, x)
    return dense(layers.mlp_2, h / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3))))


def test_block_formula():
    """Image and text as one sequence; the image on a grid, which also attends to itself alone."""
    block = MMDiTBlock(2, expansion=3, dual_attention=True)
    block([GRID, TOKENS, VECTOR])
    randomize_weights(block, scale=2.0)
    x, y = GRID.reshape(2, 6, 8), TOKENS
    a_1, b_1, g_1, a_2, b_2, g_2, a_3, b_3, g_3 = np.split(dense(block.image_modulation, VECTOR)[:, None], 9, axis=-1)
    c_1, d_1, e_1, c_2, d_2, e_2 = np.split(dense(block.text_modulation, VECTOR)[:, None], 6, axis=-1)
    of_x, of_y = heads(block.image, norm(x) * (1 + a_1) + b_1), heads(block.text, norm(y) * (1 + c_1) + d_1)
    attended = attention(*(np.concatenate(both, axis=2) for both in zip(of_x, of_y, strict=True)))
    alone = attention(*heads(block.image_alone, norm(x) * (1 + a_3) + b_3))
    h = x + g_1 * dense(block.image.output_dense, attended[:, :6]) + g_3 * dense(block.image_alone.output_dense, alone)
    image = h + g_2 * mlp(block.image_mlp, norm(h) * (1 + a_2) + b_2)
    h = y + e_1 * dense(block.text.output_dense, attended[:, 6:])
    text = h + e_2 * mlp(block.text_mlp, norm(h) * (1 + c_2) + d_2)
    outputs = one_program(block, block)([ops.convert_to_tensor(x) for x in (GRID, TOKENS, VECTOR)])
    np.testing.assert_allclose(to_numpy(outputs[0]), image.reshape(GRID.shape), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(to_numpy(outputs[1]), text, rtol=1e-4, atol=1e-4)


def test_block_starts_as_the_identity():
    for output, given in zip(MMDiTBlock(2)([GRID, TOKENS, VECTOR]), (GRID, TOKENS), strict=True):
        np.testing.assert_array_equal(to_numpy(output), given)
    np.testing.assert_array_equal(to_numpy(MMDiTBlock(2, last=True)([GRID, TOKENS, VECTOR])), GRID)


def test_positions_are_those_of_the_formula_counted_from_the_middle():
    layer = SinusoidalPositions2D(9, 3)
    table = to_numpy(layer(np.zeros((1, 4, 5, 8), "float32")))[0]
    for i, j in ((0, 0), (1, 4), (3, 2)):
        u, v = (np.array([1, 0.01]) * place / 3 for place in (j + 2, i + 2))
        expected = np.concatenate([np.sin(u), np.cos(u), np.sin(v), np.cos(v)])
        np.testing.assert_allclose(table[i, j], expected, rtol=1e-5, atol=1e-6)
    small = to_numpy(layer(np.zeros((1, 2, 3, 8), "float32")))[0]
    np.testing.assert_array_equal(small, table[1:3, 1:4])
    assert not layer.trainable_weights


def test_images_of_any_size():
    """The same weights on images of two sizes, as by networks for these sizes alone."""
    network = MMDiT((None, None, 1), 8, 6, 2, 8, 1, 1, table_size=4, base_size=2)
    randomize_weights(network)
    for shape in ((8, 4, 1), (2, 6, 1)):
        fixed = MMDiT(shape, 8, 6, 2, 8, 1, 1, table_size=4, base_size=2)
        fixed.set_weights(network.get_weights())
        inputs = keras.tree.map_structure(ops.convert_to_tensor, [np.ones((2, *shape), "float32"), T, TEXT])
        outputs = [to_numpy(one_program(one, one)(inputs)) for one in (network, fixed)]
        assert outputs[0].shape == (2, *shape)
        assert np.abs(outputs[0]).max() > 0.01
        np.testing.assert_allclose(*outputs, rtol=1e-5, atol=1e-6)


def test_flow_of_texts_learns():
    """Images of one gray, which tokens or pooled vectors tell: without the condition, their variance would be left."""
    gray = np.random.default_rng(0).uniform(-1, 1, (32, 1, 1, 1)).astype("float32")
    x = np.broadcast_to(gray, (32, 4, 4, 1)).copy()
    text = {"tokens": np.broadcast_to(gray[:, 0], (32, 3, 8)).copy(), "pooled": np.repeat(gray[:, 0, 0], 6, axis=1)}
    flow = RectifiedFlow(MMDiT((4, 4, 1), 8, 6, 2, 16, 2, 2), condition_dropout=0.1, seed=0)
    flow.compile(keras.optimizers.Adam(5e-3))
    losses = flow.fit(x, text, batch_size=32, epochs=30, verbose=0).history["loss"]
    assert losses[-1] < 0.5 * losses[0]


SD3_MEDIUM = {
    "num_layers": 24,
    "num_attention_heads": 24,
    "caption_projection_dim": 1536,
    "pos_embed_max_size": 192,
}
SD35 = {"pos_embed_max_size": 384, "qk_norm": "rms_norm", "dual_attention_layers": (*range(13),)}
LARGE = {"num_layers": 38, "num_attention_heads": 38, "caption_projection_dim": 2432, "qk_norm": "rms_norm"}
COUNTS = {
    "SD3-medium": (lambda: MMDiT(**mmdit_arguments(SD3_MEDIUM)), 2_084_951_104),
    "SD3.5-medium": (lambda: MMDiT(**mmdit_arguments({**SD3_MEDIUM, **SD35})), 2_469_663_936),
    "SD3.5-large": (lambda: MMDiT(**mmdit_arguments({**SD3_MEDIUM, **LARGE})), 8_146_280_768),
    # diffusers' file holds 749,826,464 values: 28 copies of 2,777,472 are one here.
    "DiT-XL/2": (lambda: DiT(**DiT.foreign_arguments({"out_channels": 8})), 749_826_464 - 27 * 2_777_472),
}


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="only PyTorch has weights without values")
def test_real_sizes(request):
    names = COUNTS if request.config.getoption("--all-cases") else ("SD3.5-medium", "DiT-XL/2")
    with keras.device("meta"):
        counts = {name: COUNTS[name][0]().count_params() for name in names}
    assert counts == {name: COUNTS[name][1] for name in names}


def test_weights_that_are_split_over_devices():
    mesh = keras.distribution.DeviceMesh((1, 1), ["batch", "model"], devices=["cpu:0"])
    layout = MMDiT.layout_map(mesh)
    network = MMDiT((4, 4, 1), 8, 6, 2, 8, 2, 2, dual_attention=(0,))
    split = {weight.path: layout[weight.path] for weight in network.get_layer("block_0").weights}
    axes = {path: tuple(own.axes) for path, own in split.items() if own is not None}
    by_outputs = {path for path in split if path.split("/")[-2] in ("query", "key", "value", "mlp_1")}
    inputs = ("output/kernel", "mlp_2/kernel", "image_modulation/kernel", "text_modulation/kernel")
    by_inputs = {path for path in split if path.endswith(inputs)}
    assert {path for path, own in axes.items() if own[-1] == "model"} == by_outputs
    assert {path for path, own in axes.items() if own == ("model", None)} == by_inputs
    assert len(by_outputs) == 22
    assert len(by_inputs) == 7


def test_refused():
    def network(**changes):
        return MMDiT(**{"image_shape": (4, 4, 1), "tokens_dim": 8, "pooled_dim": 6, "width": 8, "depth": 1, **changes})

    cases = {
        "image_shape": (
            lambda: network(image_shape=(4, 5, 1)),
            "height and width that are multiples of 2, with patch_s",
        ),
        "patch_size": (lambda: network(patch_size=0), "`patch_size` must be an integer >= 1"),
        "tokens_dim": (lambda: network(tokens_dim=0), "`tokens_dim` must be an integer >= 1"),
        "pooled_dim": (lambda: network(pooled_dim=None), "`pooled_dim` must be an integer >= 1"),
        "width": (lambda: network(width=6, num_heads=3), "`width` must be a multiple of 4 and of 3 heads"),
        "heads": (lambda: network(num_heads=3), "`width` must be a multiple of 4 and of 3 heads"),
        "depth": (lambda: network(depth=0), "`depth` must be an integer >= 1"),
        "qk_norm": (lambda: network(qk_norm="rms"), "`qk_norm` must be True or False"),
        "dual": (lambda: network(dual_attention=(1,)), "`dual_attention` must be a sequence of blocks in 0 .. 0"),
        "dual number": (lambda: network(dual_attention=0), "`dual_attention` must be a sequence of blocks"),
        "table": (lambda: network(image_shape=(None, 4, 1)), "`table_size` must be given where `image_shape` does not"),
        "small table": (lambda: network(table_size=1), "`x` must have at most 1 rows and columns"),
        "table size": (lambda: network(table_size=0), "`table_size` must be an integer >= 1"),
        "base": (lambda: network(base_size=0), "`base_size` must be an integer >= 1"),
        "out": (lambda: network(out_channels=0), "`out_channels` must be an integer >= 1"),
        "x_t": (
            lambda: network()([GRID[..., :1], T, TEXT]),
            "`x_t` must have height and width that are multiples of 2",
        ),
        "grid": (lambda: SinusoidalPositions2D(2)(TOKENS), r"`x` must have shape \(batch, rows, columns, channels\)"),
        "channels": (lambda: SinusoidalPositions2D(3)(GRID[..., :6]), "`x` must have a multiple of 4 channels"),
        "block heads": (lambda: MMDiTBlock(3)([GRID, TOKENS, VECTOR]), "`num_heads` must divide 8 channels"),
        "expansion": (lambda: MMDiTBlock(2, 0), "`expansion` must be an integer >= 1"),
        "image": (lambda: MMDiTBlock(2)([VECTOR, TOKENS, VECTOR]), "`image` must have shape"),
        "text": (
            lambda: MMDiTBlock(2)([GRID, TOKENS[..., :4], VECTOR]),
            r"`text` must have shape \(batch, tokens, 8\)",
        ),
        "last": (lambda: MMDiTBlock(last=None), "`last` must be True or False"),
        "epsilon": (lambda: DiTConventions(mlp_epsilon=0), "`mlp_epsilon` must be > 0"),
        "period": (lambda: DiTConventions(max_period=1), "`max_period` must be > 1"),
        "columns": (lambda: DiTConventions(columns_first=None), "`columns_first` must be True or False"),
        "conventions": (lambda: DiT((4, 4, 1), conventions="paper"), "`conventions` must be a DiTConventions"),
    }
    assert not not_refused((name, *case) for name, case in cases.items())
