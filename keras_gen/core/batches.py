"""Splitting of work into batches of one size, so that a compiled function is compiled once."""

from collections.abc import Iterator

import numpy as np


def even_batches(n: int, batch_size: int) -> Iterator[np.ndarray]:
    """Yields index arrays of one length <= `batch_size` that together run through 0 .. n - 1.

    The last one is filled up with `n - 1`; whoever joins the results keeps the first `n`.
    """
    batches = -(-n // batch_size)
    size = -(-n // batches)
    for start in range(0, n, size):
        yield np.minimum(np.arange(start, start + size), n - 1)
