import keras
import numpy as np
import pytest
from keras import ops

from keras_gen.core.fixtures import save_and_load, to_numpy
from keras_gen.layers import VectorQuantizer
from keras_gen.ops import gradient, rotation_trick

EPSILON = 1e-5
CODES = np.random.default_rng(10).normal(size=(5, 4)).astype("float32")
X = np.random.default_rng(11).normal(size=(12, 4)).astype("float32")


def quantizer(codes=CODES, **options):
    layer = VectorQuantizer(len(codes), **{"initializer": "zeros", **options})
    layer.set_codebook(codes)
    return layer


def tensor(x):
    return ops.convert_to_tensor(x)


def nearest(x, codes):
    return ((np.asarray(x, "float64")[..., None, :] - codes) ** 2).sum(-1).argmin(-1)


def functional(layer, shape=(4,), loss="mse", head=True, **options):
    """A plain model around a layer."""
    inputs = keras.Input(shape)
    outputs = layer(inputs)
    model = keras.Model(inputs, keras.layers.Dense(shape[-1], name="head")(outputs) if head else outputs)
    model.compile(keras.optimizers.SGD(0.1), loss, **options)
    return model


@pytest.mark.parametrize("update", ["ema", "loss"])
def test_values_losses_and_indices_are_the_formulas(update):
    layer = quantizer(codebook_update=update, commitment_cost=0.3)
    for training in (False, True):
        quantized, indices, losses = layer.quantize(tensor(X), training=training)
        expected = nearest(X, CODES)
        np.testing.assert_array_equal(to_numpy(indices), expected)
        np.testing.assert_array_equal(to_numpy(quantized), CODES[expected])
        error = ((X - CODES[expected]) ** 2).mean()
        assert set(losses) == ({"commitment"} if update == "ema" else {"commitment", "codebook"})
        np.testing.assert_allclose(to_numpy(losses["commitment"]), 0.3 * error, rtol=1e-5)
        if update == "loss":
            np.testing.assert_allclose(to_numpy(losses["codebook"]), error, rtol=1e-5)
        layer.set_codebook(CODES)


def test_codes_decode_to_what_call_gives():
    x = X.reshape(2, 2, 3, 4)
    layer = quantizer()
    indices = layer.encode(x)
    assert tuple(indices.shape) == (2, 2, 3)
    np.testing.assert_array_equal(to_numpy(layer.decode(indices)), to_numpy(layer(tensor(x))))


def test_gradients_straight_through_and_of_the_loss():
    layer, weight = quantizer(commitment_cost=0.3), np.arange(48, dtype="float32").reshape(12, 4)
    through = gradient(lambda x: layer.quantize(x)[0] * tensor(weight), tensor(X))
    np.testing.assert_allclose(to_numpy(through), weight)
    pull = gradient(lambda x: layer.quantize(x)[2]["commitment"], tensor(X))
    np.testing.assert_allclose(to_numpy(pull), 0.3 * 2 * (X - CODES[nearest(X, CODES)]) / X.size, rtol=1e-4, atol=1e-7)


def test_rotation_is_used_for_the_gradient():
    layer, codes = quantizer(gradient="rotation"), CODES[nearest(X, CODES)]
    expected = to_numpy(gradient(lambda x: rotation_trick(codes, x), tensor(X)))
    np.testing.assert_allclose(to_numpy(gradient(lambda x: layer.quantize(x)[0], tensor(X))), expected, rtol=1e-5)
    assert np.abs(expected - 1).max() > 0.1


def test_codebook_loss_moves_the_codes_and_not_x():
    layer = quantizer(codebook_update="loss")
    untouched = gradient(lambda x: layer.quantize(x)[2]["codebook"], tensor(X))
    np.testing.assert_array_equal(to_numpy(untouched), np.zeros_like(X))

    class Loss(keras.Model):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def call(self, x):
            return x

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return sum(self.layer.quantize(x)[2].values())

    model = Loss()
    model.compile(keras.optimizers.SGD(1.0))
    model.fit(X, batch_size=12, epochs=1, verbose=0)
    indices = nearest(X, CODES)
    # d/de_k of mean |sg(x) - e_k|^2; the commitment loss does not reach the codes
    moved = np.array([2 * (X[indices == k] - CODES[k]).sum(0) / X.size for k in range(5)])
    np.testing.assert_allclose(to_numpy(layer.codebook), CODES + moved, rtol=1e-4, atol=1e-6)


