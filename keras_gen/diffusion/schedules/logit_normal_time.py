from typing import Any

import keras
from keras import ops

from keras_gen.core.checks import check, is_number
from keras_gen.diffusion.schedules.base import NoiseSchedule
from keras_gen.diffusion.schedules.time_sampler import TimeSampler
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.schedules.LogitNormalTime")
class LogitNormalTime(TimeSampler):
    """Draws times from the middle more often, where a flow has the most to learn: `t = sigmoid(mean + std n)`.

    `n` is standard normal; t = 0 is the cleanest, t = 1 the noisiest time of the schedule.

    Args:
        mean: float; greater for noisier times. Defaults to `0.0`.
        std: float > 0. Defaults to `1.0`.

    Raises:
        ValueError: if `mean` is not a number or `std` not > 0.

    Reference: Esser et al. 2024, arXiv:2403.03206, equation 19.
    """

    def __init__(self, mean: float = 0.0, std: float = 1.0):
        check(is_number(mean), "mean", "be a number", repr(mean))
        check(is_number(std) and std > 0, "std", "be > 0", repr(std))
        self.mean, self.std = float(mean), float(std)

    def draw(self, batch: Any, schedule: NoiseSchedule, seed: Any) -> Any:
        n = keras.random.normal((batch,), dtype="float32", seed=seed)
        return schedule.times_at(ops.sigmoid(self.mean + self.std * n))

    def get_config(self) -> dict[str, Any]:
        return {"mean": self.mean, "std": self.std}
