"""Random draws whose values do not depend on how the work is split."""

import random
from typing import Any

import keras
import numpy as np

from keras_gen.core.checks import check_integer


class StepSeed(keras.random.SeedGenerator):
    """Hands one fixed seed to the `keras.random` functions: a seed for step `i` of a compiled loop.

    A `SeedGenerator` advances by assigning a variable, which a JAX loop does not allow. So the seeds of all steps are
    drawn before the loop, and the loop picks row `i`.

    Args:
        seed: integer tensor `(2,)`, of the dtype of a `SeedGenerator` state.
    """

    def __init__(self, seed: Any):  # no super().__init__(): it would create a variable inside the compiled loop
        self.seed = seed

    def next(self, ordered: bool = True) -> Any:
        return self.seed


def fixed_seed(seed: int | None) -> int:
    """Returns `seed`, or for `None` one from Python's generator, which `keras.utils.set_random_seed` reaches."""
    return random.randrange(2**31) if seed is None else check_integer("seed", seed, at_least=0)


def starting_noise(n: int, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Draws `n` standard normal arrays; draw `k` depends on `seed` and `k` alone, not on `n` or the backend.

    Args:
        n: int. How many.
        shape: shape of one draw.
        seed: int >= 0.

    Returns:
        float32 array `(n, *shape)`.
    """
    return np.random.default_rng(seed).standard_normal((n, *shape), dtype="float32")


def step_seeds(steps: int, seed: int, batch: int, dtype: str) -> np.ndarray:
    """Draws the rows for `StepSeed`, other ones for each `batch` and for each `seed`.

    Args:
        steps: int. Number of rows.
        seed: int >= 0.
        batch: int >= 0. Index of the batch that the loop works on.
        dtype: str. Dtype of a `SeedGenerator` state on this backend.

    Returns:
        integer array `(steps, 2)`.
    """
    # [seed, batch + 1]: the stream of starting_noise is that of [seed], and no other.
    return np.random.default_rng([seed, batch + 1]).integers(0, 2**31 - 1, (steps, 2)).astype(dtype)
