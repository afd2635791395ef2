from typing import Any

from keras_gen.core.arrays import namespace, real
from keras_gen.diffusion.schedules.continuous_schedule import ContinuousSchedule
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.schedules.RectifiedFlowSchedule")
class RectifiedFlowSchedule(ContinuousSchedule):
    """The straight way from data to noise, of rectified flow and flow matching: `x_t = (1 - t) x0 + t eps`.

        alpha = 1 - t,   sigma = t,   0 <= t <= 1

    At t = 1 nothing is left of the data. Training begins at t = 1e-5, the spacings "linspace" and "leading" at 1e-3.

    Reference: Liu et al. 2022, arXiv:2209.03003; Lipman et al. 2022, arXiv:2210.02747; https://kexue.fm/archives/9497.
    """

    t_start, t_min = 1e-5, 1e-3

    def alpha(self, t: Any) -> Any:
        return 1.0 - self.sigma(t)

    def sigma(self, t: Any) -> Any:
        return real(t)

    def derivatives(self, t: Any) -> tuple[Any, Any]:
        one = namespace(t).ones_like(real(t))
        return -one, one

    def inverse_log_snr(self, log_snr: Any) -> Any:
        # sigma / alpha = exp(-log_snr / 2); this form is right for infinite values, too
        return 1.0 / (1.0 + namespace(log_snr).exp(0.5 * log_snr))

    def get_config(self) -> dict[str, Any]:
        return {}
