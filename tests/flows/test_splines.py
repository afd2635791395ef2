import functools

import numpy as np
import pytest
from bijecting import vectors
from keras import ops
from offenders import not_refused

from keras_gen.core.fixtures import to_numpy
from keras_gen.flows.spline_coupling import _knots
from keras_gen.ops import gradient, rational_quadratic_spline

GRID = np.linspace(-4, 4, 2001, dtype="float32")  # one shape for all tests of values: each is compiled by itself


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
    params = np.repeat(parameters((1,), scale=scale), len(GRID), axis=0)
    y, log_derivative = spline(GRID, params)
    assert (np.diff(y) > 0).all()
    slopes = np.diff(y.astype("float64")) / np.diff(GRID.astype("float64"))
    middle = 0.5 * (np.exp(log_derivative[1:]) + np.exp(log_derivative[:-1]))
    assert np.median(np.abs(slopes / middle - 1)) < 1e-3
    back, log_inverse = spline(y, params, inverse=True)
    np.testing.assert_allclose(back, GRID, atol=2e-4)
    np.testing.assert_allclose(np.median(np.abs(log_inverse + log_derivative)), 0, atol=1e-4)


@pytest.mark.parametrize("inverse", [False, True])
def test_zero_parameters_are_the_identity(inverse):
    y, log_derivative = spline(GRID, np.zeros((len(GRID), 14), "float32"), inverse)
    np.testing.assert_allclose(y, GRID, atol=1e-6)
    np.testing.assert_allclose(log_derivative, 0, atol=1e-5)


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0])
def test_splines_are_safe_at_the_edges_of_bins(inverse, scale):
    one = parameters((1,), scale=scale)
    knots = edges(one, heights=inverse)[0]
    assert knots[0] == -3
    assert knots[-1] == 3
    x = np.concatenate([knots, *(np.nextafter(knots, to, dtype="float32") for to in (-np.inf, np.inf))])
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


def test_bad_arguments_of_splines_are_refused():
    x, good = np.ones((1, 2), "float32"), parameters((1, 2))
    cases = [(good, bound, "`bound` must be > 0") for bound in (-1.0, 0, np.nan, np.inf, -np.inf, "3")]
    for bad in (np.nan, np.inf):
        broken = good.copy()
        broken[0, 1, 7] = bad
        cases.append((broken, 3.0, "`parameters` must be finite. Received: parameters=1 NaN or infinite values of 28"))
    shapes = [good[..., :-1], good[0], good[:, :1]]
    cases += [(wrong, 3.0, r"`parameters` must have shape \(1, 2, '3 K - 1'\)") for wrong in shapes]
    offenders = not_refused(
        (f"{match} of bound={bound}", functools.partial(rational_quadratic_spline, x, params, bound), match)
        for params, bound, match in cases
    )
    assert not offenders, "\n".join(offenders)


@pytest.mark.parametrize("inverse", [False, True])
def test_splines_are_the_identity_outside(inverse):
    x = np.resize(np.array([-1e6, -3.001, 3.001, 1e6], "float32"), (20, 3))  # the whole batch in the tails
    y, log_derivative = spline(x, parameters(x.shape), inverse)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(log_derivative, 0)


@pytest.mark.parametrize("bound", [0, -1.0, np.nan, np.inf, -np.inf, "5", [5.0, 5.0]])
def test_a_bound_is_positive_and_finite(bound):
    with pytest.raises(ValueError, match="`bound` must be > 0 and finite. Received: bound="):
        spline(np.ones((1, 2), "float32"), parameters((1, 2)), bound=bound)


@pytest.mark.parametrize("shape", [(1, 2, 12), (1, 3, 14), (2, 14), (1, 2, 3 * 501 - 1)])
def test_parameters_of_another_shape(shape):
    with pytest.raises(ValueError, match="`parameters` must (have shape|be of at most 500 bins)"):
        spline(np.ones((1, 2), "float32"), np.zeros(shape, "float32"))
