"""Codes that start at the centers of data, and masks: what counts as data."""

import functools

import keras
import numpy as np
import pytest
from keras import ops
from offenders import not_refused

from keras_gen.core.fixtures import save_and_load, to_numpy
from keras_gen.layers import (
    FiniteScalarQuantizer,
    GroupedVectorQuantizer,
    LookupFreeQuantizer,
    ResidualVectorQuantizer,
    VectorQuantizer,
)

CENTERS = np.array([[8, 0], [0, 8], [-8, 0], [0, -8], [0, 0], [8, 8], [-8, -8], [20, 20]], "float32")


def clusters(rng, n=200):
    groups = rng.permutation(np.arange(n) % 8)
    return (CENTERS[groups] + 0.1 * rng.normal(size=(n, 2))).astype("float32")


def distance_to_centers(layer):
    """How far the centers are from the nearest code."""
    codes = to_numpy(layer.codebook)
    return np.sqrt(((CENTERS[:, None] - codes) ** 2).sum(-1)).min(1).max()


def plain_model(layer, shape=(2,), learning_rate=0.0):
    inputs = keras.Input(shape)
    model = keras.Model(inputs, keras.layers.Dense(2)(layer(inputs)))
    model.compile(keras.optimizers.SGD(learning_rate), "mse")
    return model


@pytest.mark.parametrize("seed", range(3))
def test_adapt_finds_separated_centers(seed, rng):
    layer = VectorQuantizer(8, seed=seed)
    layer.adapt(clusters(rng).reshape(20, 10, 2))
    assert distance_to_centers(layer) < 0.1
    assert to_numpy(layer.codes.initialized) == 1


def test_adapt_takes_the_mean_of_each_cluster(rng):
    x = clusters(rng)
    layer = VectorQuantizer(8, seed=0)
    layer.adapt(x)
    indices = to_numpy(layer.encode(x))
    means = np.stack([x[indices == k].mean(0) for k in range(8)])
    np.testing.assert_allclose(to_numpy(layer.codebook), means, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", [{"distance": "cosine"}, {"num_heads": 2}, {"codebook_update": "loss"}])
def test_adapt_works_for_every_kind(options, rng):
    layer = VectorQuantizer(3, seed=0, **options)
    x = np.repeat([[1.0, 5], [-2, 1], [3, -3]], 20, axis=0).astype("float32")
    layer.adapt(x)
    error = to_numpy(layer.quantize(ops.convert_to_tensor(x))[2]["commitment"])
    assert error < (1 if options == {"num_heads": 2} else 1e-10)


def test_adapt_with_fewer_vectors_than_codes():
    x = np.array([[1.0, 0], [0, 2]], "float32")
    layer = VectorQuantizer(5, seed=0)
    layer.adapt(x)
    assert {tuple(code) for code in to_numpy(layer.codebook)} == {(1.0, 0.0), (0.0, 2.0)}
    np.testing.assert_array_equal(to_numpy(layer(ops.convert_to_tensor(x))), x)


def test_adapt_replaces_an_earlier_start(rng):
    layer = VectorQuantizer(8, initializer="zeros", seed=0)
    layer.quantize(ops.convert_to_tensor(clusters(rng) + 100), training=True)
    layer.adapt(clusters(rng))
    np.testing.assert_array_equal(to_numpy(layer.codes.counts), np.ones(8))
    np.testing.assert_array_equal(to_numpy(layer.codes.sums), to_numpy(layer.codebook))


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (np.array([[1.0, np.nan]]), "`data` must be finite"),
        (np.array([[1.0, np.inf]]), "`data` must be finite"),
        (np.array([[1, 2]]), r"`data` must be floats of shape \(batch, ..., channels\). Received: data=int64"),
        (np.zeros((0, 2)), r"`data` must hold at least one vector. Received: data=shape \(0, 2\)"),
        (np.zeros(3), r"`data` must be floats of shape"),
        (np.zeros((2, 3)), "`x` must have 2 channels"),
    ],
)
def test_adapt_refuses(data, match):
    layer = VectorQuantizer(4)
    layer.build((None, 2))
    before = to_numpy(layer.codebook).copy()
    with pytest.raises(ValueError, match=match):
        layer.adapt(data)
    with pytest.raises(ValueError, match="`iterations` must be an integer >= 1"):
        layer.adapt(np.zeros((2, 2)), iterations=0)
    np.testing.assert_array_equal(to_numpy(layer.codebook), before)


