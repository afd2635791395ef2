from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from keras_gen.diffusion.samplers.base import Denoiser, DiffusionSampler
from keras_gen.diffusion.schedules.base import NoiseSchedule
from keras_gen.diffusion.schedules.posterior import log_variance, reverse_rows
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.samplers.DDPMSampler")
class DDPMSampler(DiffusionSampler):
    """Ancestral sampling: draws from the posterior `q(x_s | x_t, x0)` at the predicted x0, step by step.

        x_s = of_x_t x_t + of_x0 x0 + exp(log_variance / 2) eps,   no noise on the step to clean data
        log_variance = w log v_large + (1 - w) log v_small
        v_small = the posterior's variance,   v_large = sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2

    The weight `w` is a property of the model: 0 (`"fixed_small"`), 1 (`"fixed_large"`) or a network output
    (`"learned_range"`); 0 for models without this option. Any stride is valid, not only one step of the schedule.

    Args:
        steps: int, number of network evaluations, or `None`: the number of steps of the schedule. Defaults to `None`.
        spacing: as for `DiffusionSampler`. Defaults to `None`, the schedule's own.
        clip_x0: as for `DiffusionSampler`. Defaults to `None`.
        times: as for `DiffusionSampler`. Defaults to `None`.

    Raises:
        ValueError: if an argument is outside its range.

    Reference: https://kexue.fm/archives/9164; Ho et al. 2020, arXiv:2006.11239, algorithm 2.
    """

    def rows(self, schedule: NoiseSchedule, times: np.ndarray) -> dict[str, np.ndarray]:
        return {**super().rows(schedule, times), **reverse_rows(schedule, times)}

    def step(self, denoise: Denoiser, x_t: Any, row: dict[str, Any], noise: Callable[..., Any]) -> Any:
        x0, variance_weight = denoise(x_t, row)
        std = row["is_stochastic"] * ops.exp(0.5 * log_variance(variance_weight, row))
        return row["of_x_t"] * x_t + row["of_x0"] * x0 + std * noise()
