import abc
from typing import Any

import numpy as np

from keras_gen.core.arrays import array_module
from keras_gen.core.checks import check, is_number
from keras_gen.core.configured import Configured


class NoiseSchedule(Configured, abc.ABC):
    """Base class of noise schedules: the factors of `x_t = alpha(t) x0 + sigma(t) eps`, and the range of times.

    `t` is a number, an array or a tensor; the result is float64 NumPy for the first two and a float32 tensor for the
    last, so that one formula serves both the coefficient table of a sampler and the compiled training step.

    Attributes:
        t_start: cleanest time of training and likelihoods.
        t_min: cleanest time of samplers, before the step to clean data.
        t_max: noisiest time.
        t_clean: time of clean data, alpha = 1 and sigma = 0; never an input of the network.
        spacing: default time spacing of samplers, see `time_grid`.
    """

    t_start: float = 0.0
    t_min: float = 0.0
    t_max: float = 1.0
    t_clean: float = 0.0
    spacing: str = "trailing"

    @abc.abstractmethod
    def alpha(self, t: Any) -> Any:
        """Returns the factor of the data at the times `t`."""

    @abc.abstractmethod
    def sigma(self, t: Any) -> Any:
        """Returns the factor of the noise at the times `t`."""

    @abc.abstractmethod
    def inverse_log_snr(self, log_snr: Any) -> Any:
        """Returns the time at which `log_snr(t)` is `log_snr`, or the nearest time of the schedule."""

    @abc.abstractmethod
    def times_at(self, fraction: Any) -> Any:
        """Maps fractions in [0, 1) to times from `t_start` to `t_max`."""

    def log_snr(self, t: Any) -> Any:
        """Returns `log(alpha_t^2 / sigma_t^2)`, infinite for clean data and for pure noise."""
        xp = array_module(t)
        with np.errstate(divide="ignore"):
            return 2 * (xp.log(self.alpha(t)) - xp.log(self.sigma(t)))

    def check_time(self, name: str, t: Any) -> None:
        """Raises `ValueError` unless `t` is a time between `t_start` and `t_max`."""
        check(
            is_number(t) and self.t_start <= t <= self.t_max, name, f"be a number in {self.t_start} .. {self.t_max}", t
        )

    def network_time(self, t: Any) -> Any:
        """Returns the time that a network is conditioned on: int32 in discrete time, else float32. By default `t`."""
        return t
