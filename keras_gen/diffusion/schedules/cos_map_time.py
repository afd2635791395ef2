import math
from typing import Any

from keras import ops

from keras_gen.diffusion.schedules.base import NoiseSchedule
from keras_gen.diffusion.schedules.time_sampler import TimeSampler, uniform
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.schedules.CosMapTime")
class CosMapTime(TimeSampler):
    """Draws times so that the log-SNR of a rectified flow is spread as by the cosine schedule.

        t = 1 - 1 / (tan(pi u / 2) + 1)

    `u` is uniform in (0, 1); t = 0 is the cleanest, t = 1 the noisiest time of the schedule. The density of t is
    `2 / (pi - 2 pi t + 2 pi t^2)`.

    Reference: Esser et al. 2024, arXiv:2403.03206, equation 21.
    """

    def draw(self, batch: Any, schedule: NoiseSchedule, seed: Any) -> Any:
        return schedule.times_at(1 - 1 / (ops.tan(0.5 * math.pi * uniform(batch, seed)) + 1))
