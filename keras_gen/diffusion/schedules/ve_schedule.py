import math
from typing import Any

import numpy as np

from keras_gen.core.arrays import namespace, real
from keras_gen.diffusion.schedules.continuous_schedule import ContinuousSchedule, check_range
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.schedules.VESchedule")
class VESchedule(ContinuousSchedule):
    """The variance-exploding SDE of score matching: noise is added, the data stay.

        alpha = 1,   sigma = sigma_min (sigma_max / sigma_min)^t,   0 <= t <= 1

    Clean data lie at no finite time. The network's inputs are as large as sigma, unless `prediction="edm"` scales them.

    Args:
        sigma_min: float > 0. Defaults to `0.01`.
        sigma_max: float > sigma_min. Defaults to `50.0`.

    Raises:
        ValueError: if not 0 < sigma_min < sigma_max.

    Reference: Song et al. 2020, arXiv:2011.13456, equation 9; https://kexue.fm/archives/9209.
    """

    t_clean = -np.inf
    spacing = "linspace"

    def __init__(self, sigma_min: float = 0.01, sigma_max: float = 50.0):
        self.sigma_min, self.sigma_max = check_range("sigma_min", sigma_min, sigma_max)
        self.rate = math.log(self.sigma_max / self.sigma_min)

    def alpha(self, t: Any) -> Any:
        return namespace(t).ones_like(real(t))

    def sigma(self, t: Any) -> Any:
        return self.sigma_min * namespace(t).exp(self.rate * real(t))

    def derivatives(self, t: Any) -> tuple[Any, Any]:
        return 0.0 * self.alpha(t), self.rate * self.sigma(t)

    def inverse_log_snr(self, log_snr: Any) -> Any:
        return (-0.5 * log_snr - math.log(self.sigma_min)) / self.rate

    def get_config(self) -> dict[str, Any]:
        return {"sigma_min": self.sigma_min, "sigma_max": self.sigma_max}
