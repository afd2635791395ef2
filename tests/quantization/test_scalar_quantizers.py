import itertools

import keras
import numpy as np
import pytest
from keras import ops
from scipy.special import log_softmax

from keras_gen.core.fixtures import to_numpy
from keras_gen.layers import FiniteScalarQuantizer, LookupFreeQuantizer
from keras_gen.metrics import CodePerplexity, CodeUsage
from keras_gen.ops import gradient


def tensor(x):
    return ops.convert_to_tensor(np.asarray(x, "float32"))


@pytest.mark.parametrize("levels", [(2,), (3,), (4,), (5, 3), (8, 5, 5), (2, 2, 7), (16, 9)])
def test_finite_scalar_indices_number_all_codes(levels):
    layer = FiniteScalarQuantizer(levels)
    indices = np.arange(np.prod(levels))
    codes = to_numpy(layer.decode(indices))
    assert len(np.unique(codes, axis=0)) == len(indices)
    assert np.abs(codes).max() <= 1
    half = np.array(levels) // 2
    for code, number in zip(
        np.round(codes * half + half), itertools.product(*map(range, reversed(levels))), strict=True
    ):
        np.testing.assert_array_equal(code, number[::-1])  # the first channel is the lowest digit
    # a vector whose bounded value is a code has that code: nothing is out of reach
    h = (np.array(levels) - 1) * 1.001 / 2
    o = np.where(np.array(levels) % 2 == 0, 0.5, 0)
    x = np.arctanh((codes * half + o) / h) - np.arctanh(o / h)
    np.testing.assert_array_equal(to_numpy(layer.encode(tensor(x))), indices)
    np.testing.assert_allclose(to_numpy(layer(tensor(x))), codes, atol=1e-6)


def test_finite_scalar_reaches_all_codes_from_spread_vectors(rng):
    indices = FiniteScalarQuantizer((4, 5)).encode(tensor(rng.normal(0, 2, (2000, 2))))
    assert len(np.unique(to_numpy(indices))) == 20


