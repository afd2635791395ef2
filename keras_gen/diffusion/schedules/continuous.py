"""Noise schedules in continuous time."""

import math
from typing import Any

import numpy as np

from keras_gen.core.arrays import array_module, as_float64
from keras_gen.core.calculus.gradient import derivative
from keras_gen.core.checks import check
from keras_gen.diffusion.schedules.base import NoiseSchedule
from keras_gen.export import keras_gen_export

# Bisection steps that reach the precision of float64 and of float32.
DOUBLE_BITS, SINGLE_BITS = 60, 32


@keras_gen_export("keras_gen.schedules.ContinuousSchedule")
class ContinuousSchedule(NoiseSchedule):
    """Base class of schedules in continuous time, whose alpha and sigma determine an SDE and an ODE.

        forward SDE           dx = f x dt + g dw,               f = alpha' / alpha,  g^2 = 2 sigma sigma' - 2 f sigma^2
        reverse SDE           dx = (f x - g^2 score) dt + g dw
        probability-flow ODE  dx = (f x - g^2 score / 2) dt = (alpha' x0 + sigma' eps) dt

    Subclasses define `alpha(t)` and `sigma(t)`, with the functions of `keras_gen.ops.array_module(t)` to support NumPy
    and tensors, and return the constructor's arguments from `get_config`. By default `derivatives` uses automatic
    differentiation, `inverse_log_snr` bisection, and times run from 0 (data) to 1: override these for closed forms or
    a different range. The network is conditioned on `network_time(t)`, by default 1000 t.

    Reference: Song et al. 2020, arXiv:2011.13456; https://kexue.fm/archives/9209.
    """

    t_start, t_min = 1e-5, 1e-3

    def derivatives(self, t: Any) -> tuple[Any, Any]:
        """Returns `(d alpha / dt, d sigma / dt)` at the times `t`; by default by automatic differentiation."""
        return derivative(self.alpha, t), derivative(self.sigma, t)

    def inverse_log_snr(self, log_snr: Any) -> Any:
        """Returns the time at which `log_snr(t)` is `log_snr`, or the nearest time; by default by bisection."""
        xp = array_module(log_snr)
        log_snr = as_float64(log_snr)
        cleaner, noisier = xp.full_like(log_snr, self.t_start), xp.full_like(log_snr, self.t_max)
        for _ in range(DOUBLE_BITS if xp is np else SINGLE_BITS):
            middle = 0.5 * (cleaner + noisier)
            is_cleaner = self.log_snr(middle) > log_snr
            cleaner, noisier = xp.where(is_cleaner, middle, cleaner), xp.where(is_cleaner, noisier, middle)
        return 0.5 * (cleaner + noisier)

    def velocity(self, t: Any) -> tuple[Any, Any]:
        """Returns p and q of the `"velocity"` prediction p x0 + q eps; by default `derivatives(t)`."""
        return self.derivatives(t)

    def drift(self, t: Any) -> Any:
        """Returns f of `dx = f x dt + g dw`."""
        return self.derivatives(t)[0] / self.alpha(t)

    def diffusion(self, t: Any) -> Any:
        """Returns g of `dx = f x dt + g dw`."""
        _, d_sigma = self.derivatives(t)
        sigma = self.sigma(t)
        # g^2 is negative only by rounding.
        return array_module(t).sqrt(array_module(t).maximum(2 * sigma * (d_sigma - self.drift(t) * sigma), 0.0))

    def times_at(self, fraction: Any) -> Any:
        return self.t_start + (self.t_max - self.t_start) * fraction

    def network_time(self, t: Any) -> Any:
        return 1000.0 * t


def check_continuous(schedule: Any, name: str = "schedule") -> ContinuousSchedule:
    """Raises `ValueError` for a schedule without derivatives."""
    rule = "be a ContinuousSchedule: the ODE and the SDE need the derivatives of alpha and sigma"
    check(isinstance(schedule, ContinuousSchedule), name, rule, type(schedule).__name__)
    return schedule


