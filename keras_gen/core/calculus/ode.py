"""Solvers of ordinary differential equations dx/dt = f(t, x), for states that are tuples of tensors."""

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from keras_gen.core.compiled import sequential_loop, sequential_while

State = tuple[Any, ...]
Field = Callable[[Any, State], State]

SMALLEST_STEP = 1e-4  # fraction of the interval: so that the adaptive solver terminates for any f


def runge_kutta_4(f: Field, x: State, t0: float, t1: float, steps: int) -> State:
    """Integrates an ODE by the classical fourth-order Runge-Kutta method, with a fixed step size.

    Args:
        f: takes a scalar time and a state, returns the derivative of each component of the state.
        x: the state at `t0`.
        t0: float.
        t1: float; may be less than `t0`.
        steps: int >= 1.

    Returns:
        The state at `t1`.
    """
    h = (t1 - t0) / steps
    dtype = x[0].dtype

    def step(i: Any, x: State) -> State:
        t = t0 + h * ops.cast(i, dtype)
        k1 = f(t, x)
        k2 = f(t + h / 2, _add(x, (h / 2, k1)))
        k3 = f(t + h / 2, _add(x, (h / 2, k2)))
        k4 = f(t + h, _add(x, (h, k3)))
        return _add(x, (h / 6, k1), (h / 3, k2), (h / 3, k3), (h / 6, k4))

    return sequential_loop(0, steps, step, x)


# Dormand and Prince 1980: nodes, stages (the last one is the fifth-order solution), and its difference from the
# fourth-order one.
NODES = np.array([0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1])
STAGES = np.array(
    [
        [0, 0, 0, 0, 0, 0, 0],
        [1 / 5, 0, 0, 0, 0, 0, 0],
        [3 / 40, 9 / 40, 0, 0, 0, 0, 0],
        [44 / 45, -56 / 15, 32 / 9, 0, 0, 0, 0],
        [19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729, 0, 0, 0],
        [9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656, 0, 0],
        [35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0],
    ]
)
ERRORS = np.array([71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40])


def dormand_prince(f: Field, x: State, t0: float, t1: float, tolerance: float) -> State:
    """Integrates an ODE by the Dormand-Prince 5(4) method, with an adaptive step size.

    The error per step is at most `tolerance`, relative and absolute. The loop has no fixed length: JAX cannot compute
    its gradient.

    Args:
        f: takes a scalar time and a state, returns the derivative of each component of the state.
        x: the state at `t0`.
        t0: float.
        t1: float; may be less than `t0`.
        tolerance: float > 0.

    Returns:
        The state at `t1`.
    """
    dtype = x[0].dtype
    length = t1 - t0
    nodes, stages, errors = (ops.convert_to_tensor(table, dtype) for table in (NODES, STAGES, ERRORS))

    def unfinished(done: Any, h: Any, x: State) -> Any:
        return done < 1 - 1e-7

    def step(done: Any, h: Any, x: State) -> tuple[Any, Any, State]:
        h = ops.where(h < 1 - done, h, 1 - done)

        # A loop, so that f, usually a network, is compiled once instead of seven times.
        def stage(k: Any, state: tuple[State, State]) -> tuple[State, State]:
            slopes, _ = state
            inner = _combined(x, h * length * stages[k], slopes)
            slope = f(t0 + length * (done + nodes[k] * h), inner)
            here = ops.arange(len(NODES), dtype="int32") == k
            slopes = tuple(
                ops.where(ops.reshape(here, (-1, *[1] * len(new.shape))), new, old)
                for new, old in zip(slope, slopes, strict=True)
            )
            return slopes, inner

        zeros = tuple(ops.zeros((len(NODES), *ops.shape(part)), part.dtype) for part in x)
        slopes, new = sequential_loop(0, len(NODES), stage, (zeros, x))
        error = _combined(tuple(ops.zeros_like(part) for part in x), h * length * errors, slopes)
        ratio = ops.stop_gradient(_largest(error, x, new)) / tolerance
        ratio = ops.where(ops.isnan(ratio), 0.0, ratio)  # a smaller step would not help
        accept = (ratio <= 1) | (h <= SMALLEST_STEP)
        factor = ops.clip(0.9 * ops.maximum(ratio, 1e-10) ** -0.2, 0.2, 5.0)
        x = tuple(ops.where(accept, b, a) for a, b in zip(x, new, strict=True))
        return ops.where(accept, done + h, done), ops.maximum(h * factor, SMALLEST_STEP), x

    start = ops.zeros((), dtype), ops.full((), 0.05, dtype), tuple(x)
    return sequential_while(unfinished, step, start)[2]


def _add(x: State, *terms: tuple[Any, State]) -> State:
    """Returns x plus a weighted sum of states."""
    for weight, term in terms:
        x = tuple(part + weight * slope for part, slope in zip(x, term, strict=True))
    return x


def _combined(x: State, weights: Any, slopes: State) -> State:
    """Returns x plus the sum of `weights * slopes` over the first axis."""
    return tuple(
        part + ops.sum(ops.reshape(weights, (-1, *[1] * len(part.shape))) * slope, axis=0)
        for part, slope in zip(x, slopes, strict=True)
    )


def _largest(error: State, old: State, new: State) -> Any:
    """Returns the largest scaled error over all samples and dimensions."""
    ratios = [
        ops.max(ops.abs(e) / (1 + ops.maximum(ops.abs(a), ops.abs(b)))) for e, a, b in zip(error, old, new, strict=True)
    ]
    return ops.max(ops.stack(ratios))
