import itertools

import keras
import numpy as np
import pytest
from keras import ops

from keras_gen.core.calculus.gradient import double_precision
from keras_gen.core.calculus.ode import dormand_prince, runge_kutta_4
from keras_gen.core.fixtures import to_numpy

Dense = keras.layers.Dense


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
@pytest.mark.parametrize("start", [np.nan, np.inf, 3.0])
def test_dormand_prince_always_ends(field, start):
    result = solve(dormand_prince, field, [1.0, start], 0.0, 1.0, 1e-3)
    assert result.shape == (2,)
