import itertools

import keras
import numpy as np
import pytest
from keras import ops
from precision import double_precision
from scipy.linalg import expm

from keras_gen.core.fixtures import functional, randomize_weights, save_and_load, to_numpy
from keras_gen.core.ode import dormand_prince, runge_kutta_4
from keras_gen.flows.coupling import SCALE_MAPS, SPLITS, get_scale_map
from keras_gen.flows.spline_coupling import _knots
from keras_gen.layers import (
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    Chain,
    Conditioner,
    ContinuousFlow,
    Dequantize,
    Invert,
    Invertible1x1Conv,
    LearnedNormalBase,
    LogitTransform,
    MaskedAutoregressive,
    MaskedDense,
    MultiScale,
    Permutation,
    Reshape,
    Scale,
    SplineCoupling,
    Squeeze,
)
from keras_gen.models import Flow
from keras_gen.ops import gradient, rational_quadratic_spline
from keras_gen.testing import check_directions

Dense = keras.layers.Dense


def run(bijector, x, **options):
    """Calls a bijector on an array, and returns arrays."""
    return tuple(to_numpy(part) for part in bijector(ops.convert_to_tensor(x), **options))


def randomized(bijector, x, scale=0.3):
    bijector(ops.convert_to_tensor(x))
    randomize_weights(bijector, scale=scale)
    return bijector


def vectors(n, features, seed=0):
    return np.random.default_rng(seed).normal(size=(n, features)).astype("float32")


def images(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def levels_of(k, levels):
    """Pixels in [-1, 1] of integer levels k."""
    return (2 * np.asarray(k, "float64") / (levels - 1) - 1).astype("float32")


# Bad arguments and bad input

COUPLINGS = [AdditiveCoupling, AffineCoupling, SplineCoupling]
NAN = float("nan")
INFINITY = float("inf")


@pytest.mark.parametrize("coupling", COUPLINGS)
@pytest.mark.parametrize(
    ("split", "shape", "match"),
    [
        ("half", (2, 3), r"`x` must have an even size on the last axis .* Received: x=shape \(2, 3\)"),
        ("half", (2, 1), "`x` must have an even size on the last axis"),
        ("half", (2, 4, 4, 3), "`x` must have an even size on the last axis"),
        ("half", (2,), "`x` must"),
        ("interleave", (2, 5), "`x` must have an even size on the last axis"),
        ("interleave", (2, 1), "`x` must have an even size on the last axis"),
        ("channel", (2, 4, 4, 3), "`x` must have an even size on the last axis"),
        ("channel", (2, 4), "`x` must be images"),
        ("checkerboard", (2, 4, 3, 2), r"`x` must have an even width. Received: x=shape \(2, 4, 3, 2\)"),
        ("checkerboard", (2, 4), "`x` must be images"),
    ],
)
def test_data_that_cannot_be_halved_are_refused(coupling, split, shape, match):
    with pytest.raises(ValueError, match=match):
        coupling(units=[4], split=split)(np.zeros(shape, "float32"))


@pytest.mark.parametrize("coupling", COUPLINGS)
@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({}, "`conditioner` must be given, or else `units`"),
        ({"conditioner": Dense(3), "units": [4]}, "`conditioner` must be given, or else `units`"),
        ({"conditioner": lambda x: x}, "`conditioner` must be a keras.Layer"),
        ({"units": 4}, "`units` must be a list of integers >= 1"),
        ({"units": [4, 0]}, "`units` must be an integer >= 1"),
        ({"units": [4.0]}, "`units` must be an integer >= 1"),
        ({"units": [4], "split": "diagonal"}, "`split` must be one of 'half', 'interleave', 'checkerboard', 'channel'"),
        ({"units": [4], "split": None}, "`split` must be one of"),
    ],
)
def test_bad_arguments_of_couplings(coupling, options, match):
    with pytest.raises(ValueError, match=match):
        coupling(**options)