@pytest.mark.parametrize("levels", [(4, 5), (2, 3)])
def test_finite_scalar_is_the_formula_with_the_gradient_before_rounding(levels, rng):
    layer, x = FiniteScalarQuantizer(levels), rng.normal(0, 2, (50, 2)).astype("float32")
    L = np.array(levels)
    h, o = (L - 1) * 1.001 / 2, np.where(L % 2 == 0, 0.5, 0)
    bounded = np.tanh(x + np.arctanh(o / h)) * h - o
    out = to_numpy(layer(tensor(x)))
    np.testing.assert_allclose(out, np.round(bounded) / (L // 2), atol=1e-6)
    assert np.abs(out).max() <= 1
    np.testing.assert_array_equal(to_numpy(layer.decode(layer.encode(tensor(x)))), out)
    slope = h * (1 - np.tanh(x + np.arctanh(o / h)) ** 2) / (L // 2)
    np.testing.assert_allclose(
        to_numpy(gradient(lambda x: layer.quantize(x)[0], tensor(x))), slope, rtol=1e-3, atol=1e-5
    )
    assert layer.quantize(tensor(x))[2] == {}


@pytest.mark.parametrize("extreme", [1e4, -1e4])
def test_finite_scalar_is_bounded_for_any_vector(extreme):
    layer = FiniteScalarQuantizer((4, 5))
    out = to_numpy(layer(tensor([[extreme, extreme]])))
    assert np.abs(out).max() <= 1
    assert 0 <= to_numpy(layer.encode(tensor([[extreme, extreme]])))[0] < 20


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "float16"])
def test_half_precision_uses_all_codes(dtype, rng):
    x = rng.integers(-128, 128, (5000, 2)).astype("float32") / 64
    layer, full = FiniteScalarQuantizer((8, 8), dtype=dtype), FiniteScalarQuantizer((8, 8))
    quantized, indices, _ = layer.quantize(ops.cast(x, layer.compute_dtype))
    assert keras.backend.standardize_dtype(quantized.dtype) == layer.compute_dtype
    np.testing.assert_array_equal(to_numpy(indices), to_numpy(full.encode(tensor(x))))


@pytest.mark.parametrize("bits", [1, 3, 10])
def test_lookup_free_indices_number_all_corners(bits):
    layer = LookupFreeQuantizer(2**bits)
    indices = np.arange(2**bits)
    codes = to_numpy(layer.decode(indices))
    np.testing.assert_array_equal(np.unique(codes), [-1, 1])
    np.testing.assert_array_equal(to_numpy(layer.encode(tensor(0.3 * codes))), indices)
    np.testing.assert_array_equal(to_numpy(layer(tensor(0.3 * codes))), codes)
    if bits == 3:
        np.testing.assert_array_equal(codes[1], [-1, -1, 1])  # the first channel is the highest bit


def entropies(x, temperature, bits, weights=None):
    """By all 2^bits codes, whatever their number: E[H(p(c | x))] and H(E[p(c | x)])."""
    codes = 2.0 * (np.arange(2**bits)[:, None] >> np.arange(bits) & 1) - 1
    log_p = log_softmax(2 / temperature * x.reshape(-1, bits).astype("float64") @ codes.T, axis=-1)
    p = np.exp(log_p)
    weights = np.ones(len(p)) if weights is None else weights.ravel()
    mean = (p * weights[:, None]).sum(0) / weights.sum()
    return -((p * log_p).sum(1) * weights).sum() / weights.sum(), -(mean * np.log(np.maximum(mean, 1e-300))).sum()


@pytest.mark.parametrize("bits", [2, 8])
@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_lookup_free_loss_is_that_of_all_codes(bits, temperature, rng):
    layer = LookupFreeQuantizer(2**bits, 0.3, 0.2, diversity=1.5, temperature=temperature)
    x, mask = rng.normal(size=(4, 5, bits)).astype("float32"), rng.random((4, 5)) < 0.7
    for weights, given in ((None, None), (mask, ops.convert_to_tensor(mask))):
        *_, losses = layer.quantize(tensor(x), given)
        sure, diverse = entropies(x, temperature, bits, weights)
        np.testing.assert_allclose(to_numpy(losses["entropy"]), 0.2 * (sure - 1.5 * diverse), rtol=1e-4)
        error = ((x - np.sign(x)) ** 2).mean(-1)
        error = error.mean() if weights is None else error[mask].mean()
        np.testing.assert_allclose(to_numpy(losses["commitment"]), 0.3 * error, rtol=1e-5)


def test_lookup_free_with_many_channels_bounds_the_diversity(rng):
    x = rng.normal(size=(30, 10)).astype("float32")
    sure, diverse = entropies(x, 1.0, 10)
    *_, only_sure = LookupFreeQuantizer(1024, 0.0, 1.0, diversity=0.0).quantize(tensor(x))
    *_, both = LookupFreeQuantizer(1024, 0.0, 1.0).quantize(tensor(x))
    np.testing.assert_allclose(to_numpy(only_sure["entropy"]), sure, rtol=1e-4)
    bound = to_numpy(only_sure["entropy"]) - to_numpy(both["entropy"])
    np.testing.assert_allclose(bound, entropies(x[:, :8], 1.0, 8)[1] + entropies(x[:, 8:], 1.0, 2)[1], rtol=1e-4)
    assert bound > diverse


def test_lookup_free_gradients(rng):
    layer, x = LookupFreeQuantizer(8, 0.5, entropy_weight=0.0), rng.normal(size=(6, 3)).astype("float32")
    through = gradient(lambda x: layer.quantize(x)[0], tensor(x))
    np.testing.assert_array_equal(to_numpy(through), np.ones_like(x))
    pull = gradient(lambda x: layer.quantize(x)[2]["commitment"], tensor(x))
    np.testing.assert_allclose(to_numpy(pull), 0.5 * 2 * (x - np.sign(x)) / x.size, rtol=1e-4)
    far = gradient(lambda x: LookupFreeQuantizer(8, temperature=1e-2).quantize(x)[2]["entropy"], tensor(100 * x))
    assert np.isfinite(to_numpy(far)).all()


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: FiniteScalarQuantizer(()), "`levels` must be a tuple of ints >= 2"),
        (lambda: FiniteScalarQuantizer(8), "`levels` must be a tuple of ints >= 2. Received: levels=8"),
        (lambda: FiniteScalarQuantizer((8, 1)), "`levels` must be an integer >= 2. Received: levels=1"),
        (lambda: FiniteScalarQuantizer((8, 2.5)), "`levels` must be an integer >= 2"),
        (lambda: FiniteScalarQuantizer((8,) * 11), "`levels` must have a product of at most"),
        (lambda: FiniteScalarQuantizer((8, 3))(tensor(np.zeros((2, 3)))), r"`x` must have 2 channels. Received: x="),
        (lambda: FiniteScalarQuantizer((8, 3)).encode(tensor(np.zeros((2, 3)))), "`x` must have 2 channels"),
        (lambda: FiniteScalarQuantizer((8, 3)).encode(np.zeros((2, 2), "int32")), "`x` must be floating-point"),
        (lambda: LookupFreeQuantizer(1), "`num_codes` must be an integer >= 2"),
        (lambda: LookupFreeQuantizer(6), "`num_codes` must be a power of 2"),
        (lambda: LookupFreeQuantizer(2**31), "`num_codes` must be a power of 2"),
        (lambda: LookupFreeQuantizer(4, commitment_cost=-1), "`commitment_cost` must be >= 0 and finite. Received"),
        (lambda: LookupFreeQuantizer(4, entropy_weight=-1), "`entropy_weight` must be >= 0"),
        (lambda: LookupFreeQuantizer(4, diversity=-1), "`diversity` must be >= 0"),
        (lambda: LookupFreeQuantizer(4, temperature=0), "`temperature` must be > 0 and finite. Received: t"),
        (lambda: LookupFreeQuantizer(4)(tensor(np.zeros((2, 3)))), "`x` must have 2 channels"),
        (lambda: LookupFreeQuantizer(4).quantize(ops.zeros((2, 2), "int32")), "`x` must be floating-point"),
        (lambda: CodePerplexity(0), "`num_codes` must be an integer >= 1"),
        (lambda: CodeUsage(()), "`num_codes` must hold at least one number"),
    ],
)
def test_bad_arguments(make, match):
    with pytest.raises(ValueError, match=match):
        make()


