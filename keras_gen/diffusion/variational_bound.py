"""The variational bound of a diffusion model, term by term."""

import math
from typing import Any

import numpy as np
from keras import ops

from keras_gen.diffusion.discrete_schedule import DiscreteSchedule
from keras_gen.diffusion.discretized_gaussian_nll import discretized_gaussian_nll
from keras_gen.diffusion.posterior import log_variance
from keras_gen.latent.gaussian_kl import gaussian_kl


def bound_term(x0: Any, x0_hat: Any, w: Any, row: dict[str, Any], levels: int = 256) -> Any:
    """Returns one term of the bound in bits/dim: `KL(q(x_s | x_t, x0) || p(x_s | x_t))`, or `-log p(x0 | x_0)`.

    Args:
        x0: float32 tensor `(batch, ...)`, the data.
        x0_hat: tensor like `x0`, the network's prediction of it.
        w: share of the large variance, a number or a tensor like `x0`.
        row: coefficients from `reverse_rows`, that broadcast to `x0`. Where its `noise` is 0, s is clean data.
        levels: int, number of distinct pixel values.

    Returns:
        float32 tensor `(batch,)`.

    Reference: Ho et al. 2020, arXiv:2006.11239, equation 5; Nichol and Dhariwal 2021, arXiv:2102.09672.
    """
    log_var = log_variance(w, row)
    divergence = gaussian_kl(row["x0"] * (x0 - x0_hat), row["log_small"], log_var)
    nll = discretized_gaussian_nll(x0, x0_hat, log_var, levels)
    nats = ops.where(row["noise"] > 0, divergence, nll)
    return ops.mean(nats, axis=tuple(range(1, len(x0.shape)))) / math.log(2)


def prior_term(x0: np.ndarray, schedule: DiscreteSchedule) -> np.ndarray:
    """Returns `KL(q(x_{T-1} | x0) || N(0, I))` in bits/dim, for NumPy data `(n, ...)`, as `(n,)`."""
    variance = schedule.sigma(schedule.num_steps - 1) ** 2
    mean = schedule.alpha(schedule.num_steps - 1) * x0.astype("float64")
    nats = 0.5 * (variance - 1 - np.log(variance) + mean**2)
    return nats.mean(axis=tuple(range(1, x0.ndim))) / np.log(2)
