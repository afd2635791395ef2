from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from keras_gen.diffusion.samplers.base import Denoiser, DiffusionSampler, epsilon_of
from keras_gen.diffusion.samplers.threshold import DynamicThreshold
from keras_gen.diffusion.schedules.base import NoiseSchedule
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.samplers.EulerSampler")
class EulerSampler(DiffusionSampler):
    """Euler's method for the probability-flow ODE, in coordinates with a straight trajectory for a single data point.

        y = x,                   tau = sigma,                     dy / dtau = eps         if alpha = 1 (EDM, VE)
        y = x / (alpha + sigma), tau = sigma / (alpha + sigma),   dy / dtau = eps - x0    otherwise

        y_s = y_t + (tau_s - tau_t) dy / dtau

    In both coordinates it is `DDIMSampler` with `eta=0` and `DPMSolverPPSampler` of order 1; for `RectifiedFlow` it is
    `x_s = x_t + (s - t) velocity`.

    Args:
        steps: int, number of network evaluations, or `None`: the number of steps of the schedule. Defaults to `50`.
        spacing: as for `DiffusionSampler`. Defaults to `None`, the schedule's own.
        clip_x0: as for `DiffusionSampler`. Defaults to `None`.
        times: as for `DiffusionSampler`. Defaults to `None`.

    Raises:
        ValueError: if an argument is outside its range.

    Reference: Karras et al. 2022, arXiv:2206.00364, algorithm 1 without its correction; https://kexue.fm/archives/9497.
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
        return {**super().rows(schedule, times), **strides(schedule, times)}

    def step(self, denoise: Denoiser, x_t: Any, row: dict[str, Any], noise: Callable[..., Any]) -> Any:
        return row["of_x"] * x_t + row["step"] * slope(denoise, x_t, row)


@keras_gen_export("keras_gen.samplers.UnscaledEulerSampler")
class UnscaledEulerSampler(EulerSampler):
    """Euler's method from the noise of x_T without its signal: `x_T = sigma_T eps`, while `EulerSampler` takes eps.

    If the schedule ends with some signal, as that of Stable Diffusion with sigma_T = 0.998, the images differ slightly.
    The Euler scheduler of diffusers starts in this way with the spacings "linspace" and "trailing".

    Args:
        steps: as for `EulerSampler`. Defaults to `50`.
        spacing: as for `DiffusionSampler`. Defaults to `None`, the schedule's own.
        clip_x0: as for `DiffusionSampler`. Defaults to `None`.
        times: as for `DiffusionSampler`. Defaults to `None`.

    Raises:
        ValueError: if an argument is outside its range.

    Reference: Karras et al. 2022, arXiv:2206.00364, algorithm 1 without its correction.
    """

    def noise_scale(self, schedule: NoiseSchedule, times: np.ndarray) -> float:
        return float(schedule.sigma(times[0]))


def strides(schedule: NoiseSchedule, times: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the coefficients of `x_s = of_x x_t + step (eps - of_x0_in_slope x0)`, from each time to the next."""
    norm, tau, of_x0 = straight_coordinates(schedule.alpha(times), schedule.sigma(times))
    return {
        "of_x": norm[1:] / norm[:-1],
        "step": norm[1:] * np.diff(tau),
        "of_x0_in_slope": np.full(len(tau) - 1, of_x0),
    }


def straight_coordinates(alpha: np.ndarray, sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Returns the norm of `y = x / norm`, tau, and the factor of x0 in the slope, for arrays of times.

    Then `y = y_0 + tau (eps - factor x0)` for a single data point. `x / alpha` would work for all schedules that keep
    some signal, but where alpha is almost 0, tau spans orders of magnitude, and Heun steps are worse than Euler steps.
    """
    if np.all(alpha == 1):
        return alpha, sigma, 0.0
    return alpha + sigma, sigma / (alpha + sigma), 1.0


def slope(denoise: Denoiser, x_t: Any, row: dict[str, Any]) -> Any:
    """Returns dy / dtau: `eps - of_x0_in_slope x0`."""
    x0, _ = denoise(x_t, row)
    return epsilon_of(x_t, x0, row) - row["of_x0_in_slope"] * x0
