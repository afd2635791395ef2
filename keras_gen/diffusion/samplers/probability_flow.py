from collections.abc import Callable
from typing import Any

import numpy as np

from keras_gen.core.calculus.ode import dormand_prince
from keras_gen.core.checks import check_positive
from keras_gen.diffusion.samplers.base import Denoiser, DiffusionSampler
from keras_gen.diffusion.samplers.threshold import DynamicThreshold
from keras_gen.diffusion.schedules.base import NoiseSchedule
from keras_gen.diffusion.schedules.continuous import check_continuous
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.samplers.ProbabilityFlowSampler")
class ProbabilityFlowSampler(DiffusionSampler):
    """Solves the probability-flow ODE with an adaptive step size (Dormand-Prince method of order 5).

        dx / dt = alpha' x0 + sigma' eps_hat,   from t_max to t_min, and then x0 at t_min

    All images of a batch share the same steps.

    Args:
        tolerance: float > 0, relative and absolute error of each step. Defaults to `1e-5`.
        clip_x0: as for `DiffusionSampler`. Defaults to `None`.

    Raises:
        ValueError: if an argument is outside its range, or the schedule is not a `ContinuousSchedule`.

    Reference: Song et al. 2020, arXiv:2011.13456, section 4.3; https://kexue.fm/archives/9228.
    """

    def __init__(self, tolerance: float = 1e-5, clip_x0: float | DynamicThreshold | None = None):
        super().__init__(1, None, clip_x0)
        self.tolerance = check_positive("tolerance", tolerance)

    def times(self, schedule: NoiseSchedule) -> np.ndarray:
        check_continuous(schedule)
        return np.array([schedule.t_max, schedule.t_clean])

    def rows(self, schedule: NoiseSchedule, times: np.ndarray) -> dict[str, Any]:
        return {**super().rows(schedule, times), "at_end": self.at(schedule, np.array([schedule.t_min]))}

    def step(self, denoise: Denoiser, x_t: Any, row: dict[str, Any], noise: Callable[..., Any]) -> Any:
        end = row["at_end"]

        def f(t: Any, state: Any) -> Any:
            return (denoise.velocity(state[0], t),)

        (x,) = dormand_prince(f, (x_t,), row["t"], end["t"], self.tolerance)
        return denoise(x, end)[0]

    def get_config(self) -> dict[str, Any]:
        return {"tolerance": self.tolerance, "clip_x0": super().get_config()["clip_x0"]}
