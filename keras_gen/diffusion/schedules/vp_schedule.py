from typing import Any

from keras_gen.core.arrays import namespace, real
from keras_gen.diffusion.schedules.continuous_schedule import ContinuousSchedule, check_range
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.schedules.VPSchedule")
class VPSchedule(ContinuousSchedule):
    """The variance-preserving SDE, DDPM in continuous time: `alpha^2 + sigma^2 = 1`.

        beta(t) = beta_min + (beta_max - beta_min) t,   B(t) = integral of beta from 0 to t
        alpha = exp(-B / 2),   sigma = sqrt(1 - exp(-B)),   0 < t <= 1

    Args:
        beta_min: float > 0. Defaults to `0.1`.
        beta_max: float > beta_min. Defaults to `20.0`.

    Raises:
        ValueError: if not 0 < beta_min < beta_max.

    Reference: Song et al. 2020, arXiv:2011.13456, equation 11; https://kexue.fm/archives/9209.
    """

    t_start, t_min = 1e-5, 1e-3

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0):
        self.beta_min, self.beta_max = check_range("beta_min", beta_min, beta_max)

    def beta(self, t: Any) -> Any:
        """Returns the rate of noise at the times `t`."""
        return self.beta_min + (self.beta_max - self.beta_min) * real(t)

    def alpha(self, t: Any) -> Any:
        return namespace(t).exp(-0.5 * self._integral(t))

    def sigma(self, t: Any) -> Any:
        return namespace(t).sqrt(-namespace(t).expm1(-self._integral(t)))

    def derivatives(self, t: Any) -> tuple[Any, Any]:
        alpha, beta = self.alpha(t), self.beta(t)
        return -0.5 * beta * alpha, 0.5 * beta * alpha**2 / self.sigma(t)

    def inverse_log_snr(self, log_snr: Any) -> Any:
        # SNR = 1 / (exp(B) - 1)
        xp = namespace(log_snr)
        return self._time_of(xp.log1p(xp.exp(-log_snr)))

    def get_config(self) -> dict[str, Any]:
        return {"beta_min": self.beta_min, "beta_max": self.beta_max}

    def _integral(self, t: Any) -> Any:
        t = real(t)
        return self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t**2

    def _time_of(self, integral: Any) -> Any:
        """Returns t with B(t) = `integral`: the root of a quadratic, in the form that loses no digits."""
        root = namespace(integral).sqrt(self.beta_min**2 + 2 * (self.beta_max - self.beta_min) * integral)
        return 2 * integral / (self.beta_min + root)
