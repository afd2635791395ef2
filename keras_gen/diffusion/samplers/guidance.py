import abc
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_gen.export import keras_gen_export

Evaluate = Callable[[Any, dict[str, Any], Any], tuple[Any, Any]]


@keras_gen_export("keras_gen.samplers.Guidance")
class Guidance(abc.ABC):
    """Base class: changes what a model predicts, so that its samples fit a condition better.

    To write another: `bind(model)` returns a function like `model.denoise`; `check_model` refuses what it cannot guide;
    the constructor's arguments go to `get_config`; `layers` lists the layers that it calls besides the model.

    Reference: https://kexue.fm/archives/9257.
    """

    layers: tuple[keras.Layer, ...] = ()

    @abc.abstractmethod
    def bind(self, model: Any) -> Evaluate:
        """Returns a function of `(x_t, row, condition)`: the guided x0, and the share of the large variance."""

    @abc.abstractmethod
    def check_model(self, model: Any) -> None:
        """Refuses a model that it cannot guide."""

    def condition(self, model: Any, condition: Any, n: int) -> np.ndarray | None:
        """Returns the condition of `n` images as an array, as the model takes it."""
        return model.prepare_condition(condition, n)

    @abc.abstractmethod
    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Guidance":
        return cls(**keras.saving.deserialize_keras_object(config))
