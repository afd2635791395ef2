from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_gen.core.checks import check, check_fraction
from keras_gen.diffusion.samplers.base import Denoiser, DiffusionSampler
from keras_gen.diffusion.samplers.threshold import DynamicThreshold
from keras_gen.diffusion.schedules.base import NoiseSchedule
from keras_gen.diffusion.schedules.posterior import posterior
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.samplers.AnalyticDPMSampler")
class AnalyticDPMSampler(DiffusionSampler):
    """DDIM with the optimal reverse variance, known in closed form from one statistic of the trained network.

        x_s = alpha_s x0 + sqrt(sigma_s^2 - d^2) eps_hat + sqrt(variance) eps,   d = eta sqrt(posterior variance)
        variance = d^2 + (sigma_t alpha_s / alpha_t - sqrt(sigma_s^2 - d^2))^2 (1 - Gamma_t)
        Gamma_t = 1 - E |eps - eps_hat(x_t)|^2 / dimensions,   for the optimal network E |eps_hat|^2 / dimensions

    `DDPM.adapt_variance(x)` estimates Gamma_t, which is saved with the model. The step to clean data adds noise as
    well: the posterior mean of x0 alone has too little variance.

    Args:
        steps: int, number of network evaluations, or `None`: the number of steps of the schedule. Defaults to `50`.
        eta: float in [0, 1]; 1 is Analytic-DPM, 0 is Analytic-DDIM. Defaults to `1.0`.
        spacing: as for `DiffusionSampler`. Defaults to `None`, the schedule's own.
        clip_x0: as for `DiffusionSampler`. Defaults to `None`.
        times: as for `DiffusionSampler`. Defaults to `None`.

    Raises:
        ValueError: if an argument is outside its range, or the model has no estimate of Gamma_t.

    Reference: https://kexue.fm/archives/9245; Bao et al. 2022, arXiv:2201.06503.
    """

    def __init__(
        self,
        steps: int | None = 50,
        eta: float = 1.0,
        spacing: str | None = None,
        clip_x0: float | DynamicThreshold | None = None,
        times: Sequence[float] | None = None,
    ):
        super().__init__(steps, spacing, clip_x0, times)
        self.eta = check_fraction("eta", eta, closed=True)

    def check_model(self, model: Any, times: np.ndarray) -> None:
        power = getattr(model, "noise_power", None)
        check(power is not None, "sampler", "be a different one: only a DDPM estimates Gamma_t", type(self).__name__)
        is_estimated = (ops.convert_to_numpy(power)[times[:-1]] >= 0).all()
        check(bool(is_estimated), "sampler", "be used after `model.adapt_variance(x)`", type(self).__name__)

    def rows(self, schedule: NoiseSchedule, times: np.ndarray) -> dict[str, Any]:
        alpha, sigma = schedule.alpha(times), schedule.sigma(times)
        rule = "keep some signal: the optimal variance is infinite otherwise"
        check(bool(np.all(alpha > 0)), "schedule", rule, schedule)
        _, _, variance = posterior(alpha[:-1], sigma[:-1], alpha[1:], sigma[1:])
        of_eps = np.sqrt(np.maximum(sigma[1:] ** 2 - self.eta**2 * variance, 0))
        return {
            **super().rows(schedule, times),
            "of_x_t": of_eps / sigma[:-1],
            "of_x0": alpha[1:] - of_eps / sigma[:-1] * alpha[:-1],
            "variance": self.eta**2 * variance,
            "of_unexplained": (sigma[:-1] * alpha[1:] / alpha[:-1] - of_eps) ** 2,
        }

    def step(self, denoise: Denoiser, x_t: Any, row: dict[str, Any], noise: Callable[..., Any]) -> Any:
        x0, _ = denoise(x_t, row)
        unexplained = ops.clip(1 - row["noise_power"], 0.0, 1.0)
        std = ops.sqrt(row["variance"] + row["of_unexplained"] * unexplained)
        return row["of_x_t"] * x_t + row["of_x0"] * x0 + std * noise()

    def traced_config(self) -> dict[str, Any]:
        return {**super().traced_config(), "eta": None}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "eta": self.eta}
