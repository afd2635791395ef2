from typing import Any

from keras_gen.core.arrays import namespace, real
from keras_gen.diffusion.schedules.continuous_schedule import ContinuousSchedule, check_range
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.schedules.EDMSchedule")
class EDMSchedule(ContinuousSchedule):
    """The schedule of EDM: time is the noise level itself.

        alpha = 1,   sigma = t,   sigma_min <= t <= sigma_max

    The network is told `log(t) / 4`. Samplers lay their times by the "karras" spacing.

    Args:
        sigma_min: float > 0. Defaults to `0.002`.
        sigma_max: float > sigma_min. Defaults to `80.0`.

    Raises:
        ValueError: if not 0 < sigma_min < sigma_max.

    Reference: Karras et al. 2022, arXiv:2206.00364, table 1.
    """

    spacing = "karras"

    def __init__(self, sigma_min: float = 0.002, sigma_max: float = 80.0):
        self.sigma_min, self.sigma_max = check_range("sigma_min", sigma_min, sigma_max)
        self.t_start = self.t_min = self.sigma_min
        self.t_max = self.sigma_max

    def alpha(self, t: Any) -> Any:
        return namespace(t).ones_like(real(t))

    def sigma(self, t: Any) -> Any:
        return real(t)

    def derivatives(self, t: Any) -> tuple[Any, Any]:
        one = self.alpha(t)
        return 0.0 * one, one

    def inverse_log_snr(self, log_snr: Any) -> Any:
        return namespace(log_snr).exp(-0.5 * log_snr)

    def network_time(self, t: Any) -> Any:
        return 0.25 * namespace(t).log(t)

    def get_config(self) -> dict[str, Any]:
        return {"sigma_min": self.sigma_min, "sigma_max": self.sigma_max}
