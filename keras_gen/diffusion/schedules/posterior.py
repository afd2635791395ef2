from typing import Any

import numpy as np

from keras_gen.core.checks import check
from keras_gen.diffusion.schedules.base import NoiseSchedule
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.schedules.posterior")
def posterior(alpha_t: Any, sigma_t: Any, alpha_s: Any, sigma_s: Any) -> tuple[Any, Any, Any]:
    """Computes `q(x_s | x_t, x0)` for any two times, s cleaner than t, by Bayes' rule.

    The noising step from s to t is `x_t = a x_s + sqrt(v) eps` with `a = alpha_t / alpha_s` and
    `v = sigma_t^2 - a^2 sigma_s^2`. As functions of x_s, the likelihood `N(x_t; a x_s, v)` and the prior
    `N(x_s; alpha_s x0, sigma_s^2)` multiply, so that their precisions add:

        variance = (a^2 / v + 1 / sigma_s^2)^-1         = sigma_s^2 v / sigma_t^2
        mean     = variance (a x_t / v + alpha_s x0 / sigma_s^2)
                 = (a sigma_s^2 / sigma_t^2) x_t + (alpha_s v / sigma_t^2) x0

    Args:
        alpha_t: factor of the data at the noisier time; a number or an array, like the others.
        sigma_t: factor of the noise at the noisier time, > 0.
        alpha_s: factor of the data at the cleaner time, > 0.
        sigma_s: factor of the noise at the cleaner time.

    Returns:
        `(coefficient of x_t, coefficient of x0, variance)`.

    Raises:
        ValueError: if s is the noisier time.

    Reference: https://kexue.fm/archives/9164; Ho et al. 2020, arXiv:2006.11239, equation 7.
    """
    a = alpha_t / alpha_s
    v = sigma_t**2 - a**2 * sigma_s**2
    check(bool(np.all(v > -1e-12)), "sigma_s", "belong to a cleaner time than t", sigma_s)
    return a * sigma_s**2 / sigma_t**2, alpha_s * v / sigma_t**2, sigma_s**2 * v / sigma_t**2


def reverse_rows(schedule: NoiseSchedule, times: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the coefficients of `x_t` and `x0`, the two log-variances, and whether noise is added (0 or 1).

    The variance of the step to clean data is 0; its logarithm is replaced by the next smallest log-variance.
    """
    alpha, sigma = schedule.alpha(times), schedule.sigma(times)
    of_x_t, of_x0, small = posterior(alpha[:-1], sigma[:-1], alpha[1:], sigma[1:])
    large = sigma[:-1] ** 2 - (alpha[:-1] / alpha[1:]) ** 2 * sigma[1:] ** 2
    if small[-1] == 0:
        small[-1] = small[-2] if len(small) > 1 else large[-1]
    return {
        **{"of_x_t": of_x_t, "of_x0": of_x0, "log_small": np.log(small), "log_large": np.log(large)},
        "is_stochastic": (sigma[1:] > 0).astype("float64"),
    }


def log_variance(variance_weight: Any, row: dict[str, Any]) -> Any:
    """Interpolates between the small (weight 0) and the large (weight 1) log-variance."""
    return variance_weight * row["log_large"] + (1 - variance_weight) * row["log_small"]