@pytest.mark.parametrize(
    ("coupling", "conditioner", "shape"),
    [
        (AdditiveCoupling, Dense(2), (2, 6)),
        (AdditiveCoupling, Dense(6), (2, 6)),
        (AffineCoupling, Dense(3), (2, 6)),
        (SplineCoupling, Dense(3), (2, 6)),
        (AdditiveCoupling, Conditioner(2, [4]), (2, 4, 4, 2)),
        (AdditiveCoupling, keras.layers.Conv2D(1, 3), (2, 4, 4, 2)),
        (AdditiveCoupling, keras.layers.Flatten(), (2, 4, 4, 2)),
    ],
)
def test_conditioners_of_another_output_are_refused(coupling, conditioner, shape):
    with pytest.raises(ValueError, match="`conditioner` must give outputs of shape"):
        coupling(conditioner)(np.zeros(shape, "float32"))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: AffineCoupling(units=[4], scale_map="cubic"), "`scale_map` must be a function or one of 'tanh'"),
        (lambda: AffineCoupling(units=[4], scale_map=None), "`scale_map` must be a function or one of"),
        (lambda: AffineCoupling(units=[4], scale_map=["tanh"]), "`scale_map` must be a function or one of"),
        (lambda: MaskedAutoregressive([4], scale_map="cubic"), "`scale_map` must be a function or one of"),
        (lambda: MaskedAutoregressive([]), "`units` must hold at least one size"),
        (lambda: MaskedAutoregressive([0]), "`units` must be an integer >= 1"),
        (lambda: MaskedAutoregressive(4), "`units` must be a list"),
        (lambda: MaskedDense([], [1]), "`input_degrees` must be a list of integers"),
        (lambda: MaskedDense([1], [1.5]), "`output_degrees` must be a list of integers"),
        (lambda: SplineCoupling(units=[4], num_bins=1), "`num_bins` must be an integer >= 2"),
        (lambda: SplineCoupling(units=[4], num_bins=501), "`num_bins` must be <= 500. Received: num_bins=501"),
        (lambda: SplineCoupling(units=[4], bound=0), "`bound` must be > 0"),
        (lambda: SplineCoupling(units=[4], bound=-1.0), "`bound` must be > 0"),
        (lambda: SplineCoupling(units=[4], bound=NAN), "`bound` must be"),
        (lambda: SplineCoupling(units=[4], bound=INFINITY), "`bound` must be"),
        (lambda: SplineCoupling(units=[4], bound="5"), "`bound` must be > 0"),
        (lambda: Squeeze(1), "`factor` must be an integer >= 2"),
        (lambda: Squeeze(2.0), "`factor` must be an integer >= 2"),
        (lambda: Scale(0), "`rate` must be > 0"),
        (lambda: Scale(NAN), "`rate` must be"),
        (lambda: Scale(INFINITY), "`rate` must be"),
        (lambda: Invertible1x1Conv(np.ones((2, 3))), r"`matrix` must be square. Received: matrix=shape \(2, 3\)"),
        (lambda: Invertible1x1Conv([1.0, 2.0]), "`matrix` must be square"),
        (lambda: Invertible1x1Conv(np.ones((3, 3))), "`matrix` must be invertible, of condition less than 1e6"),
        (lambda: Invertible1x1Conv(np.zeros((2, 2))), "`matrix` must be invertible"),
        (lambda: Invertible1x1Conv(np.diag([1.0, 1e-9])), "`matrix` must be invertible"),
        (lambda: Invertible1x1Conv(np.diag([1.0, NAN])), "`matrix` must be finite"),
        (lambda: Invertible1x1Conv(np.diag([1.0, INFINITY])), "`matrix` must be finite"),
        (lambda: Invertible1x1Conv(seed=-1), "`seed` must be an integer >= 0"),
        (lambda: Permutation("sorted"), "`order` must be 'random', 'reverse' or a permutation"),
        (lambda: Permutation([0, 0, 1]), "`order` must hold each of 0 .. features - 1 once"),
        (lambda: Permutation([1, 2, 3]), "`order` must hold each of 0 .. features - 1 once"),
        (lambda: Permutation([0.5, 1.5]), "`order` must"),
        (lambda: Permutation(3), "`order` must"),
        (lambda: Permutation(seed=-1), "`seed` must be an integer >= 0"),
        (lambda: Reshape(()), "`target_shape` must be sizes, -1 at most once"),
        (lambda: Reshape((-1, -1)), "`target_shape` must be sizes, -1 at most once"),
        (lambda: Reshape((0, 4)), "`target_shape` must be sizes"),
        (lambda: Reshape(6), "`target_shape` must be sizes"),
        (lambda: LogitTransform(0.5), r"`alpha` must be in \[0, 0.5\). Received: alpha=0.5"),
        (lambda: LogitTransform(-0.1), r"`alpha` must be in \[0, 0.5\)"),
        (lambda: LogitTransform(NAN), r"`alpha` must be in \[0, 0.5\)"),
        (lambda: LogitTransform("0.1"), r"`alpha` must be in \[0, 0.5\)"),
        (lambda: Dequantize(1), "`levels` must be an integer >= 2"),
        (lambda: Dequantize(256.0), "`levels` must be an integer >= 2"),
        (lambda: Dequantize(256, Dense(3)), "`bijector` must be a bijector"),
        (lambda: Dequantize(256, seed=-1), "`seed` must be an integer >= 0"),
        (lambda: Chain([]), "`bijectors` must be a list of bijectors"),
        (lambda: Chain(Scale()), "`bijectors` must be a list of bijectors"),
        (lambda: Chain([Scale(), Dense(3)]), "`bijectors` must hold bijectors alone"),
        (lambda: MultiScale([]), "`levels` must be a list of bijectors"),
        (lambda: MultiScale([Dense(3)]), "`levels` must hold bijectors alone"),
        (lambda: Invert(Dense(3)), "`bijector` must be a bijector"),
        (lambda: ContinuousFlow(), "`network` must be given, or else `units`"),
        (lambda: ContinuousFlow(Dense(3), [4]), "`network` must be given, or else `units`"),
        (lambda: ContinuousFlow(lambda x: x), "`network` must be a keras.Layer"),
        (lambda: ContinuousFlow(units=4), "`units` must be a list"),
        (lambda: ContinuousFlow(units=[4], steps=0), "`steps` must be an integer >= 1"),
        (lambda: ContinuousFlow(units=[4], tolerance=0), "`tolerance` must be > 0 or None. Received: tolerance=0"),
        (lambda: ContinuousFlow(units=[4], tolerance="1e-5"), "`tolerance` must be > 0 or None"),
        (lambda: ContinuousFlow(units=[4], trace="diagonal"), "`trace` must be one of 'exact', 'hutchinson'"),
        (lambda: ContinuousFlow(units=[4], seed=-1), "`seed` must be an integer >= 0"),
        (lambda: Conditioner(0, [4]), "`outputs` must be an integer >= 1"),
        (lambda: Conditioner(2, "44"), "`units` must be a list"),
        (lambda: Conditioner(2, [4], dropout=1.0), r"`dropout` must be in \[0, 1\)"),
    ],
)
def test_bad_arguments(make, match):
    with pytest.raises(ValueError, match=match):
        make()


