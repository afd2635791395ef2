from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from keras_gen.core.checks import check_fraction
from keras_gen.diffusion.samplers.base import Denoiser, DiffusionSampler
from keras_gen.diffusion.samplers.threshold import DynamicThreshold
from keras_gen.diffusion.schedules.base import NoiseSchedule
from keras_gen.diffusion.schedules.posterior import posterior
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.samplers.DDIMSampler")
class DDIMSampler(DiffusionSampler):
    """DDIM: samples in few steps, deterministically at `eta=0`, from a model trained as for DDPM.

        x_s = alpha_s x0 + sqrt(sigma_s^2 - d^2) eps_hat + d eps,   eps_hat = (x_t - alpha_t x0) / sigma_t
        d = eta sqrt(variance of q(x_s | x_t, x0))

    At `eta=1` it is `DDPMSampler` with `variance="fixed_small"`. The predicted noise is computed from x0, so that it
    stays consistent when x0 is clipped.

    Args:
        steps: int, number of network evaluations, or `None`: the number of steps of the schedule. Defaults to `50`.
        eta: float in [0, 1], the amount of fresh noise. Defaults to `0.0`.
        spacing: as for `DiffusionSampler`. Defaults to `None`, the schedule's own.
        clip_x0: as for `DiffusionSampler`. Defaults to `None`.
        times: as for `DiffusionSampler`. Defaults to `None`.

    Raises:
        ValueError: if an argument is outside its range.

    Reference: https://kexue.fm/archives/9181; Song et al. 2020, arXiv:2010.02502, equation 12.
    """

    def __init__(
        self,
        steps: int | None = 50,
        eta: float = 0.0,
        spacing: str | None = None,
        clip_x0: float | DynamicThreshold | None = None,
        times: Sequence[float] | None = None,
    ):
        super().__init__(steps, spacing, clip_x0, times)
        self.eta = check_fraction("eta", eta, closed=True)

    def rows(self, schedule: NoiseSchedule, times: np.ndarray) -> dict[str, np.ndarray]:
        alpha, sigma = schedule.alpha(times), schedule.sigma(times)
        _, _, variance = posterior(alpha[:-1], sigma[:-1], alpha[1:], sigma[1:])
        std = self.eta * np.sqrt(variance)
        of_x_t = np.sqrt(np.maximum(sigma[1:] ** 2 - std**2, 0)) / sigma[:-1]
        of_x0 = alpha[1:] - of_x_t * alpha[:-1]
        return {**super().rows(schedule, times), "of_x_t": of_x_t, "of_x0": of_x0, "std": std}

    def step(self, denoise: Denoiser, x_t: Any, row: dict[str, Any], noise: Callable[..., Any]) -> Any:
        x0, _ = denoise(x_t, row)
        x_s = row["of_x_t"] * x_t + row["of_x0"] * x0
        return x_s + row["std"] * noise() if self.eta > 0 else x_s

    def traced_config(self) -> dict[str, Any]:
        return {**super().traced_config(), "eta": self.eta > 0}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "eta": self.eta}


@keras_gen_export("keras_gen.samplers.ClippedDDIMSampler")
class ClippedDDIMSampler(DDIMSampler):
    """DDIM that bounds x0 but not the noise, which stays the network's own, as diffusers does with `clip_sample`.

        x_s = alpha_s clip(x0) + sqrt(sigma_s^2 - d^2) eps_hat + d eps,   eps_hat = (x_t - alpha_t x0) / sigma_t

    Where x0 is bounded, `alpha_t clip(x0) + sigma_t eps_hat` is no longer x_t. `DDIMSampler` keeps the two consistent:
    prefer it, unless you want to reproduce the images of a pipeline.

    Args:
        steps: as for `DDIMSampler`. Defaults to `50`.
        eta: as for `DDIMSampler`. Defaults to `0.0`.
        spacing: as for `DiffusionSampler`. Defaults to `None`, the schedule's own.
        clip_x0: as for `DiffusionSampler`. Defaults to `1.0`.
        times: as for `DiffusionSampler`. Defaults to `None`.

    Raises:
        ValueError: if an argument is outside its range.

    Reference: Song et al. 2020, arXiv:2010.02502, equation 12.
    """

    def __init__(
        self,
        steps: int | None = 50,
        eta: float = 0.0,
        spacing: str | None = None,
        clip_x0: float | DynamicThreshold | None = 1.0,
        times: Sequence[float] | None = None,
    ):
        super().__init__(steps, eta, spacing, clip_x0, times)

    def rows(self, schedule: NoiseSchedule, times: np.ndarray) -> dict[str, np.ndarray]:
        return {**super().rows(schedule, times), "next_alpha": schedule.alpha(times[1:])}

    def step(self, denoise: Denoiser, x_t: Any, row: dict[str, Any], noise: Callable[..., Any]) -> Any:
        x0, _ = denoise.evaluate(x_t, row, denoise.condition)
        x_s = row["next_alpha"] * denoise.bounded(x0) + row["of_x_t"] * (x_t - row["alpha"] * x0)
        return x_s + row["std"] * noise() if self.eta > 0 else x_s
