import keras
import numpy as np
import pytest
from keras import ops
from programs import one_program
from stored import stored_bytes

from keras_gen.core.compiled import compiled
from keras_gen.core.fixtures import made_alike, to_numpy
from keras_gen.ops import gradient, segment_mask, tiled_attention

GENERATOR = np.random.default_rng(0)
QUERIES, KEYS, VALUES = (2 * GENERATOR.normal(size=(2, n, 3, 4)).astype("float32") for n in (7, 10, 10))
SEGMENTS = np.array([[1, 1, 1, 2, 2, 3, 3, 3, 3, 3], [4, 4, 5, 5, 5, 5, 5, 6, 6, 6]])


def plain_attention(q, k, v, mask=None, is_causal=False, scale=None):
    """NumPy, in float64; zeros for a query that sees nothing."""
    q, k, v = (x.astype("float64").transpose(0, 2, 1, 3) for x in (q, k, v))
    scores = q @ k.transpose(0, 1, 3, 2) * (q.shape[-1] ** -0.5 if scale is None else scale)
    seen = np.ones(scores.shape, bool) if mask is None else np.broadcast_to(mask, scores.shape)
    if is_causal:
        seen = seen & (np.arange(scores.shape[2])[:, None] >= np.arange(scores.shape[3]))
    p = np.where(seen, np.exp(scores - scores.max(-1, keepdims=True)), 0)
    return (p / np.maximum(p.sum(-1, keepdims=True), 1e-300) @ v).transpose(0, 2, 1, 3)


def random_mask(*shape):
    mask = np.random.default_rng(1).random(shape) < 0.6
    mask[..., 0] = True
    return mask