@pytest.mark.parametrize(
    ("make", "shape", "match"),
    [
        (Squeeze, (2, 3, 4, 1), r"`x` must have height and width that 2 divides. Received: x=shape \(2, 3, 4, 1\)"),
        (lambda: Squeeze(3), (2, 4, 6, 1), "`x` must have height and width that 3 divides"),
        (Squeeze, (2, 4), "`x` must be images"),
        (lambda: Invertible1x1Conv(np.eye(3)), (2, 4), "`matrix` must be 4 x 4, as x has features"),
        (lambda: Permutation([1, 0, 2]), (2, 4), "`order` must have as many entries as x has features, 4"),
        (lambda: Reshape((4,)), (2, 6), "`target_shape` must hold the 6 numbers of a sample"),
        (lambda: Reshape((-1, 4)), (2, 6), "`target_shape` must hold the 6 numbers of a sample"),
        (lambda: Invert(Squeeze()), (2, 4, 4, 1), "`bijector` must keep the shape of its input"),
        (lambda: Dequantize(17, Squeeze()), (2, 4, 4, 1), "`bijector` must"),
        (lambda: MultiScale([ActNorm(), ActNorm()]), (2, 4, 4, 1), "`x` must have an even size on the last axis"),
        (lambda: ContinuousFlow(Conditioner(2, [4])), (2, 3), "`network` must give outputs of shape"),
        (lambda: MaskedAutoregressive([4]), (2, 4, 4, 1), r"`x` must be vectors \(batch, features\)"),
        (lambda: MaskedAutoregressive([4]), (2, 1), "`x` must have at least 2 features"),
        (lambda: MaskedDense([1, 2], [1]), (2, 3), "`x` must have 2 features"),
        (lambda: Conditioner(2, [4]), (2, 3, 3), "`inputs` must be vectors"),
    ],
)
def test_bad_input(make, shape, match):
    with pytest.raises(ValueError, match=match):
        make()(np.zeros(shape, "float32"))


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (ActNorm, (None, 4, 2)),
        (Scale, (None,)),
        (Invertible1x1Conv, (None, 4, 2)),
        (Reshape, (None, 4)),
        (lambda: AdditiveCoupling(units=[4]), (None,)),
        (lambda: MaskedAutoregressive([4]), (None,)),
        (lambda: ContinuousFlow(units=[4]), (None,)),
        (lambda: MultiScale([Scale()]), (None, 4, 2)),
    ],
)
def test_unknown_sizes_are_refused(make, shape):
    with pytest.raises(ValueError, match="`x` must"):
        make()(keras.Input(shape))


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="the others have 64-bit numbers always")
@pytest.mark.parametrize("make", [ActNorm, Reshape, lambda dtype: AdditiveCoupling(units=[4], dtype=dtype)])
def test_float64_needs_64_bit_numbers(make):
    with pytest.raises(ValueError, match="`dtype` must be float32, or JAX_ENABLE_X64=1 be set"):
        make(dtype="float64")


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (
            levels_of([[0, 17]], 17),
            r"`x` must be images in \[-1, 1\] of 17 levels. Received: x=values from -1 to 1.125",
        ),
        (levels_of([[0, 3.5]], 17), "`x` must be images .* Received: x=values between the levels"),
        (np.array([[0.0, 255.0]]), r"`x` must be images in \[-1, 1\]"),
    ],
)
def test_data_off_the_levels_are_refused(data, match):
    Dequantize(17).check_data("x", levels_of([[0, 5, 16]], 17))
    for bijector in (Dequantize(17), Chain([Dequantize(17), Scale()]), MultiScale([Dequantize(17)])):
        with pytest.raises(ValueError, match=match):
            bijector.check_data("x", data)


# Log-determinants known in closed form


@pytest.mark.parametrize("split", ["half", "interleave"])
def test_additive_coupling_keeps_volume_exactly(split):
    x = vectors(3, 4)
    _, log_det = run(randomized(AdditiveCoupling(units=[4], split=split), x, 3.0), x)
    np.testing.assert_array_equal(log_det, np.zeros(3))


def test_scale_is_a_diagonal_matrix():
    for x in (vectors(3, 4), images(3, 2, 5, 4)):
        scale = randomized(Scale(rate=3.0), x)
        s = 3 * to_numpy(scale.log_scale)
        y, log_det = run(scale, x)
        np.testing.assert_allclose(y, x * np.exp(s), rtol=1e-6)
        np.testing.assert_allclose(log_det, np.full(3, s.sum() * np.prod(x.shape[1:-1])), rtol=1e-5)


def test_permutation_takes_the_given_order():
    x = images(2, 2, 3, 4)
    y, log_det = run(Permutation([2, 0, 3, 1]), x)
    np.testing.assert_array_equal(y, x[..., [2, 0, 3, 1]])
    np.testing.assert_array_equal(log_det, [0, 0])
    np.testing.assert_array_equal(run(Permutation("reverse"), x)[0], x[..., ::-1])


def test_random_permutations_differ_unless_seeded():
    x = np.arange(20.0, dtype="float32")[None]
    orders = [tuple(run(Permutation(seed=seed), x)[0][0]) for seed in (0, 0, 1, None, None)]
    assert orders[0] == orders[1]
    assert len(set(orders)) == 4
    assert sorted(orders[0]) == list(range(20))


