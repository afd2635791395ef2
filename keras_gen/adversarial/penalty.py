"""What bounds the slope of a discriminator."""

import abc
from collections.abc import Callable
from typing import Any

from keras_gen.core.checks import check, is_number


class Penalty(abc.ABC):
    """Base class of penalties on the gradient of a discriminator.

    To write another: define `__call__`. `discriminator` takes data and returns `(batch,)`; it may be called as often as
    is needed, also within `keras.ops.jvp` and `keras_gen.ops.gradient`. Draw from `seed`.

    The gradient is that of each sample alone, so a discriminator with batch normalization is not for it.
    """

    def __init__(self, weight: float = 10.0):
        check(is_number(weight) and weight >= 0, "weight", "be a number >= 0", repr(weight))
        self.weight = float(weight)

    @abc.abstractmethod
    def __call__(self, discriminator: Callable[[Any], Any], x: Any, fake: Any, seed: Any) -> Any:
        """Returns the penalty, float32 `(batch,)`, for data and samples, both float32 `(batch, ...)`."""

    def get_config(self) -> dict[str, Any]:
        return {"weight": self.weight}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Penalty":
        return cls(**config)