def ema_step(state, x, decay):
    """The moving averages by hand: returns what they are after a batch."""
    counts, sums, codes = state
    onehot = np.eye(len(codes))[nearest(x, codes)]
    counts = decay * counts + (1 - decay) * onehot.sum(0)
    sums = decay * sums + (1 - decay) * onehot.T @ x
    smoothed = (counts + EPSILON) / (counts.sum() + len(codes) * EPSILON) * counts.sum()
    return counts, sums, sums / smoothed[:, None]


def test_moving_averages_are_those_by_hand(rng):
    layer = quantizer(decay=0.8)
    state = (np.ones(5), CODES.astype("float64"), CODES.astype("float64"))
    for _ in range(4):
        x = rng.normal(size=(12, 4)).astype("float32")
        quantized, *_ = layer.quantize(tensor(x), training=True)
        np.testing.assert_allclose(to_numpy(quantized), state[2][nearest(x, state[2])], rtol=1e-5)  # before the update
        state = ema_step(state, x, 0.8)
        for weight, expected in zip((layer.codes.counts, layer.codes.sums, layer.codebook), state, strict=True):
            np.testing.assert_allclose(to_numpy(weight), expected, rtol=1e-4, atol=1e-6)


def test_moving_averages_advance_in_a_compiled_fit_alone(rng):
    layer = quantizer(decay=0.8)
    model = functional(layer)
    state = (np.ones(5), CODES.astype("float64"), CODES.astype("float64"))
    model.fit(X, X, batch_size=4, epochs=2, shuffle=False, verbose=0)
    for start in (0, 4, 8) * 2:
        state = ema_step(state, X[start : start + 4], 0.8)
    np.testing.assert_allclose(to_numpy(layer.codebook), state[2], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(to_numpy(layer.codes.counts), state[0], rtol=1e-4)
    before = to_numpy(layer.codebook).copy()
    model.evaluate(X, X, verbose=0)
    model.predict(X, verbose=0)
    layer.encode(X)
    np.testing.assert_array_equal(to_numpy(layer.codebook), before)


def test_unused_codes_do_not_explode(rng):
    """With counts from 0, a code that the first batch misses is thrown far away, and never used again."""
    layer = VectorQuantizer(64, initializer=keras.initializers.RandomNormal(seed=0), decay=0.99)
    x = tensor(rng.normal(size=(256, 8)).astype("float32"))
    for _ in range(50):
        layer.quantize(x, training=True)
    assert np.linalg.norm(to_numpy(layer.codebook), axis=1).max() < np.linalg.norm(to_numpy(x), axis=1).max()
    usage = len(np.unique(to_numpy(layer.encode(x)))) / 64
    assert usage > 0.25


def test_restarts_keep_the_codes_alive(rng):
    """Random codes at 50 times the data's distance: without restarts, one or two take everything."""
    x = rng.normal(size=(20, 256, 8)).astype("float32")
    used = {}
    for restart_below in (0.0, 1.0):
        far = keras.initializers.RandomNormal(stddev=50.0, seed=0)
        layer = VectorQuantizer(64, initializer=far, decay=0.8, restart_below=restart_below, seed=0)
        for batch in x:
            layer.quantize(tensor(batch), training=True)
        used[restart_below] = len(np.unique(to_numpy(layer.encode(x)))) / 64
    assert used[0.0] < 0.3
    assert used[1.0] > 0.95


def test_a_restart_resets_all_statistics():
    """Were counts or sums left behind, the next step would move the code back."""
    codes = np.array([[0.0, 0], [100, 100]], "float32")
    layer = quantizer(codes, decay=0.5, restart_below=0.6, seed=0)
    x = np.array([[0.1, 0], [0, 0.1], [0.1, 0.1]], "float32")
    layer.quantize(tensor(x), training=True)  # the count of code 1 falls to 0.5
    restarted = to_numpy(layer.codebook)[1].copy()
    assert any(np.array_equal(restarted, row) for row in x)
    np.testing.assert_allclose(to_numpy(layer.codes.counts), [2.0, 1.0])
    np.testing.assert_allclose(to_numpy(layer.codes.sums)[1], restarted)
    counts, sums = to_numpy(layer.codes.counts), to_numpy(layer.codes.sums)
    expected = ema_step((counts, sums, to_numpy(layer.codebook)), x, 0.5)
    layer.quantize(tensor(x), training=True)
    np.testing.assert_allclose(to_numpy(layer.codebook)[1], expected[2][1], rtol=1e-4)
    assert np.abs(to_numpy(layer.codebook)).max() < 1


def test_restarts_work_with_codes_trained_by_the_optimizer(rng):
    far = keras.initializers.RandomNormal(stddev=50.0, seed=0)
    layer = VectorQuantizer(
        16, codebook_update="loss", initializer=far, decay=0.8, restart_below=1.0, gradient="rotation", seed=0
    )
    x = rng.normal(size=(256, 4)).astype("float32")
    functional(layer).fit(x, x, batch_size=64, epochs=10, verbose=0)
    assert len(np.unique(to_numpy(layer.encode(x)))) >= 15


def test_statistics_are_those_of_the_whole_batch_where_halves_are_summed():
    """`reduce` as two devices would have it: each sees half a batch, and both get the sums of both."""
    whole = quantizer(decay=0.7)
    whole.quantize(tensor(X), training=True)

    class Half(VectorQuantizer):
        other = ()

        def reduce(self, statistics):
            self.mine.append(statistics)
            return statistics + self.other[len(self.mine) - 1] if self.other else statistics

    def half(x, other):
        layer = Half(5, initializer="zeros", decay=0.7)
        layer.set_codebook(CODES)
        layer.mine, layer.other = [], other
        layer.quantize(tensor(x), training=True)
        return layer

    second = half(X[5:], ())
    first = half(X[:5], second.mine)
    for name in ("counts", "sums", "base"):
        np.testing.assert_allclose(
            to_numpy(getattr(first.codes, name)), to_numpy(getattr(whole.codes, name)), rtol=1e-5, atol=1e-6
        )


def test_heads_share_a_codebook():
    codes = np.random.default_rng(0).normal(size=(6, 2)).astype("float32")
    layer = quantizer(codes, num_heads=2)
    x = X.reshape(3, 4, 4)
    quantized, indices, losses = layer.quantize(tensor(x))
    parts = x.reshape(3, 4, 2, 2)
    expected = nearest(parts, codes)
    assert tuple(indices.shape) == (3, 4, 2)
    np.testing.assert_array_equal(to_numpy(indices), expected)
    np.testing.assert_array_equal(to_numpy(quantized), codes[expected].reshape(3, 4, 4))
    np.testing.assert_array_equal(to_numpy(layer.decode(indices)), to_numpy(quantized))
    np.testing.assert_allclose(
        to_numpy(losses["commitment"]), 0.25 * ((parts - codes[expected]) ** 2).mean(), rtol=1e-5
    )


@pytest.mark.parametrize("update", ["ema", "loss"])
def test_cosine_does_not_see_lengths(update):
    layer = quantizer(distance="cosine", codebook_update=update)
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    unit_codes = CODES / np.linalg.norm(CODES, axis=1, keepdims=True)
    quantized, indices, losses = layer.quantize(tensor(X))
    np.testing.assert_array_equal(to_numpy(indices), (unit @ unit_codes.T).argmax(1))
    np.testing.assert_allclose(to_numpy(quantized), unit_codes[to_numpy(indices)], rtol=1e-5)
    np.testing.assert_allclose(
        to_numpy(losses["commitment"]), 0.25 * ((unit - to_numpy(quantized)) ** 2).mean(), rtol=1e-4
    )
    scaled, again, scaled_losses = layer.quantize(tensor(X * 1e3))
    np.testing.assert_array_equal(to_numpy(again), to_numpy(indices))
    np.testing.assert_allclose(to_numpy(scaled), to_numpy(quantized), rtol=1e-5)
    np.testing.assert_allclose(to_numpy(scaled_losses["commitment"]), to_numpy(losses["commitment"]), rtol=1e-4)
    # lengths have no gradient: that along x is 0
    found = to_numpy(gradient(lambda x: layer.quantize(x)[0] * tensor(CODES[0]), tensor(X)))
    np.testing.assert_allclose((found * X).sum(-1), 0, atol=1e-4)
    for _ in range(20):
        layer.quantize(tensor(X * 1e3), training=True)
    np.testing.assert_allclose(np.linalg.norm(to_numpy(layer.codebook), axis=1), 1, rtol=1e-5)


def test_cosine_is_finite_at_zero():
    layer = quantizer(distance="cosine")
    x = tensor(np.zeros((2, 4), "float32"))
    assert np.isfinite(to_numpy(layer(x, training=True))).all()
    assert np.isfinite(to_numpy(gradient(lambda x: layer.quantize(x)[0], x))).all()
    assert np.isfinite(to_numpy(layer.codebook)).all()


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16", "float16", "bfloat16"])
@pytest.mark.parametrize("update", ["ema", "loss"])
def test_distances_codes_and_statistics_are_float32_under_any_policy(dtype, update, rng):
    codes = rng.normal(size=(300, 4)).astype("float32")
    x = rng.integers(-8, 8, (50, 4)).astype("float32") / 4  # exact in half precision
    layer, full = quantizer(codes, dtype=dtype, codebook_update=update), quantizer(codes, codebook_update=update)
    quantized, indices, losses = layer.quantize(ops.cast(x, layer.compute_dtype), training=True)
    assert keras.backend.standardize_dtype(quantized.dtype) == layer.compute_dtype
    np.testing.assert_array_equal(to_numpy(indices), to_numpy(full.quantize(tensor(x), training=True)[1]))
    for value in (layer.codebook, layer.codes.counts, *losses.values(), *layer.weights):
        assert keras.backend.standardize_dtype(value.dtype) == "float32"
    np.testing.assert_allclose(to_numpy(layer.codebook), to_numpy(full.codebook), rtol=1e-5, atol=1e-6)


def test_losses_count_in_fit_and_in_evaluation():
    layer = quantizer(commitment_cost=2.0)
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layer(inputs))
    model.compile(keras.optimizers.SGD(0.0), "mse")
    error = ((X - CODES[nearest(X, CODES)]) ** 2).mean()
    assert model.evaluate(X, X, verbose=0, return_dict=True)["loss"] == pytest.approx(3 * error, rel=1e-4)
    assert model.fit(X, X, batch_size=12, verbose=0).history["loss"][0] == pytest.approx(3 * error, rel=1e-4)


