from typing import Any

from keras_gen.diffusion.schedules.base import NoiseSchedule
from keras_gen.diffusion.schedules.time_sampler import TimeSampler, uniform
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.schedules.UniformTime")
class UniformTime(TimeSampler):
    """Draws every time of the schedule alike, as DDPM does.

    Reference: Ho et al. 2020, arXiv:2006.11239, algorithm 1.
    """

    def draw(self, batch: Any, schedule: NoiseSchedule, seed: Any) -> Any:
        return schedule.times_at(uniform(batch, seed))
