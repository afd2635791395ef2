"""Checks of the segments of packed rows."""

from typing import Any

import keras

from keras_gen.core.checks import check


def check_segments(segments: Any) -> None:
    """Refuses what is not a batch of rows of integers."""
    integers = "int" in keras.backend.standardize_dtype(segments.dtype)
    valid = len(segments.shape) == 2 and integers
    check(valid, "segments", "be integers (rows, length)", f"{segments.dtype} of shape {tuple(segments.shape)}")
