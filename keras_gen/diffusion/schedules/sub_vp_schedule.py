from typing import Any

from keras_gen.core.arrays import namespace
from keras_gen.diffusion.schedules.vp_schedule import VPSchedule
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.schedules.SubVPSchedule")
class SubVPSchedule(VPSchedule):
    """The sub-VP SDE: the data fade as in `VPSchedule`, with less noise at every time.

        alpha = exp(-B / 2),   sigma = 1 - exp(-B),   B(t) = beta_min t + (beta_max - beta_min) t^2 / 2

    Args:
        beta_min: float > 0. Defaults to `0.1`.
        beta_max: float > beta_min. Defaults to `20.0`.

    Raises:
        ValueError: if not 0 < beta_min < beta_max.

    Reference: Song et al. 2020, arXiv:2011.13456, equation 12.
    """

    def sigma(self, t: Any) -> Any:
        return -namespace(t).expm1(-self._integral(t))

    def derivatives(self, t: Any) -> tuple[Any, Any]:
        alpha, beta = self.alpha(t), self.beta(t)
        return -0.5 * beta * alpha, beta * alpha**2

    def inverse_log_snr(self, log_snr: Any) -> Any:
        # alpha / sigma = 1 / (2 sinh(B / 2))
        xp = namespace(log_snr)
        return self._time_of(2 * xp.arcsinh(0.5 * xp.exp(-0.5 * log_snr)))