def test_invertible_1x1_conv_starts_at_the_matrix(rng):
    matrix = rng.normal(size=(4, 4)) @ np.diag([3.0, -2, 1, 0.1])
    log_volume = np.linalg.slogdet(matrix)[1]
    for x in (vectors(3, 4), images(3, 2, 5, 4)):
        layer = Invertible1x1Conv(matrix)
        y, log_det = run(layer, x)
        np.testing.assert_allclose(y, x @ matrix, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(log_det, np.full(3, log_volume * np.prod(x.shape[1:-1])), rtol=1e-4)
        np.testing.assert_allclose(run(layer, y, inverse=True)[0], x, rtol=1e-4, atol=1e-4)


def test_invertible_1x1_conv_starts_at_a_rotation_by_default():
    w = run(Invertible1x1Conv(seed=3), np.eye(5, dtype="float32"))[0]
    np.testing.assert_allclose(w @ w.T, np.eye(5), atol=1e-5)
    assert np.abs(w - run(Invertible1x1Conv(seed=4), np.eye(5, dtype="float32"))[0]).max() > 0.1


@pytest.mark.parametrize("factor", [2, 3])
def test_squeeze_is_its_formula(factor):
    x = images(2, 6, 12, 2)
    y, log_det = run(Squeeze(factor), x)
    n, h, w, c = x.shape
    expected = np.empty((n, h // factor, w // factor, factor**2 * c), "float32")
    for i, j, a, b, k in np.ndindex(h // factor, w // factor, factor, factor, c):
        expected[:, i, j, (a * factor + b) * c + k] = x[:, i * factor + a, j * factor + b, k]
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(log_det, [0, 0])


def test_logit_transform_is_its_formula(rng):
    x = rng.uniform(0, 1, (3, 4)).astype("float32")
    y, log_det = run(LogitTransform(0.1), x)
    p = 0.1 + 0.8 * x.astype("float64")
    np.testing.assert_allclose(y, np.log(p / (1 - p)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(log_det, np.log(0.8 / (p * (1 - p))).sum(1), rtol=1e-5)


@pytest.mark.parametrize("value", [-1e-3, 1.001, 1e6, -1e6])
def test_logit_transform_has_no_density_outside(value):
    y, log_det = run(LogitTransform(), np.array([[0.5, value], [0.0, 1.0]], "float32"))
    assert log_det[0] == -INFINITY
    assert np.isfinite(log_det[1])
    assert np.isfinite(y).all()


def test_logit_transform_is_finite_at_the_ends_in_double_precision():
    x = np.array([[0.0, 1e-12, 1 - 1e-12, 1.0]])
    with double_precision():
        y, log_det = run(LogitTransform(0.0, dtype="float64"), x)
    assert np.isfinite(y).all()
    assert np.isfinite(log_det).all()
    np.testing.assert_allclose(y[0, 1:3], [np.log(1e-12), -np.log(1e-12)], rtol=1e-5)


def test_one_level_of_a_multi_scale_is_that_level():
    x = images(2, 4, 4, 1)
    bijector = MultiScale([Squeeze()])
    y, _ = run(bijector, x)
    np.testing.assert_array_equal(y, run(Squeeze(), x)[0].reshape(2, -1))
    np.testing.assert_array_equal(run(bijector, y, inverse=True)[0], x)


def test_multi_scale_factors_out_the_first_half_of_the_channels():
    x = images(2, 4, 4, 1)
    first, last = Scale(), Scale()
    bijector = randomized(MultiScale([Chain([Squeeze(), first]), last]), x)
    y, log_det = run(bijector, x)
    h = run(Squeeze(), x)[0] * np.exp(to_numpy(first.log_scale))
    np.testing.assert_allclose(y[:, :8], h[..., :2].reshape(2, -1), rtol=1e-5)
    np.testing.assert_allclose(y[:, 8:], (h[..., 2:] * np.exp(to_numpy(last.log_scale))).reshape(2, -1), rtol=1e-5)
    np.testing.assert_allclose(
        log_det, 4 * (to_numpy(first.log_scale).sum() + to_numpy(last.log_scale).sum()), rtol=1e-4
    )


# Halves


def changed(split, flip, x):
    """Where an additive coupling that adds one changes x."""
    parameters = {"split": split, "flip": flip, "units": []}
    coupling = AdditiveCoupling(**parameters)
    coupling(ops.convert_to_tensor(x))
    coupling.conditioner.dense[-1].bias.assign(np.ones(coupling.conditioner.dense[-1].bias.shape))
    return run(coupling, x)[0] - x > 0.5


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("half", np.broadcast_to(np.arange(4) >= 2, (4, 6, 4))),
        ("channel", np.broadcast_to(np.arange(4) >= 2, (4, 6, 4))),
        ("interleave", np.broadcast_to(np.arange(4) % 2 == 1, (4, 6, 4))),
        ("checkerboard", np.broadcast_to((np.add.outer(np.arange(4), np.arange(6)) % 2 == 1)[..., None], (4, 6, 4))),
    ],
)
def test_the_second_half_changes_unless_flipped(split, expected):
    x = images(2, 4, 6, 4)
    np.testing.assert_array_equal(changed(split, False, x), [expected] * 2)
    np.testing.assert_array_equal(changed(split, True, x), [~expected] * 2)


def test_halves_of_vectors():
    x = vectors(1, 6)
    np.testing.assert_array_equal(changed("half", False, x)[0], [False] * 3 + [True] * 3)
    np.testing.assert_array_equal(changed("interleave", False, x)[0], [False, True] * 3)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("flip", [False, True])
def test_the_changed_half_depends_on_the_other_alone(split, flip):
    """The shift of a place must not move with the place itself, nor with any other of its half."""
    x = images(1, 4, 4, 2)
    coupling = randomized(AdditiveCoupling(units=[8], split=split, flip=flip), x)
    moving = changed(split, flip, x)
    shifted = x + 100 * moving
    np.testing.assert_allclose(run(coupling, shifted)[0] - shifted, run(coupling, x)[0] - x, atol=1e-4)


# Splines


def parameters(shape, bins=5, scale=1.0, seed=1):
    return (scale * np.random.default_rng(seed).normal(size=(*shape, 3 * bins - 1))).astype("float32")


def spline(x, params, inverse=False, bound=3.0):
    results = rational_quadratic_spline(ops.convert_to_tensor(x), ops.convert_to_tensor(params), bound, inverse)
    return tuple(to_numpy(result) for result in results)


def edges(params, bound=3.0, heights=False):
    """The knots of one spline, both ends included, exactly as the spline computes them."""
    bins = (params.shape[-1] + 1) // 3
    part = params[..., bins : 2 * bins] if heights else params[..., :bins]
    return to_numpy(_knots(ops.convert_to_tensor(part), bound))


@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_splines_rise(scale):
    x = np.linspace(-4, 4, 2001, dtype="float32")
    params = np.repeat(parameters((1,), scale=scale), len(x), axis=0)
    y, log_derivative = spline(x, params)
    assert (np.diff(y) > 0).all()
    slopes = np.diff(y.astype("float64")) / np.diff(x.astype("float64"))
    middle = 0.5 * (np.exp(log_derivative[1:]) + np.exp(log_derivative[:-1]))
    assert np.median(np.abs(slopes / middle - 1)) < 1e-3
    back, log_inverse = spline(y, params, inverse=True)
    np.testing.assert_allclose(back, x, atol=2e-4)
    np.testing.assert_allclose(np.median(np.abs(log_inverse + log_derivative)), 0, atol=1e-4)


@pytest.mark.parametrize("inverse", [False, True])
def test_zero_parameters_are_the_identity(inverse):
    x = np.linspace(-4, 4, 81, dtype="float32")
    y, log_derivative = spline(x, np.zeros((81, 14), "float32"), inverse)
    np.testing.assert_allclose(y, x, atol=1e-6)
    np.testing.assert_allclose(log_derivative, 0, atol=1e-5)


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0])
def test_splines_are_safe_at_the_edges_of_bins(inverse, scale):
    one = parameters((1,), scale=scale)
    knots = edges(one, heights=inverse)[0]
    assert knots[0] == -3
    assert knots[-1] == 3
    x = np.concatenate([knots, *(np.nextafter(knots, to, dtype="float32") for to in (-INFINITY, INFINITY))])
    params = np.repeat(one, len(x), axis=0)
    y, log_derivative = spline(x, params, inverse)
    assert np.isfinite(log_derivative).all()
    if scale < 10:
        np.testing.assert_allclose(y[: len(knots)], edges(one, heights=not inverse)[0], atol=1e-5)
        np.testing.assert_allclose(spline(y, params, not inverse)[0], x, atol=1e-5)
    for part in (0, 1):
        slope = gradient(lambda x: spline_tensors(x, params, inverse)[part], ops.convert_to_tensor(x))  # noqa: B023
        assert np.isfinite(to_numpy(slope)).all()


def spline_tensors(x, params, inverse, bound=3.0):
    return rational_quadratic_spline(x, ops.convert_to_tensor(params), bound, inverse)


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0])
@pytest.mark.parametrize("spread", [1.0, 10.0, 1e6])
def test_gradients_of_splines_are_finite(inverse, scale, spread):
    x, params = spread * vectors(20, 3), parameters((20, 3), scale=scale)
    for part in (0, 1):
        of_x = gradient(lambda x: spline_tensors(x, params, inverse)[part], ops.convert_to_tensor(x))  # noqa: B023
        of_params = gradient(
            lambda params: spline_tensors(ops.convert_to_tensor(x), params, inverse)[part],  # noqa: B023
            ops.convert_to_tensor(params),
        )
        assert np.isfinite(to_numpy(of_x)).all()
        assert np.isfinite(to_numpy(of_params)).all()


