"""What a decoder's output says about the data: the last factor of a latent-variable model."""

import abc
from typing import Any

import numpy as np


class Likelihood(abc.ABC):
    """Base class of `p(x | output)`.

    To write another: define `nll`, `mean`, `check` and `output_shape`; `dtype`, that of the data; and `get_config` for
    the arguments of its own.
    """

    dtype = "float32"

    @abc.abstractmethod
    def nll(self, x: Any, output: Any) -> Any:
        """Returns `-log p(x | output)` in nats per sample, float32 `(batch,)`, every constant in."""

    @abc.abstractmethod
    def mean(self, output: Any) -> Any:
        """Returns the data that stand for `output`: their mean, or the most likely ones."""

    @abc.abstractmethod
    def check(self, name: str, x: np.ndarray) -> None:
        """Refuses data that the likelihood does not describe."""

    def output_shape(self, data_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the shape of a decoder's output for data of a shape, both without the batch."""
        return data_shape

    def get_config(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Likelihood":
        return cls(**config)