@pytest.mark.parametrize("update", ["ema", "loss"])
def test_first_batch_places_the_codes_in_a_compiled_fit(update, rng):
    layer = VectorQuantizer(8, codebook_update=update, decay=0.999999, seed=0)
    model = plain_model(layer)
    x = clusters(rng)
    model.fit(x, x, batch_size=len(x), verbose=0)
    assert distance_to_centers(layer) < 0.1
    # once: the second batch, far away, hardly moves them
    model.fit(x + 100, x, batch_size=len(x), epochs=2, verbose=0)
    assert distance_to_centers(layer) < 1
    assert np.abs(to_numpy(layer.codebook)).max() < 25


@pytest.mark.parametrize("update", ["ema", "loss"])
def test_codes_placed_on_the_first_batch_are_those_the_loss_trains(update, rng):
    """What a layer assigns to a trained weight is lost on JAX; the step of the optimizer must be kept, too."""
    layer = VectorQuantizer(8, codebook_update=update, decay=0.5, seed=0)
    model = plain_model(layer, learning_rate=1.0)
    x = clusters(rng)
    model.fit(x, x, batch_size=len(x), verbose=0)
    before = to_numpy(layer.codebook).copy()
    model.fit(x + 0.5, x, batch_size=len(x), epochs=3, verbose=0)
    moved = to_numpy(layer.codebook) - before
    assert (moved > 0.01).all()
    assert (moved < 0.6).all()


def test_evaluation_does_not_place_the_codes(rng):
    layer = VectorQuantizer(8, seed=0)
    model = plain_model(layer)
    before = to_numpy(layer.codebook).copy()
    model.evaluate(clusters(rng), clusters(rng), verbose=0)
    model.predict(clusters(rng), verbose=0)
    layer(ops.convert_to_tensor(clusters(rng)))
    np.testing.assert_array_equal(to_numpy(layer.codebook), before)
    assert to_numpy(layer.codes.initialized) == 0


def test_a_loaded_file_does_not_place_the_codes_again(rng):
    model = plain_model(VectorQuantizer(8, decay=0.999999, seed=0, name="quantizer"))
    x = clusters(rng)
    model.fit(x, x, batch_size=len(x), verbose=0)
    loaded = save_and_load(model)
    loaded.fit(x + 100, x, batch_size=len(x), verbose=0)
    assert distance_to_centers(loaded.get_layer("quantizer")) < 0.2
    # and one that was saved before it has seen data does
    fresh = save_and_load(plain_model(VectorQuantizer(8, decay=0.999999, seed=0, name="quantizer")))
    fresh.fit(x, x, batch_size=len(x), verbose=0)
    assert distance_to_centers(fresh.get_layer("quantizer")) < 0.1


def test_a_small_first_batch_works():
    layer = VectorQuantizer(8, seed=0)
    x = ops.convert_to_tensor(np.array([[1.0, 2], [3, 4]], "float32"))
    layer.quantize(x, training=True)
    np.testing.assert_allclose(to_numpy(layer(x)), to_numpy(x), rtol=1e-5)


# Masks. Positions with garbage, which would move everything if they counted.
MASK = np.array([[True, True, False], [True, False, False], [True, True, True], [False, True, True]])
VALID = np.random.default_rng(1).normal(size=(4, 3, 2)).astype("float32")
GARBAGE = np.where(MASK[..., None], VALID, 50 + VALID)

QUANTIZERS = {
    "ema": lambda: VectorQuantizer(4, decay=0.5, restart_below=0.5, initializer="random_normal", seed=0),
    "kmeans": lambda: VectorQuantizer(4, decay=0.5, seed=0),
    "loss": lambda: VectorQuantizer(4, codebook_update="loss", decay=0.5, restart_below=0.5, seed=0),
    "heads": lambda: VectorQuantizer(4, num_heads=2, decay=0.5, restart_below=0.5, seed=0),
    "cosine": lambda: VectorQuantizer(4, distance="cosine", decay=0.5, seed=0),
    "residual": lambda: ResidualVectorQuantizer([VectorQuantizer(4, decay=0.5, seed=seed) for seed in (0, 1)]),
    "grouped": lambda: GroupedVectorQuantizer([VectorQuantizer(4, decay=0.5, seed=seed) for seed in (0, 1)]),
    "finite_scalar": lambda: FiniteScalarQuantizer((3, 4)),
    "lookup_free": lambda: LookupFreeQuantizer(4),
}


def state(layer):
    return {weight.path.split("/", 1)[-1]: to_numpy(weight) for weight in layer.variables if "seed" not in weight.path}


