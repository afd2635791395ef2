"""Random draws that do not depend on how the work is split into batches."""

import contextlib
import random
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.checks import check, check_integer, check_integer_or_none, is_integer

SEEDS = 2**31  # the state of Keras's generators is int32 on PyTorch, uint32 on JAX


class StepSeed(keras.random.SeedGenerator):
    """Seed generator with one fixed seed for the `keras.random` functions: that of step `i` of a compiled loop.

    A `SeedGenerator` advances by assigning a variable, which a JAX loop does not allow. So the seeds of all steps are
    drawn before the loop, and the loop picks row `i`.

    Args:
        seed: integer tensor `(2,)`, of the dtype of a `SeedGenerator` state.
    """

    def __init__(self, seed: Any):  # no super().__init__(): it would create a variable inside the compiled loop
        self.seed = seed

    def next(self, ordered: bool = True) -> Any:
        return self.seed


def check_seed(seed: Any) -> int | None:
    """Checks that `seed` is an integer >= 0 of any size, or `None`, and returns it as a Python int."""
    return check_integer_or_none("seed", seed, at_least=0)


def keras_seed(seed: int | None) -> int | None:
    """Returns the seed for Keras's generators and initializers: `seed`, or a hash of it if they cannot hold it."""
    if seed is None or seed < SEEDS:
        return seed
    return int(np.random.SeedSequence(seed).generate_state(1)[0]) % SEEDS


def seed_generator(seed: int | None) -> keras.random.SeedGenerator:
    """Returns a generator of Keras for a seed of any size."""
    return keras.random.SeedGenerator(keras_seed(seed))


def draw_seed(seed: Any) -> Any:
    """Checks the `seed` of a single draw, an integer or a generator or `None`, and returns what Keras accepts."""
    is_generator = seed is None or isinstance(seed, keras.random.SeedGenerator)
    rule = "be an integer >= 0, a keras.random.SeedGenerator or None"
    check(is_generator or (is_integer(seed) and seed >= 0), "seed", rule, repr(seed))
    return seed if is_generator else keras_seed(int(seed))


def next_seed(generator: keras.random.SeedGenerator) -> int:
    """Returns the next seed that a generator draws.

    It is drawn at once, also where JAX traces a function around: the generator's state would keep a tracer for ever.
    """
    at_once: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
    if keras.backend.backend() == "jax":
        import jax

        at_once = jax.ensure_compile_time_eval()
    with at_once:
        return int(keras.random.randint((), 0, SEEDS - 1, seed=generator))


def fixed_seed(seed: int | None) -> int:
    """Returns `seed`, or for `None` one from Python's generator, which `keras.utils.set_random_seed` seeds."""
    return random.randrange(2**31) if seed is None else check_integer("seed", seed, at_least=0)


def check_seeds(seeds: Any, n: int) -> tuple[int, ...]:
    """Checks that `seeds` are `n` integers >= 0 of any size, one for each sample, and returns Python integers."""
    rule = f"be an integer >= 0, or {n} of them, one for each sample"
    check(np.ndim(seeds) == 1 and len(seeds) == n, "seed", rule, seeds)
    check(all(is_integer(seed) and seed >= 0 for seed in seeds), "seed", rule, seeds)
    return tuple(map(int, seeds))


def starting_noise(n: int, shape: tuple[int, ...], seed: int | tuple[int, ...]) -> np.ndarray:
    """Draws `n` standard normal arrays; draw `k` depends only on `seed` and `k`, not on `n` or the backend.

    Args:
        n: int. Number of draws.
        shape: shape of one draw.
        seed: int >= 0, or a tuple of `n` of them: then draw `k` is the first one of seed `k`.

    Returns:
        float32 array `(n, *shape)`.
    """
    if isinstance(seed, tuple):
        return np.concatenate([starting_noise(1, shape, one) for one in seed])
    return np.random.default_rng(seed).standard_normal((n, *shape), dtype="float32")


def normal_rows(shape: Any, seeds: Any) -> Any:
    """Draws standard normal numbers, row `k` of which is what a batch of one draws with row `k` of `seeds`.

    Args:
        shape: shape `(batch, ...)` of the draws.
        seeds: integer tensor `(2,)` for one draw of the whole batch, or `(batch, 2)`, see `StepSeed`.

    Returns:
        float32 tensor of this shape.
    """
    if len(seeds.shape) == 1:
        return keras.random.normal(shape, dtype="float32", seed=StepSeed(seeds))
    one = (1, *shape[1:])
    return ops.map(lambda seed: keras.random.normal(one, dtype="float32", seed=StepSeed(seed))[0], seeds)


def step_seeds(steps: int, seed: int, batch: int, dtype: str) -> np.ndarray:
    """Draws the rows for `StepSeed`, different for each `batch` and each `seed`.

    Args:
        steps: int. Number of rows.
        seed: int >= 0.
        batch: int >= 0. Index of the batch.
        dtype: str. Dtype of a `SeedGenerator` state on this backend.

    Returns:
        integer array `(steps, 2)`.
    """
    # [seed, batch + 1]: a stream distinct from that of starting_noise, [seed].
    return np.random.default_rng([seed, batch + 1]).integers(0, 2**31 - 1, (steps, 2)).astype(dtype)