def check_range(name: str, low: Any, high: Any) -> tuple[float, float]:
    """Checks that 0 < low < high < infinity, and returns both as floats."""
    are_numbers = all(isinstance(end, int | float | np.number) for end in (low, high))
    rule = "be > 0 and less than a finite upper bound"
    check(are_numbers and 0 < low < high < np.inf, name, rule, f"{low!r} and {high!r}")
    return float(low), float(high)


@keras_gen_export("keras_gen.schedules.VPSchedule")
class VPSchedule(ContinuousSchedule):
    """Variance-preserving (VP) SDE, DDPM in continuous time: `alpha^2 + sigma^2 = 1`.

        beta(t) = beta_min + (beta_max - beta_min) t,   B(t) = integral of beta from 0 to t
        alpha = exp(-B / 2),   sigma = sqrt(1 - exp(-B)),   0 < t <= 1

    Args:
        beta_min: float > 0. Defaults to `0.1`.
        beta_max: float > beta_min. Defaults to `20.0`.

    Raises:
        ValueError: if not 0 < beta_min < beta_max.

    Reference: Song et al. 2020, arXiv:2011.13456, equation 11; https://kexue.fm/archives/9209.
    """

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0):
        self.beta_min, self.beta_max = check_range("beta_min", beta_min, beta_max)

    def beta(self, t: Any) -> Any:
        """Returns the noise rate beta at the times `t`."""
        return self.beta_min + (self.beta_max - self.beta_min) * as_float64(t)

    def alpha(self, t: Any) -> Any:
        return array_module(t).exp(-0.5 * self._integral(t))

    def sigma(self, t: Any) -> Any:
        return array_module(t).sqrt(-array_module(t).expm1(-self._integral(t)))

    def derivatives(self, t: Any) -> tuple[Any, Any]:
        alpha, beta = self.alpha(t), self.beta(t)
        return -0.5 * beta * alpha, 0.5 * beta * alpha**2 / self.sigma(t)

    def inverse_log_snr(self, log_snr: Any) -> Any:
        # SNR = 1 / (exp(B) - 1)
        xp = array_module(log_snr)
        return self._time_of(xp.log1p(xp.exp(-log_snr)))

    def get_config(self) -> dict[str, Any]:
        return {"beta_min": self.beta_min, "beta_max": self.beta_max}

    def _integral(self, t: Any) -> Any:
        t = as_float64(t)
        return self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t**2

    def _time_of(self, integral: Any) -> Any:
        """Returns t with B(t) = `integral`: the root of a quadratic, in the form without cancellation."""
        root = array_module(integral).sqrt(self.beta_min**2 + 2 * (self.beta_max - self.beta_min) * integral)
        return 2 * integral / (self.beta_min + root)


@keras_gen_export("keras_gen.schedules.SubVPSchedule")
class SubVPSchedule(VPSchedule):
    """Sub-VP SDE: the same alpha as `VPSchedule`, with less noise at every time.

        alpha = exp(-B / 2),   sigma = 1 - exp(-B),   B(t) = beta_min t + (beta_max - beta_min) t^2 / 2

    Args:
        beta_min: float > 0. Defaults to `0.1`.
        beta_max: float > beta_min. Defaults to `20.0`.

    Raises:
        ValueError: if not 0 < beta_min < beta_max.

    Reference: Song et al. 2020, arXiv:2011.13456, equation 12.
    """

    def sigma(self, t: Any) -> Any:
        return -array_module(t).expm1(-self._integral(t))

    def derivatives(self, t: Any) -> tuple[Any, Any]:
        alpha, beta = self.alpha(t), self.beta(t)
        return -0.5 * beta * alpha, beta * alpha**2

    def inverse_log_snr(self, log_snr: Any) -> Any:
        # alpha / sigma = 1 / (2 sinh(B / 2))
        xp = array_module(log_snr)
        return self._time_of(2 * xp.arcsinh(0.5 * xp.exp(-0.5 * log_snr)))


