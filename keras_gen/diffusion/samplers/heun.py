import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_gen.core.checks import check, check_interval, check_nonnegative, check_positive
from keras_gen.diffusion.samplers.base import Denoiser, DiffusionSampler
from keras_gen.diffusion.samplers.euler import slope, straight_coordinates
from keras_gen.diffusion.samplers.threshold import DynamicThreshold
from keras_gen.diffusion.schedules.base import NoiseSchedule
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.samplers.HeunSampler")
class HeunSampler(DiffusionSampler):
    """EDM sampler: Heun's method for the probability-flow ODE, optionally with noise added before each step (churn).

        1. raise the noise   sigma_h = (1 + g) sigma_t,  x_h = x_t + sqrt(sigma_h^2 - sigma_t^2) churn_noise eps
        2. Euler to s        d  = dx / dsigma at (x_h, sigma_h),   x_s = x_h + (sigma_s - sigma_h) d
        3. correct           d' = dx / dsigma at (x_s, sigma_s),   x_s = x_h + (sigma_s - sigma_h) (d + d') / 2

    with `g = min(churn / N, sqrt(2) - 1)` where `sigma_t in churn_range`, else 0. Written for alpha = 1; the
    coordinates of other schedules are those of `EulerSampler`. The network is conditioned on the raised noise level.
    `N` steps take `2 N - 1` evaluations, since the last step, to clean data, is not corrected.

    Args:
        steps: int >= 1, number of steps, or `None`: the number of steps of the schedule. Defaults to `18`.
        churn: float >= 0, EDM's S_churn, the total amount of noise injected over all steps. Defaults to `0.0`, a
            deterministic sampler.
        churn_range: smallest and largest sigma / alpha with churn, or `None`, all. Defaults to `None`.
        churn_noise: float > 0, standard deviation of the added noise. Defaults to `1.0`; EDM uses up to 1.007.
        spacing: as for `DiffusionSampler`. Defaults to `None`, the schedule's own.
        clip_x0: as for `DiffusionSampler`. Defaults to `None`.
        times: as for `DiffusionSampler`. Defaults to `None`.

    Raises:
        ValueError: if an argument is outside its range, or `churn` > 0 with a schedule that ends at zero signal.

    Reference: Karras et al. 2022, arXiv:2206.00364, algorithm 2.
    """

    def __init__(
        self,
        steps: int | None = 18,
        churn: float = 0.0,
        churn_range: tuple[float, float] | None = None,
        churn_noise: float = 1.0,
        spacing: str | None = None,
        clip_x0: float | DynamicThreshold | None = None,
        times: Sequence[float] | None = None,
    ):
        super().__init__(steps, spacing, clip_x0, times)
        self.churn = check_nonnegative("churn", churn)
        self.churn_noise = check_positive("churn_noise", churn_noise)
        self.churn_range = check_interval("churn_range", churn_range)

    def rows(self, schedule: NoiseSchedule, times: np.ndarray) -> dict[str, Any]:
        raised = self._raised(schedule, times)
        alpha, sigma = schedule.alpha(times), schedule.sigma(times)
        alpha_h, sigma_h = schedule.alpha(raised), schedule.sigma(raised)
        norm, tau, of_x0 = straight_coordinates(alpha, sigma)
        norm_h, tau_h, _ = straight_coordinates(alpha_h, sigma_h)
        gain = np.divide(alpha_h, alpha[:-1], out=np.ones(len(raised)), where=raised != times[:-1])
        is_corrected = sigma[1:] > 0  # the network is not evaluated at clean data: that entry of `second` is unused
        second = np.where(is_corrected, times[1:], times[:-1])
        of_x0_in_slope = np.full(len(raised), of_x0)
        return {
            **self.at(schedule, raised),
            "gain": gain,
            "churn_std": self.churn_noise * np.sqrt(np.maximum(sigma_h**2 - (gain * sigma[:-1]) ** 2, 0)),
            "of_x": norm[1:] / norm_h,
            "step": norm[1:] * (tau[1:] - tau_h),
            "of_x0_in_slope": of_x0_in_slope,
            "at_next": {**self.at(schedule, second), "of_x0_in_slope": of_x0_in_slope},
            "is_corrected": is_corrected,
        }

    def step(self, denoise: Denoiser, x_t: Any, row: dict[str, Any], noise: Callable[..., Any]) -> Any:
        if self.churn > 0:
            x_t = row["gain"] * x_t + row["churn_std"] * noise()
        d = slope(denoise, x_t, row)
        x_s = row["of_x"] * x_t + row["step"] * d

        def corrected() -> Any:
            d_s = slope(denoise, x_s, row["at_next"])
            return row["of_x"] * x_t + row["step"] * 0.5 * (d + d_s)

        return ops.cond(row["is_corrected"], corrected, lambda: x_s)

    def traced_config(self) -> dict[str, Any]:
        return {**super().traced_config(), "churn": self.churn > 0, "churn_range": None, "churn_noise": None}

    def get_config(self) -> dict[str, Any]:
        own = {"churn": self.churn, "churn_range": self.churn_range, "churn_noise": self.churn_noise}
        return {**super().get_config(), **own}

    def _raised(self, schedule: NoiseSchedule, times: np.ndarray) -> np.ndarray:
        """Returns the times of the noise levels sigma_h; in discrete time the nearest ones, but not below `times`."""
        if self.churn == 0:
            return times[:-1]
        rule = "be 0 with a schedule that ends at zero signal"
        check(bool(np.all(schedule.alpha(times) > 0)), "churn", rule, self.churn)
        level = schedule.sigma(times[:-1]) / schedule.alpha(times[:-1])
        gain = min(self.churn / len(level), math.sqrt(2) - 1)
        low, high = self.churn_range or (0.0, math.inf)
        is_raised = (low <= level) & (level <= high)
        raised = schedule.inverse_log_snr(-2 * np.log((1 + gain) * level))
        return np.where(is_raised, np.maximum(raised, times[:-1]), times[:-1])
