from typing import Any

import keras

from keras_gen.core.checks import check, is_number
from keras_gen.diffusion.schedules.base import NoiseSchedule
from keras_gen.diffusion.schedules.time_sampler import TimeSampler
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.schedules.LogNormalSigma")
class LogNormalSigma(TimeSampler):
    """Draws noise levels as EDM does: `log(sigma / alpha) = mean + std n`, with `n` standard normal.

    The time is the one at which the schedule has this level; of a discrete schedule the nearest.

    Args:
        mean: float. Defaults to `-1.2`.
        std: float > 0. Defaults to `1.2`.

    Raises:
        ValueError: if `mean` is not a number or `std` not > 0.

    Reference: Karras et al. 2022, arXiv:2206.00364, table 1.
    """

    def __init__(self, mean: float = -1.2, std: float = 1.2):
        check(is_number(mean), "mean", "be a number", repr(mean))
        check(is_number(std) and std > 0, "std", "be > 0", repr(std))
        self.mean, self.std = float(mean), float(std)

    def draw(self, batch: Any, schedule: NoiseSchedule, seed: Any) -> Any:
        log_sigma = self.mean + self.std * keras.random.normal((batch,), dtype="float32", seed=seed)
        return schedule.inverse_log_snr(-2 * log_sigma)

    def get_config(self) -> dict[str, Any]:
        return {"mean": self.mean, "std": self.std}