@keras_gen_export("keras_gen.schedules.VESchedule")
class VESchedule(ContinuousSchedule):
    """Variance-exploding (VE) SDE of score matching: noise is added without scaling the data.

        alpha = 1,   sigma = sigma_min (sigma_max / sigma_min)^t,   0 <= t <= 1

    Clean data are at t = -infinity. The inputs of the network grow with sigma, unless `prediction="edm"` scales them.

    Args:
        sigma_min: float > 0. Defaults to `0.01`.
        sigma_max: float > sigma_min. Defaults to `50.0`.

    Raises:
        ValueError: if not 0 < sigma_min < sigma_max.

    Reference: Song et al. 2020, arXiv:2011.13456, equation 9; https://kexue.fm/archives/9209.
    """

    t_start = t_min = 0.0
    t_clean = -np.inf
    spacing = "linspace"

    def __init__(self, sigma_min: float = 0.01, sigma_max: float = 50.0):
        self.sigma_min, self.sigma_max = check_range("sigma_min", sigma_min, sigma_max)
        self.rate = math.log(self.sigma_max / self.sigma_min)

    def alpha(self, t: Any) -> Any:
        return array_module(t).ones_like(as_float64(t))

    def sigma(self, t: Any) -> Any:
        return self.sigma_min * array_module(t).exp(self.rate * as_float64(t))

    def derivatives(self, t: Any) -> tuple[Any, Any]:
        return 0.0 * self.alpha(t), self.rate * self.sigma(t)

    def inverse_log_snr(self, log_snr: Any) -> Any:
        return (-0.5 * log_snr - math.log(self.sigma_min)) / self.rate

    def get_config(self) -> dict[str, Any]:
        return {"sigma_min": self.sigma_min, "sigma_max": self.sigma_max}


@keras_gen_export("keras_gen.schedules.EDMSchedule")
class EDMSchedule(ContinuousSchedule):
    """Schedule of EDM: the time is the noise level.

        alpha = 1,   sigma = t,   sigma_min <= t <= sigma_max

    The network is conditioned on `log(t) / 4`. The default time spacing of samplers is "karras".

    Args:
        sigma_min: float > 0. Defaults to `0.002`.
        sigma_max: float > sigma_min. Defaults to `80.0`.

    Raises:
        ValueError: if not 0 < sigma_min < sigma_max.

    Reference: Karras et al. 2022, arXiv:2206.00364, table 1.
    """

    spacing = "karras"

    def __init__(self, sigma_min: float = 0.002, sigma_max: float = 80.0):
        self.sigma_min, self.sigma_max = check_range("sigma_min", sigma_min, sigma_max)
        self.t_start = self.t_min = self.sigma_min
        self.t_max = self.sigma_max

    def alpha(self, t: Any) -> Any:
        return array_module(t).ones_like(as_float64(t))

    def sigma(self, t: Any) -> Any:
        return as_float64(t)

    def derivatives(self, t: Any) -> tuple[Any, Any]:
        one = self.alpha(t)
        return 0.0 * one, one

    def inverse_log_snr(self, log_snr: Any) -> Any:
        return array_module(log_snr).exp(-0.5 * log_snr)

    def network_time(self, t: Any) -> Any:
        return 0.25 * array_module(t).log(t)

    def get_config(self) -> dict[str, Any]:
        return {"sigma_min": self.sigma_min, "sigma_max": self.sigma_max}


@keras_gen_export("keras_gen.schedules.RectifiedFlowSchedule")
class RectifiedFlowSchedule(ContinuousSchedule):
    """Straight trajectories from data to noise, as in rectified flow and flow matching: `x_t = (1 - t) x0 + t eps`.

        alpha = 1 - t,   sigma = t,   0 <= t <= 1

    At t = 1 no signal is left. Training times start at 1e-5, sampling times with "linspace" or "leading" at 1e-3.

    Reference: Liu et al. 2022, arXiv:2209.03003; Lipman et al. 2022, arXiv:2210.02747; https://kexue.fm/archives/9497.
    """

    def alpha(self, t: Any) -> Any:
        return 1.0 - self.sigma(t)

    def sigma(self, t: Any) -> Any:
        return as_float64(t)

    def derivatives(self, t: Any) -> tuple[Any, Any]:
        one = array_module(t).ones_like(as_float64(t))
        return -one, one

    def inverse_log_snr(self, log_snr: Any) -> Any:
        # sigma / alpha = exp(-log_snr / 2); this form also holds for infinite values
        return 1.0 / (1.0 + array_module(log_snr).exp(0.5 * log_snr))

    def get_config(self) -> dict[str, Any]:
        return {}
