"""Noise that is known by an index, and regenerated instead of stored."""

from collections.abc import Sequence

import numpy as np

MEGABYTES = 64  # of noise held at a time


class Codebook:
    """Standard normal entries c[t, k] of the shape of an image, from a seed.

    Args:
        size: int, number of entries for each step.
        shape: shape of an image.
        seed: int >= 0.
    """

    def __init__(self, size: int, shape: Sequence[int], seed: int):
        self.size, self.shape, self.seed = size, tuple(shape), seed
        self.steps_at_once = max(1, int(MEGABYTES * 2**20 / (4 * size * np.prod(self.shape))))

    def entries(self, step: int) -> np.ndarray:
        """Returns the entries of one step, float32 `(size, *shape)`; they depend on seed and step alone."""
        generator = np.random.default_rng([self.seed, step])
        return generator.standard_normal((self.size, *self.shape), dtype="float32")

    def chunk(self, start: int, stop: int, length: int) -> np.ndarray:
        """Returns the entries of steps `start` .. `stop - 1`, filled up with zeros: `(length, size, *shape)`."""
        result = np.zeros((length, self.size, *self.shape), "float32")
        for step in range(start, stop):
            result[step - start] = self.entries(step)
        return result