@pytest.mark.parametrize("tile", [1, 3, 5, 64])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"is_causal": True},
        {"scale": 0.3},
        {"mask": random_mask(2, 1, 7, 10)},
        {"mask": random_mask(1, 3, 7, 10)},
        {"mask": random_mask(7, 10), "is_causal": True},
        {"mask": random_mask(2, 1, 1, 10)},
    ],
)
def test_tiles_make_no_difference(tile, options):
    y = to_numpy(tiled_attention(QUERIES, KEYS, VALUES, tile=tile, **options))
    np.testing.assert_allclose(y, plain_attention(QUERIES, KEYS, VALUES, **options), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tile", [4, 10, 256])
@pytest.mark.parametrize("masked", ["no", "causal", "segments", "random"])
def test_equals_the_attention_of_keras(tile, masked):
    q, k, v = (ops.convert_to_tensor(x) for x in (KEYS[:, ::-1].copy(), KEYS, VALUES))
    masks = {"segments": to_numpy(segment_mask(SEGMENTS)), "random": random_mask(2, 1, 10, 10)}
    options = {"mask": ops.convert_to_tensor(masks[masked])} if masked in masks else {"is_causal": masked == "causal"}
    expected = to_numpy(ops.dot_product_attention(q, k, v, **options))
    np.testing.assert_allclose(to_numpy(tiled_attention(q, k, v, tile=tile, **options)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("queries", "keys"), [(10, 3), (3, 10)])
def test_causal_with_other_numbers_of_queries_and_keys(queries, keys):
    """Query i sees keys 0 .. i: all of them, for queries behind the last key."""
    q, k, v = KEYS[:, :queries], VALUES[:, :keys], KEYS[:, :keys]
    y = to_numpy(tiled_attention(q, k, v, is_causal=True, tile=2))
    np.testing.assert_allclose(y, plain_attention(q, k, v, is_causal=True), rtol=1e-5, atol=1e-5)


def test_worked_example():
    """Scores 1, 3 | 2, 5 of values 1, 2 | 3, 4, in two tiles: 658.71 / 178.61."""
    keys, values = (np.array(x, "float32").reshape(1, 4, 1, 1) for x in ([1, 3, 2, 5], [1, 2, 3, 4]))
    y = tiled_attention(np.ones((1, 1, 1, 1), "float32"), keys, values, scale=1.0, tile=2)
    assert to_numpy(y).item() == pytest.approx(3.688057, abs=1e-6)


class SelfAttention(keras.layers.Layer):
    def call(self, x, mask):
        return tiled_attention(x, x, x, mask, is_causal=True, tile=4)


def test_works_in_a_functional_model_of_unknown_batch():
    inputs = [keras.Input(KEYS.shape[1:]), keras.Input((1, 10, 10), dtype="bool")]
    model = keras.Model(inputs, SelfAttention()(*inputs))
    mask = random_mask(2, 1, 10, 10) | np.eye(10, dtype=bool)
    causal = mask & np.tril(np.ones((10, 10), bool))
    expected = ops.dot_product_attention(KEYS, KEYS, KEYS, mask=ops.convert_to_tensor(causal))
    np.testing.assert_allclose(model.predict([KEYS, mask], verbose=0), to_numpy(expected), atol=1e-5)


@pytest.mark.parametrize("tile", [2, 64])
def test_a_query_that_sees_nothing_gets_zeros(tile):
    mask = random_mask(2, 1, 7, 10)
    mask[0, 0, 3] = mask[1, 0, 0] = False
    y = to_numpy(tiled_attention(QUERIES, KEYS, VALUES, mask, tile=tile))
    np.testing.assert_array_equal(y[[0, 1], [3, 0]], 0)
    np.testing.assert_allclose(y, plain_attention(QUERIES, KEYS, VALUES, mask), rtol=1e-5, atol=1e-5)
    slopes = gradient(lambda q: tiled_attention(q, KEYS, VALUES, mask, tile=tile) ** 2, ops.convert_to_tensor(QUERIES))
    slopes = to_numpy(slopes)
    np.testing.assert_array_equal(slopes[[0, 1], [3, 0]], 0)
    assert np.isfinite(slopes).all()


def test_large_scores_do_not_overflow():
    y = to_numpy(tiled_attention(300 * QUERIES, KEYS, VALUES, tile=3))
    np.testing.assert_allclose(y, plain_attention(300 * QUERIES, KEYS, VALUES), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("is_causal", [False, True])
def test_gradients_are_those_of_plain_attention(inside, is_causal):
    arrays = [ops.convert_to_tensor(x) for x in (KEYS[:, ::-1].copy(), KEYS, VALUES)]
    weights = ops.convert_to_tensor(np.random.default_rng(3).normal(size=KEYS.shape).astype("float32"))

    def slopes(attention, *arrays):
        def of(i):
            def loss(x):
                return weights * attention(*(x if j == i else array for j, array in enumerate(arrays)))

            return gradient(loss, arrays[i])

        return [of(i) for i in range(3)]

    def tiled(*arrays):
        return slopes(lambda q, k, v: tiled_attention(q, k, v, is_causal=is_causal, tile=4), *arrays)

    def plain(q, k, v):
        scores = ops.einsum("bihd,bjhd->bhij", q, k) / 2
        if is_causal:
            scores = ops.where(np.tril(np.ones((10, 10), bool)), scores, -1e30)
        return ops.einsum("bhij,bjhd->bihd", ops.softmax(scores), v)

    actual = (compiled(None, tiled) if inside else tiled)(*arrays)
    for a, b in zip(actual, slopes(plain, *arrays), strict=True):
        assert np.abs(to_numpy(b)).max() > 0.1
        np.testing.assert_allclose(to_numpy(a), to_numpy(b), rtol=1e-4, atol=1e-5)


def test_what_is_stored_grows_as_the_number_of_tokens():
    """And not as its square: the scores are computed again in the backward pass."""
    x = ops.convert_to_tensor(np.random.default_rng(4).normal(size=(1, 96, 1, 4)).astype("float32"))
    short, long = (stored_bytes(lambda x: tiled_attention(x, x, x, is_causal=True, tile=4), x[:, :n]) for n in (24, 96))
    assert 2 * short < long < 5 * short


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="what TensorFlow recomputes has one derivative")
def test_second_derivatives_are_those_of_plain_attention():
    q, k, v = (ops.convert_to_tensor(x[:, :, :1]) for x in (KEYS[:, ::-1].copy(), KEYS, VALUES))
    causal = np.tril(np.ones((10, 10), bool))

    def plain(q):
        scores = ops.where(causal, ops.einsum("bihd,bjhd->bhij", q, k) / 2, -1e30)
        return ops.einsum("bhij,bjhd->bihd", ops.softmax(scores), v)

    def tiled(q):
        return tiled_attention(q, k, v, is_causal=True, tile=5)

    def second(attention):
        function = one_program(None, lambda q: gradient(lambda q: gradient(lambda q: attention(q) ** 2, q) ** 2, q))
        return to_numpy(function(q))

    assert np.abs(second(plain)).max() > 0.1
    np.testing.assert_allclose(second(tiled), second(plain), rtol=1e-4, atol=1e-4)


@keras.saving.register_keras_serializable("test_tiled_attention")
class Attending(keras.layers.Layer):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(12)

    def call(self, x):
        q = ops.reshape(self.dense(x), (-1, 6, 1, 12))
        return tiled_attention(q, q, q, is_causal=True, tile=4)[:, :, 0]


def test_networks_train_through_it():
    model = made_alike(lambda: keras.Sequential([keras.Input((6, 3), batch_size=4), Attending()]))
    model.compile(keras.optimizers.Adam(1e-2), "mse")
    x = np.random.default_rng(0).normal(size=(8, 6, 3))
    losses = model.fit(x, np.ones((8, 6, 12)), batch_size=4, epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def test_half_precision():
    arrays = [ops.cast(x, "bfloat16") for x in (QUERIES, KEYS, VALUES)]
    y = tiled_attention(*arrays, tile=3)
    assert keras.backend.standardize_dtype(y.dtype) == "bfloat16"
    rounded = [to_numpy(x) for x in arrays]
    np.testing.assert_allclose(to_numpy(y), plain_attention(*rounded), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("use", "match"),
    [
        (lambda: tiled_attention(QUERIES, KEYS[:1], VALUES[:1]), "`key` must have the query's batch"),
        (
            lambda: tiled_attention(QUERIES, KEYS, VALUES, mask=np.ones((7, 9), bool)),
            r"`mask` must broadcast to \(batch, heads, 7, 10\)",
        ),
        (lambda: tiled_attention(QUERIES, KEYS, VALUES, tile=0), "`tile` must be an integer >= 1. Received: tile=0"),
        (lambda: tiled_attention(QUERIES, KEYS, VALUES, tile=2.0), "`tile` must be an integer >= 1"),
        (lambda: tiled_attention(QUERIES, KEYS[..., :2], VALUES), r"`key` must have the query's heads and dim"),
        (lambda: tiled_attention(QUERIES, KEYS[:, :, :2], VALUES), "`key` must have the query's heads and dim"),
        (lambda: tiled_attention(QUERIES[0], KEYS[0], VALUES[0]), "`key` must have the query's heads and dim"),
        (lambda: tiled_attention(QUERIES, KEYS, VALUES[:, :9]), "`value` must have the key's shape"),
        (lambda: tiled_attention(QUERIES, KEYS, VALUES, np.full((7, 10), np.nan, "float32")), "`mask` must be bool"),
        (lambda: tiled_attention(QUERIES, KEYS, VALUES, scale=np.inf), "`scale` must be a finite number or None"),
        (
            lambda: tiled_attention(1j * QUERIES, KEYS, VALUES),
            "`query` must be real numbers. Received: query=dtype",
        ),
    ],
)
def test_bad_input(use, match):
    with pytest.raises(ValueError, match=match):
        use()
