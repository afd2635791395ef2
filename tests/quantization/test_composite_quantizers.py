import itertools

import keras
import numpy as np
import pytest
from keras import ops

from keras_gen.core.fixtures import save_and_load, to_numpy
from keras_gen.layers import (
    FiniteScalarQuantizer,
    GroupedVectorQuantizer,
    LookupFreeQuantizer,
    ResidualVectorQuantizer,
    VectorQuantizer,
)
from keras_gen.ops import gradient

X = np.random.default_rng(0).normal(size=(20, 3, 4)).astype("float32")


def tensor(x):
    return ops.convert_to_tensor(x)


def vector_quantizers(levels, dim=4, codes=6, **options):
    layers = [VectorQuantizer(codes, initializer="zeros", **options) for _ in range(levels)]
    for level, layer in enumerate(layers):
        layer.set_codebook(np.random.default_rng(level).normal(size=(codes, dim)).astype("float32") / 2**level)
    return layers


def test_residual_levels_are_those_by_hand():
    layer = ResidualVectorQuantizer(vector_quantizers(3))
    quantized, indices, losses = layer.quantize(tensor(X))
    residual, total, loss = X, 0, 0
    for level, part in enumerate(layer.quantizers):
        q, index, part_losses = part.quantize(tensor(residual))
        np.testing.assert_array_equal(to_numpy(indices)[..., level], to_numpy(index))
        residual, total, loss = residual - to_numpy(q), total + to_numpy(q), loss + to_numpy(part_losses["commitment"])
        np.testing.assert_allclose(to_numpy(layer.decode(indices[..., : level + 1])), total, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(to_numpy(quantized), total, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(to_numpy(losses["commitment"]), loss, rtol=1e-5)
    np.testing.assert_array_equal(to_numpy(layer.encode(X)), to_numpy(indices))


@pytest.mark.parametrize("kind", ["straight_through", "rotation"])
def test_residual_gradient_is_one_identity(kind):
    """Straight through at every level gives levels times the identity."""
    layer, weight = ResidualVectorQuantizer(vector_quantizers(3, gradient=kind)), np.arange(4, dtype="float32")
    found = gradient(lambda x: layer.quantize(x)[0] * tensor(weight), tensor(X))
    np.testing.assert_allclose(to_numpy(found), np.broadcast_to(weight, X.shape), atol=1e-6)


def test_every_level_pulls_the_encoder():
    """With residuals from unstopped codes the commitment gradient would end at the first level."""
    layer = ResidualVectorQuantizer(vector_quantizers(3, commitment_cost=0.3))
    found = to_numpy(gradient(lambda x: layer.quantize(x)[2]["commitment"], tensor(X)))
    residual, expected = X, 0
    for part in layer.quantizers:
        residual = residual - to_numpy(part.quantize(tensor(residual))[0])
        expected = expected + 0.3 * 2 * residual / X.size
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_the_error_falls_with_the_levels(rng):
    x = tensor(rng.normal(size=(500, 4)).astype("float32"))
    layer = ResidualVectorQuantizer([VectorQuantizer(8, decay=0.9, seed=level) for level in range(4)])
    for _ in range(5):
        layer.quantize(x, training=True)
    indices = layer.encode(x)
    errors = [((to_numpy(layer.decode(indices[:, :n])) - to_numpy(x)) ** 2).mean() for n in range(1, 5)]
    assert all(later < 0.8 * earlier for earlier, later in itertools.pairwise(errors)), errors


def test_scalar_quantizers_are_levels_too():
    layer = ResidualVectorQuantizer([LookupFreeQuantizer(16), FiniteScalarQuantizer((3, 3, 3, 3))])
    quantized, indices, losses = layer.quantize(tensor(X))
    np.testing.assert_allclose(to_numpy(layer.decode(indices)), to_numpy(quantized), atol=1e-6)
    assert layer.code_sizes == (16, 81)
    assert set(losses) == {"commitment", "entropy"}


def test_groups_are_separate_quantizers():
    parts = vector_quantizers(2, dim=2, decay=0.5)
    alone = vector_quantizers(2, dim=2, decay=0.5)
    layer = GroupedVectorQuantizer(parts)
    for _ in range(2):  # the second time with the codes of the first's update
        quantized, indices, losses = layer.quantize(tensor(X), training=True)
        expected = [
            part.quantize(tensor(x), training=True) for part, x in zip(alone, (X[..., :2], X[..., 2:]), strict=True)
        ]
        np.testing.assert_allclose(
            to_numpy(quantized), np.concatenate([to_numpy(e[0]) for e in expected], -1), rtol=1e-5, atol=1e-6
        )
        np.testing.assert_array_equal(to_numpy(indices), np.stack([to_numpy(e[1]) for e in expected], -1))
        mean = np.mean([to_numpy(e[2]["commitment"]) for e in expected])
        np.testing.assert_allclose(to_numpy(losses["commitment"]), mean, rtol=1e-5)
    for part, other in zip(parts, alone, strict=True):
        np.testing.assert_allclose(to_numpy(part.codebook), to_numpy(other.codebook), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(to_numpy(layer.decode(layer.encode(X))), to_numpy(layer(tensor(X))))
    found = gradient(lambda x: layer.quantize(x)[0], tensor(X))
    np.testing.assert_allclose(to_numpy(found), np.ones_like(X))


COMPOSITES = {
    "residual": lambda: ResidualVectorQuantizer(vector_quantizers(2, decay=0.999999), name="quantizer"),
    "grouped": lambda: GroupedVectorQuantizer(vector_quantizers(2, dim=2, decay=0.999999), name="quantizer"),
}


def plain_model(name):
    inputs = keras.Input((3, 4))
    model = keras.Model(inputs, keras.layers.Dense(4)(COMPOSITES[name]()(inputs)))
    model.compile(keras.optimizers.SGD(0.01), "mse")
    return model


@pytest.mark.parametrize("name", COMPOSITES)
def test_fit_logs_the_mean_over_codebooks_and_nothing_of_the_parts(name):
    model = plain_model(name)
    layer = model.get_layer("quantizer")
    indices = to_numpy(layer.encode(X)).reshape(-1, 2)
    p = np.stack([np.bincount(column, minlength=6) for column in indices.T]) / len(indices)
    expected = np.exp(-(p * np.log(np.maximum(p, 1e-30))).sum(1)).mean()
    history = model.fit(X, X, batch_size=10, epochs=2, verbose=0).history
    assert set(history) == {"loss", "perplexity", "usage"}
    np.testing.assert_allclose(history["perplexity"], expected, rtol=1e-4)
    np.testing.assert_allclose(history["usage"], (p > 0).mean(), rtol=1e-4)
    loaded = save_and_load(model)
    logs = loaded.evaluate(X, X, verbose=0, return_dict=True)
    assert set(logs) == {"loss", "perplexity", "usage"}
    assert logs["perplexity"] == pytest.approx(expected, rel=1e-4)
    np.testing.assert_allclose(loaded.predict(X, verbose=0), model.predict(X, verbose=0), rtol=1e-5, atol=1e-6)
    loaded.quantize("int8")
    assert np.isfinite(loaded.predict(X, verbose=0)).all()


def one_layer_twice():
    layer = VectorQuantizer(4)
    return [layer, layer]


@pytest.mark.parametrize("kind", [ResidualVectorQuantizer, GroupedVectorQuantizer])
@pytest.mark.parametrize(
    ("parts", "match"),
    [
        (lambda: [], "`quantizers` must be a list of quantizers"),
        (lambda: VectorQuantizer(4), "`quantizers` must be a list of quantizers"),
        (lambda: [keras.layers.Dense(4)], "`quantizers` must be a list of quantizers"),
        (lambda: [VectorQuantizer(4, num_heads=2)], "`quantizers` must have one head and one codebook each"),
        (
            lambda: [ResidualVectorQuantizer([VectorQuantizer(4), VectorQuantizer(4)])],
            "`quantizers` must have one head",
        ),
        (one_layer_twice, "`quantizers` must be different layers"),
    ],
)
def test_bad_arguments(kind, parts, match):
    with pytest.raises(ValueError, match=match):
        kind(parts())


def test_bad_input():
    three = GroupedVectorQuantizer([VectorQuantizer(4) for _ in range(3)])
    with pytest.raises(ValueError, match="`quantizers` must have a length that divides 4 channels. .*3 quantizers"):
        three(tensor(X))
    for make in COMPOSITES.values():
        layer = make()
        layer(tensor(X))
        for call in (layer, layer.encode):
            with pytest.raises(ValueError, match="`x` must have . channels"):
                call(tensor(X[..., :2]))
            with pytest.raises(ValueError, match="`x` must be floating-point"):
                call(tensor(X.astype("int32")))
