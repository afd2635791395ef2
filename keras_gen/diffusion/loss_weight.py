"""Weights of the training loss over time."""

import numpy as np

from keras_gen.core.checks import check_choice
from keras_gen.diffusion.discrete_schedule import DiscreteSchedule

WEIGHTINGS = ("simple", "snr", "min_snr")
MIN_SNR_GAMMA = 5.0


def loss_weight(weighting: str, prediction: str, schedule: DiscreteSchedule) -> np.ndarray:
    """Returns the weight of `|target - output|^2` at each time, float64 `(T,)`.

    A weighting is defined by what it does to the error of x0, so that it means the same for every prediction:

        |eps - eps_hat|^2 = SNR |x0 - x0_hat|^2,   |v - v_hat|^2 = (SNR + 1) |x0 - x0_hat|^2

        simple   the error of the prediction itself (the network's own unit)
        snr      SNR |x0 - x0_hat|^2, which is "simple" for epsilon
        min_snr  min(SNR, 5) |x0 - x0_hat|^2

    Reference: Ho et al. 2020, arXiv:2006.11239; Hang et al. 2023, arXiv:2303.09556.
    """
    check_choice("weighting", weighting, WEIGHTINGS)
    snr = np.exp(schedule.log_snr(np.arange(schedule.num_steps)))
    own = {"epsilon": snr, "x0": np.ones_like(snr), "v": snr + 1}[prediction]
    wanted = {"simple": own, "snr": snr, "min_snr": np.minimum(snr, MIN_SNR_GAMMA)}[weighting]
    return wanted / own
