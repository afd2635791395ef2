from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_gen.core.checks import check, check_flag, is_integer
from keras_gen.diffusion.samplers.base import Denoiser, DiffusionSampler
from keras_gen.diffusion.samplers.threshold import DynamicThreshold
from keras_gen.diffusion.schedules.base import NoiseSchedule
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.samplers.DPMSolverPPSampler")
class DPMSolverPPSampler(DiffusionSampler):
    """Multistep DPM-Solver++: extrapolates x0 as a polynomial in the log-SNR through the last predictions.

    With `l = log(alpha / sigma)`, `h = l_s - l_t`, and D_k the k-th derivative of x0 with respect to l, estimated from
    the last predictions,

        x_s = (sigma_s / sigma_t) x_t + alpha_s integral from 0 to h of e^(u - h) (D_0 + D_1 u + D_2 u^2 / 2) du

    Order 1 holds x0 constant (DDIM), orders 2 and 3 use one and two previous predictions; order 2 evaluates D_1 at
    `u = h / 2`, as in the paper. The first steps, and the step to clean data, are of lower order. The stochastic form
    (`sde=True`) solves the reverse SDE:

        x_s = (sigma_s / sigma_t) e^-h x_t + alpha_s (1 - e^-2h) (D_0 + D_1 h / 2) + sigma_s sqrt(1 - e^-2h) eps

    Args:
        steps: int, number of network evaluations, or `None`: the number of steps of the schedule. Defaults to `20`.
        order: 1, 2 or 3; with `sde` 1 or 2. Defaults to `2`.
        sde: bool. Whether to solve the SDE instead of the ODE. Defaults to `False`.
        spacing: as for `DiffusionSampler`. Orders 2 and 3 work best with nearly equal steps h, from "log_snr" or
            "karras"; if a discrete schedule has too few times for these, use "trailing". Defaults to `None`, the
            schedule's own.
        clip_x0: as for `DiffusionSampler`. Defaults to `None`.
        times: as for `DiffusionSampler`. Defaults to `None`.

    Raises:
        ValueError: if an argument is outside its range.

    Reference: Lu et al. 2022, arXiv:2211.01095, algorithm 2 and appendix; https://kexue.fm/archives/9181 for order 1.
    """

    def __init__(
        self,
        steps: int | None = 20,
        order: int = 2,
        sde: bool = False,
        spacing: str | None = None,
        clip_x0: float | DynamicThreshold | None = None,
        times: Sequence[float] | None = None,
    ):
        super().__init__(steps, spacing, clip_x0, times)
        sde = check_flag("sde", sde)
        orders = (1, 2) if sde else (1, 2, 3)
        check(is_integer(order) and order in orders, "order", f"be one of {orders} with sde={sde}", repr(order))
        self.order, self.sde = int(order), sde

    def rows(self, schedule: NoiseSchedule, times: np.ndarray) -> dict[str, Any]:
        alpha, sigma = schedule.alpha(times), schedule.sigma(times)
        with np.errstate(divide="ignore", invalid="ignore"):
            h = np.diff(np.log(alpha) - np.log(sigma))
            derivatives = self._derivatives(h)
            ratio = sigma[1:] / sigma[:-1]
            if self.sde:
                factor = alpha[1:] * -np.expm1(-2 * h)
                of_x_t, weights = ratio * np.exp(-h), [factor, factor * h / 2]
            else:
                grow = alpha[1:] * -np.expm1(-h)
                slope = grow * h / 2 if self.order == 2 else alpha[1:] * (h + np.expm1(-h))
                of_x_t, weights = ratio, [grow, slope, alpha[1:] * (h**2 / 2 - h - np.expm1(-h))]
            # On the step to clean data, the weights of unused derivatives are not finite.
            of_x0 = sum(
                np.where(parts != 0, weight[:, None] * parts, 0)
                for weight, parts in zip(weights, derivatives, strict=False)
            )
        std = sigma[1:] * np.sqrt(-np.expm1(-2 * h)) if self.sde else 0 * sigma[1:]
        return {**super().rows(schedule, times), "of_x_t": of_x_t, "of_x0": of_x0, "std": std}

    def start(self, x: Any) -> Any:
        return (x, *(ops.zeros_like(x) for _ in range(self.order - 1)))

    def finish(self, state: Any) -> Any:
        return state[0]

    def step(self, denoise: Denoiser, state: Any, row: dict[str, Any], noise: Callable[..., Any]) -> Any:
        x_t, *past = state
        predictions = [denoise(x_t, row)[0], *past]
        x_s = row["of_x_t"] * x_t + sum(row["of_x0"][k] * x0 for k, x0 in enumerate(predictions))
        if self.sde:
            x_s = x_s + row["std"] * noise()
        return (x_s, *predictions[:-1])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "order": self.order, "sde": self.sde}

    def _derivatives(self, h: np.ndarray) -> list[np.ndarray]:
        """Returns the coefficients of the last predictions, newest first, in D_0, D_1 and D_2: arrays `(N, order)`.

        The derivatives are those of the polynomial through the predictions at l, l - h_1 and l - h_1 - h_2.
        """
        steps, order = len(h), self.order
        D_0, D_1, D_2 = (np.zeros((steps, order)) for _ in range(3))
        D_0[:, 0] = 1
        is_finite = np.isfinite(h)
        for i in range(1, steps):
            h_1 = h[i - 1]
            # Order 1 on the step to clean data, and after a step from pure noise, where h is infinite.
            if order == 1 or not is_finite[i] or not is_finite[i - 1]:
                continue
            D_1[i, :2] = 1 / h_1, -1 / h_1
            if order == 3 and i >= 2 and is_finite[i - 2]:
                h_2 = h[i - 2]
                previous = np.array([0, 1 / h_2, -1 / h_2])
                second_difference = (D_1[i] - previous) / (h_1 + h_2)
                D_1[i] += h_1 * second_difference
                D_2[i] = 2 * second_difference
        return [D_0, D_1, D_2]
