"""Samples of a model in training, which may have diverged."""

from typing import Any

import numpy as np

from keras_gen.core.checks import NotFiniteError, finite_rows


def sampled(model: Any, n: int, **options: Any) -> tuple[np.ndarray | None, np.ndarray]:
    """Draws samples; returns them, `None` if the model refuses samples that are not finite, and which are finite."""
    try:
        samples = model.sample(n, **options)
    except NotFiniteError as error:
        return None, error.finite
    return samples, finite_rows(samples)