@pytest.mark.parametrize("inverse", [False, True])
def test_splines_are_the_identity_outside(inverse):
    x = np.array([[-1e6, -3.001, 3.001, 1e6]] * 3, "float32")  # the whole batch in the tails
    y, log_derivative = spline(x, parameters(x.shape), inverse)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(log_derivative, 0)


# Extreme input


def trained_normal():
    base = LearnedNormalBase()
    base.build((None, 4))
    randomize_weights(base)
    return base


def twice(make):
    return lambda: Chain([make(flip=False), make(flip=True)])


EXTREME = {
    "additive": twice(lambda flip: AdditiveCoupling(units=[8], flip=flip)),
    **{
        name: twice(lambda flip, name=name: AffineCoupling(units=[8], flip=flip, scale_map=name))
        for name in ("tanh", "softclip", "sigmoid")
    },
    "spline": twice(lambda flip: SplineCoupling(units=[8], flip=flip, num_bins=4)),
    "maf": lambda: Chain([MaskedAutoregressive([8]), Permutation("reverse"), MaskedAutoregressive([8])]),
    "iaf": lambda: Invert(MaskedAutoregressive([8])),
    "logit": lambda: Chain([LogitTransform(), AffineCoupling(units=[8])]),
    "logit_without_margin": lambda: Chain([LogitTransform(0.0), AffineCoupling(units=[8])]),
    "linear": lambda: Chain([ActNorm(), Invertible1x1Conv(), Scale()]),
}
FAR = np.array(
    [[1e6] * 4, [-1e6] * 4, [1e6, -1e6, 1e6, -1e6], [1e6, 0, 0, 0], [0, 0, 0, -1e6], [0.5, 0.5, 1e6, 0.5], [0.5] * 4]
    + [[0, 1, 0, 1], [1e-30] * 4, [0] * 4],
    "float32",
)


@pytest.mark.parametrize("base", ["normal", "logistic", trained_normal])
@pytest.mark.parametrize("name", EXTREME)
def test_extreme_data_never_give_nan(name, base):
    model = Flow(EXTREME[name](), base if isinstance(base, str) else base())
    model.build((None, 4))
    randomize_weights(model.bijector)
    log_p = model.log_prob(FAR, verbose=0)
    assert not np.isnan(log_p).any()
    assert not (log_p == INFINITY).any()
    assert np.isfinite(log_p[6])
    slopes = to_numpy(gradient(model.log_density, ops.convert_to_tensor(FAR)))
    assert np.isfinite(slopes[np.isfinite(log_p)]).all()


@pytest.mark.parametrize("name", ["additive", "tanh", "softclip", "spline", "linear"])
def test_extreme_latents_decode_to_finite_data(name):
    model = Flow(EXTREME[name]())
    model.build((None, 4))
    randomize_weights(model.bijector)
    assert np.isfinite(model.decode(FAR)).all()


# Scale maps


@keras.saving.register_keras_serializable("test_bijectors")
def half_tanh(s):
    return 0.5 * ops.tanh(s)


def test_scale_maps_are_their_formulas():
    s = np.linspace(-20, 20, 81)
    tensor = ops.convert_to_tensor(s.astype("float32"))
    expected = {
        "tanh": 2 * np.tanh(s / 2),
        "softclip": s / (1 + np.abs(s) / np.log(1000)),
        "sigmoid": -np.logaddexp(0, -s - 2),
        "exp": s,
    }
    assert set(expected) == set(SCALE_MAPS)
    for name, values in expected.items():
        np.testing.assert_allclose(to_numpy(get_scale_map(name)(tensor)), values, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "make",
    [lambda: AffineCoupling(units=[4], scale_map=half_tanh), lambda: MaskedAutoregressive([4], "relu", half_tanh)],
)
def test_a_function_is_a_scale_map_and_survives_a_file(make):
    x = vectors(8, 4)
    model = functional(make(), x)
    randomize_weights(model, scale=3.0)
    y, log_det = (to_numpy(part) for part in model(x))
    assert np.abs(log_det).max() < 2
    for a, b in zip(save_and_load(model)(x), (y, log_det), strict=True):
        np.testing.assert_allclose(to_numpy(a), b, rtol=1e-5, atol=1e-5)


