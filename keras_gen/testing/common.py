"""Assertions that name the violated law."""

from typing import Any

import numpy as np


def require(holds: bool, law: str) -> None:
    if not holds:
        raise AssertionError(law)


def same(expected: Any, actual: Any, rtol: float, atol: float, law: str) -> None:
    for a, b in zip(expected, actual, strict=True):
        np.testing.assert_allclose(b, a, rtol=rtol, atol=atol, err_msg=law)