@pytest.mark.parametrize("name", QUANTIZERS)
def test_masked_positions_count_nowhere(name):
    """The same as a batch without them; what stands there plays no part."""
    results = []
    keras.utils.set_random_seed(0)
    for x, mask in ((VALID[MASK][None], None), (VALID, MASK), (GARBAGE, MASK)):
        keras.utils.set_random_seed(0)
        layer = QUANTIZERS[name]()
        _, indices, losses = layer.quantize(
            ops.convert_to_tensor(x), None if mask is None else ops.convert_to_tensor(mask), training=True
        )
        kept = to_numpy(indices)[0] if mask is None else to_numpy(indices)[mask]
        metrics = {metric.name: float(to_numpy(metric.result())) for metric in layer.metrics}
        results.append(({key: to_numpy(value) for key, value in losses.items()}, metrics, kept, state(layer)))
    for other in results[1:]:
        for key, value in results[0][0].items():
            np.testing.assert_allclose(other[0][key], value, rtol=1e-4, atol=1e-6, err_msg=key)
        assert other[1] == pytest.approx(results[0][1], rel=1e-5)
        np.testing.assert_array_equal(other[2], results[0][2])
        for (key, value), another in zip(results[0][3].items(), other[3].values(), strict=True):
            np.testing.assert_allclose(another, value, rtol=1e-4, atol=1e-5, err_msg=key)


@pytest.mark.parametrize("name", QUANTIZERS)
def test_a_batch_without_a_valid_position_changes_nothing(name):
    layer = QUANTIZERS[name]()
    layer.build((None, 3, 2))
    mask = ops.zeros((4, 3), dtype="bool")
    before = state(layer)
    for _ in range(2):
        *_, losses = layer.quantize(ops.convert_to_tensor(GARBAGE), mask, training=True)
        assert all(to_numpy(loss) == 0 for loss in losses.values())
    for key, value in state(layer).items():
        np.testing.assert_array_equal(value, before[key], err_msg=key)
    # nor is the first batch with valid ones any other for it
    layer.quantize(ops.convert_to_tensor(VALID), training=True)
    assert all(np.isfinite(value).all() for value in state(layer).values())


def test_masks_flow_from_keras_layers():
    codes = np.random.default_rng(0).normal(size=(4, 2)).astype("float32")

    def model():
        inputs = keras.Input((3, 2))
        layer = VectorQuantizer(4, initializer="zeros", decay=0.5, name="quantizer")
        h = layer(keras.layers.Masking(mask_value=50.0)(inputs))
        outputs = keras.layers.Dense(2, kernel_initializer="zeros")(keras.layers.GlobalAveragePooling1D()(h))
        layer.set_codebook(codes)
        model = keras.Model(inputs, outputs)
        model.compile(keras.optimizers.SGD(0.0), "mse")
        return model, layer

    x = np.where(MASK[..., None], VALID, 50.0).astype("float32")
    masked, layer = model()
    history = masked.fit(x, np.zeros((4, 2)), batch_size=4, verbose=0).history
    expected = VectorQuantizer(4, initializer="zeros", decay=0.5)
    expected.set_codebook(codes)
    _, indices, losses = expected.quantize(ops.convert_to_tensor(VALID[MASK]), training=True)
    assert history["loss"][0] == pytest.approx(float(to_numpy(losses["commitment"])), rel=1e-4)
    assert history["usage"][0] == pytest.approx(len(np.unique(to_numpy(indices))) / 4)
    np.testing.assert_allclose(to_numpy(layer.codebook), to_numpy(expected.codebook), rtol=1e-4, atol=1e-6)


def test_masks_flow_from_an_embedding_and_on_to_a_pooling():
    inputs = keras.Input((3,), dtype="int32")
    embedding = keras.layers.Embedding(5, 2, mask_zero=True)
    layer = VectorQuantizer(4, initializer="random_normal")
    outputs = keras.layers.GlobalAveragePooling1D()(layer(embedding(inputs)))
    model = keras.Model(inputs, outputs)
    tokens = np.array([[1, 2, 0], [3, 0, 0]])
    quantized = to_numpy(layer.decode(layer.encode(embedding(tokens))))
    expected = np.stack([quantized[0, :2].mean(0), quantized[1, 0]])
    np.testing.assert_allclose(model.predict(tokens, verbose=0), expected, rtol=1e-5)


def test_a_mask_of_another_shape_is_refused():
    offenders = not_refused(
        (
            f"{name} {shape}",
            functools.partial(make().quantize, ops.convert_to_tensor(VALID), ops.ones(shape, dtype="bool")),
            r"`mask` must have shape \(4, 3\), the shape of x without channels. Received: mask=",
        )
        for name, make in QUANTIZERS.items()
        for shape in [(4,), (4, 2), (4, 3, 2), (4, 1)]
    )
    assert not offenders, "\n".join(offenders)