def test_perplexity_and_usage_of_counts():
    perplexity, usage = CodePerplexity(4), CodeUsage(4)
    assert float(to_numpy(usage.result())) == 0
    for metric in (perplexity, usage):
        metric.update_state(np.array([[0, 1], [0, 1]]))
    assert float(to_numpy(perplexity.result())) == pytest.approx(2)
    assert float(to_numpy(usage.result())) == 0.5
    for metric in (perplexity, usage):
        metric.update_state(np.array([2, 3, 0]), sample_weight=np.array([2.0, 0.0, 0.0]))
    assert float(to_numpy(perplexity.result())) == pytest.approx(3)
    assert float(to_numpy(usage.result())) == 0.75
    perplexity.reset_state()
    perplexity.update_state(np.array([3]))
    assert float(to_numpy(perplexity.result())) == pytest.approx(1)


def test_perplexity_of_several_codebooks_is_their_mean():
    perplexity, usage = CodePerplexity((2, 4)), CodeUsage((2, 4))
    for metric in (perplexity, usage):
        metric.update_state(np.array([[0, 0], [0, 1], [0, 2], [0, 3]]))
    assert float(to_numpy(perplexity.result())) == pytest.approx(2.5)
    assert float(to_numpy(usage.result())) == pytest.approx(0.75)
