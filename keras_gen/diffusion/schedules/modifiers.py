"""Schedules derived from other schedules."""

from typing import Any

import keras

from keras_gen.core.arrays import as_float64
from keras_gen.core.checks import check, check_positive
from keras_gen.diffusion.schedules.continuous import ContinuousSchedule
from keras_gen.diffusion.schedules.discrete import DiscreteSchedule
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.schedules.ZeroTerminalSNR")
class ZeroTerminalSNR(DiscreteSchedule):
    """Schedule rescaled to zero terminal SNR: its last step is pure noise, as sampling assumes.

        alpha'_t = (alpha_t - alpha_{T-1}) alpha_0 / (alpha_0 - alpha_{T-1})

    At the last step the noise does not determine the data: use it with `prediction="v"` or `"x0"`, and sample with
    `spacing="trailing"`.

    Args:
        schedule: a `DiscreteSchedule` of at least two steps.

    Raises:
        ValueError: if `schedule` is not such a schedule.

    Reference: Lin et al. 2023, arXiv:2305.08891, algorithm 1.
    """

    def __init__(self, schedule: DiscreteSchedule):
        rule = "be a DiscreteSchedule of at least two steps"
        check(isinstance(schedule, DiscreteSchedule) and schedule.num_steps > 1, "schedule", rule, schedule)
        self.schedule = schedule
        alphas = schedule.alpha(range(schedule.num_steps))
        self._set_alphas((alphas - alphas[-1]) * alphas[0] / (alphas[0] - alphas[-1]))

    def get_config(self) -> dict[str, Any]:
        return {"schedule": keras.saving.serialize_keras_object(self.schedule)}


@keras_gen_export("keras_gen.schedules.Shifted")
class Shifted(ContinuousSchedule):
    """Time-shifted schedule, with more time at high noise for large images: `t' = k t / (1 + (k - 1) t)`.

    For `RectifiedFlowSchedule` the log-SNR decreases by `2 log k` at every time. From images of n pixels to m pixels,
    `k = sqrt(m / n)`. The network is conditioned on t', so that it may have been trained without the shift.

    Args:
        schedule: a `ContinuousSchedule` whose times run from 0 to 1, not a `Shifted` one.
        shift: float > 0, `k`. Defaults to `3.0`.

    Raises:
        ValueError: if `schedule` is not such a schedule (shifts cannot be nested), or `shift` is not > 0.

    Reference: Esser et al. 2024, arXiv:2403.03206, equation 23.
    """

    def __init__(self, schedule: ContinuousSchedule, shift: float = 3.0):
        rule = "not be Shifted already: multiply the shifts instead"
        check(not isinstance(schedule, Shifted), "schedule", rule, schedule)
        is_unit = isinstance(schedule, ContinuousSchedule) and (schedule.t_clean, schedule.t_max) == (0, 1)
        check(is_unit, "schedule", "be a ContinuousSchedule whose times run from 0 to 1", schedule)
        self.schedule = schedule
        self.shift = check_positive("shift", shift)
        self.t_start, self.t_min = self._unwarp(schedule.t_start), self._unwarp(schedule.t_min)
        self.spacing = schedule.spacing

    def alpha(self, t: Any) -> Any:
        return self.schedule.alpha(self.warp(t))

    def sigma(self, t: Any) -> Any:
        return self.schedule.sigma(self.warp(t))

    def warp(self, t: Any) -> Any:
        """Returns t', the time of the inner schedule."""
        t = as_float64(t)
        return self.shift * t / (1 + (self.shift - 1) * t)

    def derivatives(self, t: Any) -> tuple[Any, Any]:
        speed = self.shift / (1 + (self.shift - 1) * as_float64(t)) ** 2
        d_alpha, d_sigma = self.schedule.derivatives(self.warp(t))
        return speed * d_alpha, speed * d_sigma

    def velocity(self, t: Any) -> tuple[Any, Any]:
        # With respect to t', the network's time: eps - x0 for a rectified flow, with any shift.
        return self.schedule.derivatives(self.warp(t))

    def inverse_log_snr(self, log_snr: Any) -> Any:
        return self._unwarp(self.schedule.inverse_log_snr(log_snr))

    def network_time(self, t: Any) -> Any:
        return self.schedule.network_time(self.warp(t))

    def get_config(self) -> dict[str, Any]:
        return {"schedule": keras.saving.serialize_keras_object(self.schedule), "shift": self.shift}

    def _unwarp(self, t: Any) -> Any:
        return t / (self.shift - (self.shift - 1) * t)