@pytest.mark.parametrize("heads", [1, 2])
def test_perplexity_and_usage_are_logged_over_the_epoch(heads):
    codes = np.random.default_rng(0).normal(size=(7, 4 // heads)).astype("float32")
    layer = quantizer(codes, num_heads=heads, decay=0.999999)  # it hardly learns
    model = functional(layer)
    indices = nearest(X.reshape(12, heads, -1), codes).ravel()
    p = np.bincount(indices, minlength=7) / indices.size
    expected = {"perplexity": np.exp(-(p * np.log(np.maximum(p, 1e-30))).sum()), "usage": (p > 0).mean()}
    history = model.fit(X, X, batch_size=4, epochs=2, validation_data=(X[:4], X[:4]), verbose=0).history
    logs = model.evaluate(X, X, batch_size=5, verbose=0, return_dict=True)
    first = nearest(X[:4].reshape(4, heads, -1), codes).ravel()
    for name, value in expected.items():
        np.testing.assert_allclose(history[name], [value, value], rtol=1e-4)
        assert logs[name] == pytest.approx(value, rel=1e-4)
    np.testing.assert_allclose(history["val_usage"], len(np.unique(first)) / 7, rtol=1e-4)


def test_files_keep_the_state_and_training_goes_on(rng):
    def make():
        keras.utils.set_random_seed(1)
        return functional(VectorQuantizer(6, restart_below=0.5, decay=0.7, seed=3, name="quantizer"))

    x = rng.normal(size=(40, 4)).astype("float32")
    fit = {"x": x, "y": x, "batch_size": 10, "shuffle": False, "verbose": 0}
    whole, stopped = make(), make()
    whole.fit(epochs=2, **fit)
    stopped.fit(epochs=1, **fit)
    loaded = save_and_load(stopped)
    for name in ("counts", "sums", "base", "initialized"):
        before, after = (getattr(model.get_layer("quantizer").codes, name) for model in (stopped, loaded))
        np.testing.assert_array_equal(to_numpy(before), to_numpy(after))
    loaded.fit(epochs=1, **fit)
    np.testing.assert_allclose(
        to_numpy(loaded.get_layer("quantizer").codebook), to_numpy(whole.get_layer("quantizer").codebook), atol=1e-5
    )


def test_a_model_that_holds_one_is_converted_to_integers():
    model = functional(quantizer())
    before = model.predict(X, verbose=0)
    model.quantize("int8")
    assert model.get_layer("head").quantization_mode == "int8"
    np.testing.assert_allclose(model.predict(X, verbose=0), before, atol=0.1)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"num_codes": 0}, "`num_codes` must be an integer >= 1. Received: num_codes=0"),
        ({"num_codes": 2.5}, "`num_codes` must be an integer >= 1"),
        ({"num_codes": True}, "`num_codes` must be an integer >= 1"),
        ({"commitment_cost": -0.1}, "`commitment_cost` must be >= 0 and finite. Received: commitment_cost=-0.1"),
        ({"commitment_cost": float("nan")}, "`commitment_cost` must be >= 0"),
        ({"codebook_update": "sgd"}, "`codebook_update` must be one of 'ema', 'loss'. Received"),
        ({"decay": 1.0}, r"`decay` must be in \(0, 1\). Received: decay=1.0"),
        ({"decay": 0}, r"`decay` must be in \(0, 1\)"),
        ({"num_heads": 0}, "`num_heads` must be an integer >= 1"),
        ({"distance": "euclid"}, "`distance` must be one of 'l2', 'cosine'"),
        ({"gradient": "reinmax"}, "`gradient` must be one of 'straight_through', 'rotation'"),
        ({"restart_below": -1}, "`restart_below` must be >= 0"),
        ({"initializer": "k-means"}, '`initializer` must be "kmeans" or a Keras initializer. Received: initializer='),
    ],
)
def test_bad_arguments(options, match):
    with pytest.raises(ValueError, match=match):
        VectorQuantizer(**{"num_codes": 4, **options})