# Masked autoregressive flows


def jacobian(bijector, x):
    """Rows: outputs. Of the first sample."""
    columns = []
    for i in range(x.shape[1]):
        direction = np.zeros_like(x)
        direction[:, i] = 1
        x_tensor, direction = ops.convert_to_tensor(x), ops.convert_to_tensor(direction)
        columns.append(to_numpy(ops.jvp(lambda x: bijector(x)[0], (x_tensor,), (direction,))[1])[0])
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("units", [[3], [8, 8], [2, 16]])
def test_maf_is_triangular(units):
    x = vectors(1, 5)
    maf = randomized(MaskedAutoregressive(units, "tanh"), x, 1.0)
    slopes = jacobian(maf, x)
    np.testing.assert_array_equal(np.triu(slopes, 1), 0)
    assert (np.diag(slopes) > 0).all()
    if len(units) == 2 and min(units) >= 8:
        assert (np.abs(slopes[np.tril_indices(5)]) > 1e-6).all()  # each sees all before it


def test_maf_needs_no_more_passes_than_features():
    """The inverse of the last feature is right only after all the others."""
    x = vectors(3, 6)
    maf = randomized(MaskedAutoregressive([16, 16]), x, 1.0)
    y, _ = run(maf, x)
    np.testing.assert_allclose(run(maf, y, inverse=True)[0], x, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("strict", [False, True])
def test_masks_are_those_of_made(strict, rng):
    inputs, outputs = rng.integers(1, 5, 6), rng.integers(1, 5, 7)
    layer = MaskedDense(inputs, outputs, strict=strict)
    kernel = run_layer(layer, np.eye(6, dtype="float32"))
    full = to_numpy(layer.kernel)
    for i in range(6):
        for j in range(7):
            seen = outputs[j] > inputs[i] if strict else outputs[j] >= inputs[i]
            assert kernel[i, j] == (full[i, j] if seen else 0)


def run_layer(layer, x):
    return to_numpy(layer(ops.convert_to_tensor(x)))


# Activation normalization


def standardized(y):
    axes = tuple(range(y.ndim - 1))
    np.testing.assert_allclose(y.mean(axes), 0, atol=1e-3)
    np.testing.assert_allclose(y.std(axes), 1, rtol=1e-3)


@pytest.mark.parametrize("shape", [(64, 3), (16, 4, 4, 3)])
def test_act_norm_standardizes_the_first_batch(shape):
    x = 5 * images(*shape) + np.array([-20, 0, 7], "float32")
    layer = ActNorm()
    np.testing.assert_array_equal(run(layer, x)[0], x)  # not before training
    y, log_det = run(layer, x, training=True)
    standardized(y)
    expected = -np.prod(shape[1:-1]) * np.log(x.std(tuple(range(x.ndim - 1)))).sum()
    np.testing.assert_allclose(log_det, np.full(shape[0], expected), rtol=1e-3)
    np.testing.assert_allclose(run(layer, x)[0], y, atol=1e-5)
    other = images(*shape, seed=1)
    np.testing.assert_allclose(run(layer, other, training=True)[0], run(layer, other)[0], atol=1e-6)
    np.testing.assert_allclose(run(layer, x)[0], y, atol=1e-5)


@pytest.mark.parametrize("offset", [0.0, 1000.1])
def test_act_norm_of_data_far_from_zero(offset):
    x = vectors(64, 3) + np.float32(offset)
    standardized(run(ActNorm(), x, training=True)[0])


@pytest.mark.parametrize("value", [0.0, 3.0, 1000.1])
def test_act_norm_of_a_constant_feature_is_finite(value):
    x = vectors(64, 3)
    x[:, 1] = value
    for part in run(ActNorm(), x, training=True):
        assert np.isfinite(part).all()


def act_norm_flow(learning_rate=0.0):
    coupling = AffineCoupling(units=[4])
    model = Flow(Chain([ActNorm(), coupling, ActNorm(), Scale()]), seed=0)
    model.compile(keras.optimizers.SGD(learning_rate))
    model.build((None, 4))
    randomize_weights(coupling)
    return model


def statistics(model):
    layers = [layer for layer in model.bijector.bijectors if isinstance(layer, ActNorm)]
    return [to_numpy(weight).copy() for layer in layers for weight in (layer.mean, layer.log_std)]


def test_act_norms_start_inside_a_compiled_fit():
    x = 3 * vectors(32, 4) + 2
    model = act_norm_flow()
    model.fit(x, batch_size=32, epochs=2, verbose=0)
    first, coupling, second, _ = model.bijector.bijectors
    standardized(run(first, x)[0])
    standardized(run(second, run(coupling, run(first, x)[0])[0])[0])
    before = statistics(model)
    model.fit(10 * x, batch_size=8, verbose=0)
    np.testing.assert_equal(statistics(model), before)


def test_act_norm_trains_on_from_the_statistics():
    x = 3 * vectors(32, 4) + 2
    model = act_norm_flow(0.1)
    model.fit(x, batch_size=32, epochs=3, verbose=0)
    first = model.bijector.bijectors[0]
    assert np.abs(to_numpy(first.bias)).max() > 1e-4
    assert np.abs(to_numpy(first.log_scale)).max() > 1e-4
    np.testing.assert_allclose(to_numpy(first.mean), x.mean(0), rtol=1e-4)


def test_a_loaded_act_norm_does_not_start_again():
    x = 3 * vectors(32, 4) + 2
    model = act_norm_flow()
    model.fit(x, batch_size=32, verbose=0)
    loaded = save_and_load(model)
    loaded.fit(10 * x, batch_size=32, verbose=0)
    np.testing.assert_equal(statistics(loaded), statistics(model))
    layer = functional_act_norm(x)
    np.testing.assert_array_equal(to_numpy(save_and_load(layer)(x, training=True)[0]), to_numpy(layer(x)[0]))


def functional_act_norm(x):
    model = functional(ActNorm(), x)
    model(x, training=True)
    return model


def test_act_norm_takes_part_in_no_gradient_of_its_statistics():
    model = act_norm_flow()
    assert not any(weight.path.endswith(("mean", "log_std")) for weight in model.trainable_weights)


# Continuous flows


class Linear(keras.layers.Layer):
    """dx/dt = 2 t x A, or x A."""

    def __init__(self, matrix, timed=False):
        super().__init__()
        self.matrix = ops.convert_to_tensor(np.asarray(matrix, "float32"))
        self.timed = timed

    def call(self, inputs):
        x, t = inputs
        assert tuple(t.shape) == tuple(x.shape[:1])
        velocity = ops.matmul(x, self.matrix)
        return 2 * t[:, None] * velocity if self.timed else velocity


A = np.array([[0.3, -1.0, 0.2], [0.8, -0.5, 0.4], [0.1, 0.6, 0.4]])


@pytest.mark.parametrize("timed", [False, True])
@pytest.mark.parametrize("tolerance", [None, 1e-6])
def test_a_linear_field_is_a_matrix_exponential(timed, tolerance):
    x = vectors(4, 3)
    flow = ContinuousFlow(Linear(A, timed), tolerance=tolerance)
    y, log_det = run(flow, x)
    np.testing.assert_allclose(y, x @ expm(A), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(log_det, np.full(4, np.trace(A)), rtol=1e-4)
    back, log_det = run(flow, y, inverse=True)
    np.testing.assert_allclose(back, x, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(log_det, np.full(4, -np.trace(A)), rtol=1e-4)


def test_hutchinson_is_right_on_average():
    x = np.repeat(vectors(1, 3), 4000, axis=0)
    flow = ContinuousFlow(Linear(A), steps=4, trace="hutchinson", seed=0)
    (y, first), (_, second) = run(flow, x), run(flow, x)
    np.testing.assert_allclose(y, x @ expm(A), rtol=1e-3, atol=1e-4)
    assert 0.1 < first.std() < 3
    assert np.abs(first.mean() - np.trace(A)) < 5 * first.std() / np.sqrt(len(x))
    assert np.abs(first - second).max() > 0.1  # drawn anew


def test_hutchinson_of_a_network_is_right_on_average():
    x = vectors(1, 3)
    exact = randomized(ContinuousFlow(units=[8], steps=4), x, 1.0)
    estimate = ContinuousFlow(exact.network, steps=4, trace="hutchinson", seed=0)
    values = run(estimate, np.repeat(x, 4000, axis=0))[1]
    assert np.abs(values.mean() - run(exact, x)[1][0]) < 5 * values.std() / np.sqrt(4000) + 1e-5


def test_adaptive_steps_agree_with_fixed_ones():
    x = vectors(4, 2)
    fixed = randomized(ContinuousFlow(units=[8], steps=32), x, 2.0)
    reference = run(fixed, x)
    errors = []
    for tolerance in (1e-2, 1e-5):
        results = run(ContinuousFlow(fixed.network, tolerance=tolerance), x)
        errors.append(max(np.abs(a - b).max() for a, b in zip(results, reference, strict=True)))
        assert errors[-1] < 10 * tolerance
    assert errors[-1] < 1e-4


@pytest.mark.parametrize("options", [{}, {"tolerance": 1e-3}, {"trace": "hutchinson"}])
def test_training_through_a_continuous_flow_lowers_the_loss(options):
    x = (2 * vectors(64, 2) + 1) * np.array([1, 0.3], "float32")
    model = Flow(ContinuousFlow(units=[8], steps=2, seed=0, **options), seed=0)
    model.compile(keras.optimizers.Adam(3e-2))
    losses = model.fit(x, batch_size=32, epochs=8, verbose=0, shuffle=False).history["loss"]
    assert losses[-1] < losses[0] - 0.1
    assert np.isfinite(model.log_prob(x, verbose=0, seed=0)).all()


# Solvers


def solve(solver, f, x, *args):
    """Solves for one part of a state in double precision, eagerly."""
    with double_precision():
        state = (ops.convert_to_tensor(np.asarray(x, "float64")),)
        return to_numpy(solver(lambda t, state: (f(t, state[0]),), state, *args)[0])


def swing(t, x):
    return ops.stack([x[1], -x[0] * (1 + t)])


def exact_swing(t1):
    from scipy.integrate import solve_ivp

    right = lambda t, x: [x[1], -x[0] * (1 + t)]  # noqa: E731
    return solve_ivp(right, (0, t1), [1.0, 0.5], rtol=1e-12, atol=1e-12).y[:, -1]


def test_runge_kutta_is_of_order_4():
    errors = [np.abs(solve(runge_kutta_4, swing, [1.0, 0.5], 0.0, 2.0, n) - exact_swing(2)).max() for n in (8, 16, 32)]
    for coarse, fine in itertools.pairwise(errors):
        assert 12 < coarse / fine < 21


@pytest.mark.parametrize("tolerance", [1e-3, 1e-6, 1e-9])
def test_dormand_prince_meets_its_tolerance(tolerance):
    error = np.abs(solve(dormand_prince, swing, [1.0, 0.5], 0.0, 2.0, tolerance) - exact_swing(2)).max()
    assert error < 10 * tolerance


def test_dormand_prince_takes_steps_as_needed():
    def steps(tolerance):
        calls = []

        def f(t, x):
            calls.append(None)
            return swing(t, x)

        solve(dormand_prince, f, [1.0, 0.5], 0.0, 2.0, tolerance)
        return len(calls)

    if keras.backend.backend() == "torch":  # the others call f when they trace alone
        assert steps(1e-2) < steps(1e-5) < steps(1e-8) < 700


@pytest.mark.parametrize("solver", [(runge_kutta_4, 64), (dormand_prince, 1e-8)])
def test_backwards_in_time(solver):
    method, accuracy = solver
    end = solve(method, swing, [1.0, 0.5], 0.0, 2.0, accuracy)
    np.testing.assert_allclose(solve(method, swing, end, 2.0, 0.0, accuracy), [1.0, 0.5], atol=1e-5)


@pytest.mark.parametrize("field", [lambda t, x: -x, lambda t, x: x**2, lambda t, x: x / 0.0])
@pytest.mark.parametrize("start", [NAN, INFINITY, 3.0])
def test_dormand_prince_always_ends(field, start):
    result = solve(dormand_prince, field, [1.0, start], 0.0, 1.0, 1e-3)
    assert result.shape == (2,)


# Dequantization


@pytest.mark.parametrize("levels", [2, 17, 256, 4096])
def test_uniform_dequantization_spreads_within_the_level(levels, rng):
    k = rng.integers(0, levels, (50, 6))
    layer = Dequantize(levels, seed=0)
    x = levels_of(k, levels)
    y, log_det = run(layer, x)
    np.testing.assert_allclose(log_det, np.full(50, -6 * np.log(levels)), rtol=1e-6)
    u = y.astype("float64") * levels - k
    assert u.min() >= 0
    assert u.max() < 1
    assert abs(u.mean() - 0.5) < 5 * np.sqrt(1 / 12 / u.size) + levels * 1e-7
    back, inverse_log_det = run(layer, y, inverse=True)
    np.testing.assert_allclose(back, x, atol=1e-6)
    np.testing.assert_array_equal(np.round((back + 1) / 2 * (levels - 1)), k)
    np.testing.assert_allclose(inverse_log_det, -log_det, rtol=1e-6)
    assert np.abs(run(layer, x)[0] - y).max() > 0.1 / levels  # drawn anew


@pytest.mark.parametrize(("levels", "tolerance"), [(17, 1e-4), (256, 2e-2)])
def test_learned_dequantization_comes_back(levels, tolerance, rng):
    k = rng.integers(0, levels, (8, 4, 4, 1))
    x = levels_of(k, levels)
    layer = randomized(Dequantize(levels, AffineCoupling(units=[4], split="checkerboard"), seed=0), x)
    y, log_det = run(layer, x)
    back, inverse_log_det = run(layer, y, inverse=True)
    np.testing.assert_array_equal(np.round((back + 1) / 2 * (levels - 1)), k)
    np.testing.assert_allclose(back, x, atol=1e-6)
    np.testing.assert_allclose(inverse_log_det, -log_det, rtol=tolerance, atol=tolerance)
    assert np.std(log_det) > 0.1


def test_learned_dequantization_is_a_density_of_the_noise():
    """The inverse's log_det is that density on the cell of a level: it integrates to 1."""
    layer = randomized(Dequantize(17, AffineCoupling(units=[4]), seed=0), levels_of([[7, 7]], 17), 0.5)
    u = (np.arange(500) + 0.5) / 500
    y = (7 + np.stack(np.meshgrid(u, u), -1).reshape(-1, 2)) / 17
    density = np.exp(run(layer, y.astype("float32"), inverse=True)[1].astype("float64"))
    assert density.std() > 0.1 * density.mean()
    assert density.mean() / 17**2 == pytest.approx(1, abs=2e-3)


# Precision


@pytest.mark.parametrize(
    ("make", "x"),
    [
        (lambda **dtype: AdditiveCoupling(units=[8], **dtype), vectors(8, 4)),
        (lambda **dtype: AffineCoupling(units=[8], **dtype), vectors(8, 4)),
        (lambda **dtype: AffineCoupling(units=[8], split="checkerboard", **dtype), images(2, 4, 4, 2)),
        (lambda **dtype: SplineCoupling(units=[8], **dtype), vectors(8, 4)),
    ],
)
def test_couplings_stay_invertible_with_networks_in_half_precision(make, x):
    coupling = randomized(make(dtype="mixed_bfloat16"), x)
    y, log_det = coupling(ops.convert_to_tensor(x))
    assert [keras.backend.standardize_dtype(part.dtype) for part in (y, log_det)] == ["float32"] * 2
    half = coupling.conditioner(ops.convert_to_tensor(x if x.ndim == 4 else x[:, :2]))
    assert keras.backend.standardize_dtype(half.dtype) == "bfloat16"
    back, minus = coupling(y, inverse=True)
    np.testing.assert_allclose(to_numpy(back), x, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(to_numpy(minus), -to_numpy(log_det), rtol=1e-5, atol=1e-5)


def test_weights_of_a_bijector_are_not_read_in_half_precision():
    x = vectors(8, 4)
    for layer in (ActNorm(dtype="mixed_bfloat16"), Scale(dtype="mixed_bfloat16"), Invertible1x1Conv(seed=1)):
        twin = type(layer).from_config({**layer.get_config(), "dtype": "float32"})
        mixed = Chain([layer, Reshape()], dtype="mixed_bfloat16")
        randomized(mixed, x)
        randomized(twin, x)
        for a, b in zip(run(mixed, x), run(twin, x), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


# After training

TRAINED = {
    "coupling": lambda: Chain([ActNorm(), AffineCoupling(units=[8]), AffineCoupling(units=[8], flip=True)]),
    "spline": lambda: Chain([ActNorm(), SplineCoupling(units=[8], num_bins=4), Permutation(seed=0)]),
    "maf": lambda: Chain([MaskedAutoregressive([8]), Permutation("reverse"), MaskedAutoregressive([8])]),
    "linear": lambda: Chain([Invertible1x1Conv(), Scale(5.0)]),
    "continuous": lambda: ContinuousFlow(units=[8], steps=10),
}


@pytest.mark.parametrize("name", TRAINED)
def test_the_laws_hold_after_training(name):
    x = vectors(64, 4) @ np.array([[1, 0.5, 0, 0], [0, 1, 0.5, 0], [0, 0, 1, 0.5], [0.3, 0, 0, 1]], "float32")
    x[:, 0] += 0.5 * x[:, 1] ** 2
    x = x[:, :2] if name == "continuous" else x
    model = Flow(TRAINED[name](), seed=0)
    model.compile(keras.optimizers.Adam(2e-2))
    losses = model.fit(x, batch_size=16, epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    check_directions(model.bijector, x[:2], tolerance=1e-4)
