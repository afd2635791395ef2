from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from keras_gen.core.checks import check, check_integer
from keras_gen.diffusion.samplers.base import Denoiser, DiffusionSampler, has_step_of
from keras_gen.diffusion.samplers.ddim import DDIMSampler
from keras_gen.diffusion.samplers.euler import EulerSampler, slope, strides
from keras_gen.diffusion.schedules.base import NoiseSchedule


class DDIMInversion(DiffusionSampler):
    """DDIM inversion: runs a deterministic sampler backwards, from clean data to noise; see `DiffusionModel.invert`.

        y_t = y_s + (tau_t - tau_s) dy / dtau (x_t, t)

    in the coordinates of `EulerSampler` is solved for y_t by fixed-point iteration, starting from the previous slope.
    """

    def __init__(self, sampler: DiffusionSampler, iterations: int = 3):
        # A subclass may override the rule of a step, which these steps would not invert.
        is_plain = any(has_step_of(sampler, cls) for cls in (EulerSampler, DDIMSampler))
        check(
            is_plain and getattr(sampler, "eta", 0) == 0,
            "sampler",
            "be a DDIMSampler with eta=0 or an EulerSampler",
            repr(sampler),
        )
        super().__init__(sampler.steps, sampler.spacing, sampler.clip_x0, sampler.given_times)
        self.iterations = check_integer("iterations", iterations)

    def times(self, schedule: NoiseSchedule) -> np.ndarray:
        return super().times(schedule)[::-1]

    def rows(self, schedule: NoiseSchedule, times: np.ndarray) -> dict[str, Any]:
        return {**self.at(schedule, times[1:]), **strides(schedule, times)}

    def start(self, x: Any) -> Any:
        return x, ops.zeros_like(x)

    def finish(self, state: Any) -> Any:
        return state[0]

    def step(self, denoise: Denoiser, state: Any, row: dict[str, Any], noise: Callable[..., Any]) -> Any:
        x_s, d = state
        x_t = row["of_x"] * x_s + row["step"] * d
        for _ in range(self.iterations):
            d = slope(denoise, x_t, row)
            x_t = row["of_x"] * x_s + row["step"] * d
        return x_t, d

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "iterations": self.iterations}