@pytest.mark.parametrize(
    ("use", "match"),
    [
        (
            lambda: VectorQuantizer(4, num_heads=3)(tensor(X)),
            "`num_heads` must divide 4 channels. Received: num_heads=3",
        ),
        (lambda: quantizer()(tensor(X[:, :3])), r"`x` must have 4 channels. Received: x=shape \(12, 3\)"),
        (lambda: quantizer()(tensor(X.astype("int32"))), "`x` must be floating-point. Received: x=dtype int32"),
        (lambda: quantizer().encode(X.astype("int32")), "`x` must be floating-point"),
        (lambda: quantizer().encode(X[:, :3]), "`x` must have 4 channels"),
        (lambda: quantizer().quantize(tensor(X[0])), r"`x` must have shape \(batch, ..., channels\)"),
        (lambda: quantizer().set_codebook(CODES[:3]), r"`codebook` must have shape \(5, 4\). Received: .*\(3, 4\)"),
        (lambda: VectorQuantizer(4).encode(X), "`quantizer` must be built"),
        (lambda: VectorQuantizer(4).decode([0]), "`quantizer` must be built"),
        (lambda: VectorQuantizer(4).codebook, "`quantizer` must be built"),
    ],
)
def test_bad_input(use, match):
    with pytest.raises(ValueError, match=match):
        use()
