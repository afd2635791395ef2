from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_gen.core.checks import check
from keras_gen.diffusion.samplers.base import Denoiser, DiffusionSampler, epsilon_of
from keras_gen.diffusion.samplers.threshold import DynamicThreshold
from keras_gen.diffusion.schedules.base import NoiseSchedule
from keras_gen.export import keras_gen_export

# Adams-Bashforth weights of the newest noise prediction and of those before it, for orders 1 to 4.
ADAMS_BASHFORTH = np.array(
    [[1, 0, 0, 0], [3 / 2, -1 / 2, 0, 0], [23 / 12, -16 / 12, 5 / 12, 0], [55 / 24, -59 / 24, 37 / 24, -9 / 24]]
)


@keras_gen_export("keras_gen.samplers.PLMSSampler")
class PLMSSampler(DiffusionSampler):
    """Pseudo linear multistep method (PLMS, or PNDM without Runge-Kutta steps): DDIM steps with extrapolated noise.

        x_s = (alpha_s / alpha_t) x_t + (sigma_s - alpha_s sigma_t / alpha_t) eps'
        eps' = (55 eps_0 - 59 eps_1 + 37 eps_2 - 9 eps_3) / 24,   eps_0 the newest noise prediction

    The first step is a Heun step, `eps' = (eps_0 + eps_hat(x_s, s)) / 2`; the next two have orders 2 and 3. `N` steps
    take `N + 1` evaluations. The weights are those of equal steps: on other grids the error is of second order. A first
    step from almost no signal, as with a `CosineSchedule` and "trailing", multiplies errors of the network, and of
    rounding, by alpha_s / alpha_t: "leading" omits it.

    Args:
        steps: int >= 1, number of steps, or `None`: the number of steps of the schedule. Defaults to `50`.
        spacing: as for `DiffusionSampler`. Defaults to `None`, the schedule's own.
        clip_x0: as for `DiffusionSampler`. Defaults to `None`.
        times: as for `DiffusionSampler`. Defaults to `None`.

    Raises:
        ValueError: if an argument is outside its range, or the schedule ends at zero signal.

    Reference: Liu et al. 2022, arXiv:2202.09778, equations 11 and 12; https://kexue.fm/archives/9181 for the step.
    """

    def __init__(
        self,
        steps: int | None = 50,
        spacing: str | None = None,
        clip_x0: float | DynamicThreshold | None = None,
        times: Sequence[float] | None = None,
    ):
        super().__init__(steps, spacing, clip_x0, times)

    def rows(self, schedule: NoiseSchedule, times: np.ndarray) -> dict[str, Any]:
        alpha, sigma = schedule.alpha(times), schedule.sigma(times)
        rule = "keep some signal: the noise does not determine x0 otherwise"
        check(bool(np.all(alpha > 0)), "schedule", rule, schedule)
        steps = np.arange(len(times) - 1)
        is_data = sigma[1:] == 0
        return {
            **super().rows(schedule, times),
            "of_x_t": alpha[1:] / alpha[:-1],
            "of_eps": sigma[1:] - sigma[:-1] * alpha[1:] / alpha[:-1],
            "weights": ADAMS_BASHFORTH[np.minimum(steps, 3)],
            "is_first": (steps == 0) & ~is_data,
            "at_next": self.at(schedule, np.where(is_data, times[:-1], times[1:])),
        }

    def start(self, x: Any) -> Any:
        return (x, *(ops.zeros_like(x) for _ in range(3)))

    def finish(self, state: Any) -> Any:
        return state[0]

    def step(self, denoise: Denoiser, state: Any, row: dict[str, Any], noise: Callable[..., Any]) -> Any:
        x_t, *past = state
        eps = epsilon_of(x_t, denoise(x_t, row)[0], row)

        def heun() -> Any:
            x_s, at_s = row["of_x_t"] * x_t + row["of_eps"] * eps, row["at_next"]
            return 0.5 * (eps + epsilon_of(x_s, denoise(x_s, at_s)[0], at_s))

        def multistep() -> Any:
            return sum(row["weights"][k] * value for k, value in enumerate([eps, *past]))

        extrapolated = ops.cond(row["is_first"], heun, multistep)
        return row["of_x_t"] * x_t + row["of_eps"] * extrapolated, eps, *past[:-1]
