import abc
from typing import Any

import keras
from keras import ops

from keras_gen.diffusion.schedules.base import NoiseSchedule
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.schedules.TimeSampler")
class TimeSampler(abc.ABC):
    """Base class: how the times of the training loss are drawn.

    To write another: draw with `keras.random` in `draw`, and return the constructor's arguments from `get_config`.
    `schedule.times_at` turns fractions, 0 for the cleanest and 1 for the noisiest time, into times.

    Reference: Esser et al. 2024, arXiv:2403.03206, section 3.1.
    """

    @abc.abstractmethod
    def draw(self, batch: Any, schedule: NoiseSchedule, seed: Any) -> Any:
        """Returns times of the schedule as a tensor `(batch,)`: integers if it is a discrete one."""

    def get_config(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "TimeSampler":
        return cls(**config)


def uniform(batch: Any, seed: Any) -> Any:
    """Returns a float32 tensor `(batch,)` of uniform numbers in (0, 1); Keras's may be 0."""
    return ops.maximum(keras.random.uniform((batch,), dtype="float32", seed=seed), 1e-7)
