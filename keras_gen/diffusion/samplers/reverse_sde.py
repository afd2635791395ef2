import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_gen.core.arrays import broadcastable, sum_per_sample
from keras_gen.core.checks import check, check_integer, check_positive
from keras_gen.diffusion.samplers.base import Denoiser, DiffusionSampler, epsilon_of
from keras_gen.diffusion.samplers.threshold import DynamicThreshold
from keras_gen.diffusion.schedules.base import NoiseSchedule
from keras_gen.diffusion.schedules.continuous import check_continuous
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.samplers.ReverseSDESampler")
class ReverseSDESampler(DiffusionSampler):
    """Solves the reverse SDE by the Euler-Maruyama method, optionally with Langevin corrector steps.

        predictor   x_s = x_t - (f x_t - g^2 score) (t - s) + g sqrt(t - s) eps,   score = -eps_hat / sigma
        corrector   x_s = x_s + e score + sqrt(2 e) eps,   e = 2 D (snr / |score|)^2 in D dimensions

    The score vanishes at peaks of the density, which are often met in few dimensions. The mean of `|score|^2 / D`,
    however, is at least 1 over the variance of x_t: so e is at most `2 snr^2 (alpha^2 + sigma^2)`, its size for
    Gaussian data of deviation 1. The last step, to clean data, returns the predicted x0.

    Args:
        steps: int >= 1. Defaults to `500`.
        corrector_steps: int >= 0, number of corrector steps after each step. Defaults to `0`.
        snr: float > 0, signal-to-noise ratio of a corrector step, which determines its size. Defaults to `0.16`.
        spacing: as for `DiffusionSampler`. Defaults to `None`, the schedule's own.
        clip_x0: as for `DiffusionSampler`. Defaults to `None`.
        times: as for `DiffusionSampler`. Defaults to `None`.

    Raises:
        ValueError: if an argument is outside its range, or the schedule is not a `ContinuousSchedule`.

    Reference: Song et al. 2020, arXiv:2011.13456, algorithms 2 and 3; https://kexue.fm/archives/9209.
    """

    def __init__(
        self,
        steps: int = 500,
        corrector_steps: int = 0,
        snr: float = 0.16,
        spacing: str | None = None,
        clip_x0: float | DynamicThreshold | None = None,
        times: Sequence[float] | None = None,
    ):
        super().__init__(check_integer("steps", steps), spacing, clip_x0, times)
        self.corrector_steps = check_integer("corrector_steps", corrector_steps, at_least=0)
        self.snr = check_positive("snr", snr)
        self.draws = 1 + self.corrector_steps

    def rows(self, schedule: NoiseSchedule, times: np.ndarray) -> dict[str, Any]:
        schedule = check_continuous(schedule)
        t = times[:-1]
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        rule = "keep some signal: the drift of its SDE is infinite otherwise"
        check(not bool(np.any(alpha == 0)), "schedule", rule, schedule)
        drift, diffusion = schedule.drift(t), schedule.diffusion(t)
        length = np.where(np.isfinite(times[1:]), t - times[1:], 0.0)
        is_last = schedule.sigma(times[1:]) == 0  # the step to clean data
        of_x0 = alpha * (diffusion / sigma) ** 2 * length
        of_x_t = 1 - drift * length - (diffusion / sigma) ** 2 * length
        return {
            **super().rows(schedule, times),
            "of_x_t": np.where(is_last, 0.0, of_x_t),
            "of_x0": np.where(is_last, 1.0, of_x0),
            "std": np.where(is_last, 0.0, diffusion * np.sqrt(length)),
            "at_next": self.at(schedule, np.where(is_last, t, times[1:])),
            "is_corrected": ~is_last,
        }

    def step(self, denoise: Denoiser, x_t: Any, row: dict[str, Any], noise: Callable[..., Any]) -> Any:
        x0, _ = denoise(x_t, row)
        x_s = row["of_x_t"] * x_t + row["of_x0"] * x0 + row["std"] * noise()

        def corrected() -> Any:
            x = x_s
            for k in range(self.corrector_steps):
                x = self._correct(denoise, x, row["at_next"], noise(1 + k))
            return x

        return ops.cond(row["is_corrected"], corrected, lambda: x_s) if self.corrector_steps else x_s

    def _correct(self, denoise: Denoiser, x: Any, row: dict[str, Any], eps: Any) -> Any:
        score = -epsilon_of(x, denoise(x, row)[0], row) / row["sigma"]
        # Of x_t, if its density is Gaussian.
        variance = math.prod(x.shape[1:]) / ops.maximum(sum_per_sample(ops.square(score)), 1e-20)
        variance = ops.minimum(variance, row["alpha"] ** 2 + row["sigma"] ** 2)
        size = broadcastable(2 * self.snr**2 * variance, x)
        return x + size * score + ops.sqrt(2 * size) * eps

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "corrector_steps": self.corrector_steps, "snr": self.snr}
