import math
from typing import Any

from keras import ops

from keras_gen.core.checks import check, is_number
from keras_gen.diffusion.schedules.base import NoiseSchedule
from keras_gen.diffusion.schedules.time_sampler import TimeSampler, uniform
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.schedules.ModeTime")
class ModeTime(TimeSampler):
    """Draws times around the middle without leaving out the ends: `t = 1 - u - scale (cos^2(pi u / 2) - 1 + u)`.

    `u` is uniform in (0, 1); t = 0 is the cleanest, t = 1 the noisiest time of the schedule.

    Args:
        scale: float in [-1, 2 / (pi - 2)]; 0 is uniform, above 0 the middle is preferred, below it the ends. Defaults
            to `1.29`.

    Raises:
        ValueError: if `scale` is outside its range, where t would not fall with u.

    Reference: Esser et al. 2024, arXiv:2403.03206, equation 20.
    """

    def __init__(self, scale: float = 1.29):
        valid = is_number(scale) and -1 <= scale <= 2 / (math.pi - 2)
        check(valid, "scale", "be in [-1, 2 / (pi - 2)]", repr(scale))
        self.scale = float(scale)

    def draw(self, batch: Any, schedule: NoiseSchedule, seed: Any) -> Any:
        u = uniform(batch, seed)
        return schedule.times_at(1 - u - self.scale * (ops.square(ops.cos(0.5 * math.pi * u)) - 1 + u))

    def get_config(self) -> dict[str, Any]:
        return {"scale": self.scale}
