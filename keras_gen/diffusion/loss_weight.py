"""Weighting of the training loss over time."""

from typing import Any

import numpy as np
from keras import ops

from keras_gen.core.arrays import array_module
from keras_gen.core.checks import check_choice
from keras_gen.diffusion.prediction import Prediction
from keras_gen.diffusion.schedules.base import NoiseSchedule
from keras_gen.diffusion.schedules.continuous import ContinuousSchedule, check_continuous
from keras_gen.diffusion.schedules.discrete import DiscreteSchedule
from keras_gen.diffusion.schedules.posterior import reverse_rows

WEIGHTINGS = ("simple", "snr", "min_snr", "edm", "vlb")
MIN_SNR_GAMMA = 5.0


def loss_weight(weighting: str, prediction: Prediction, schedule: NoiseSchedule, t: Any, sigma_data: float) -> Any:
    """Returns the weight of `|target - output|^2` at the times `t`.

    A weighting is defined by the weight of the x0 error, so that it has the same meaning for every prediction
    `p x0 + q eps`, whose error is `-D / sigma` times that of x0, `D = alpha q - sigma p`:

        simple   the error of the prediction itself, unweighted
        snr      SNR |x0 - x0_hat|^2, which is "simple" for epsilon
        min_snr  min(SNR, 5) |x0 - x0_hat|^2
        edm      (SNR + 1 / sigma_data^2) |x0 - x0_hat|^2, which is "simple" for edm
        vlb      -(d SNR / dt) / 2 |x0 - x0_hat|^2, in discrete time T (SNR_{t-1} - SNR_t) / 2: with uniform times, the
                 variational bound in nats per dimension, up to a constant

    Reference: Ho et al. 2020, arXiv:2006.11239; Kingma et al. 2021, arXiv:2107.00630; Karras et al. 2022,
    arXiv:2206.00364; Hang et al. 2023, arXiv:2303.09556.
    """
    check_choice("weighting", weighting, WEIGHTINGS)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    if weighting == "simple":
        return array_module(t).ones_like(alpha)
    is_discrete = isinstance(schedule, DiscreteSchedule)
    p, q = prediction.linear_form(alpha, sigma, None if is_discrete else check_continuous(schedule).velocity(t))
    squared_determinant = (alpha * q - sigma * p) ** 2
    match weighting:  # multiplied by sigma^2, which is finite where SNR is not
        case "snr":
            of_x0 = alpha**2
        case "min_snr":
            of_x0 = array_module(t).minimum(alpha**2, MIN_SNR_GAMMA * sigma**2)
        case "edm":
            of_x0 = alpha**2 + (sigma / sigma_data) ** 2
        case _:
            of_x0 = _bound(schedule, t) * sigma**2
    return of_x0 / squared_determinant


def _bound(schedule: NoiseSchedule, t: Any) -> Any:
    if isinstance(schedule, DiscreteSchedule):
        return _discrete_bound(schedule, t)
    return _continuous_bound(check_continuous(schedule), t)


def _continuous_bound(schedule: ContinuousSchedule, t: Any) -> Any:
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    d_alpha, d_sigma = schedule.derivatives(t)
    length = schedule.t_max - schedule.t_start
    return length * alpha * (alpha * d_sigma - sigma * d_alpha) / sigma**3


def _discrete_bound(schedule: DiscreteSchedule, t: Any) -> Any:
    # As in `bound_term`: the step to clean data uses the next smallest variance, since its own is 0.
    rows = reverse_rows(schedule, np.arange(schedule.num_steps - 1, -2, -1))
    table = (schedule.num_steps * rows["of_x0"] ** 2 / (2 * np.exp(rows["log_small"])))[::-1]
    return table[t] if array_module(t) is np else ops.take(table.astype("float32"), t)
