import abc
from typing import Any

import numpy as np

from keras_gen.core.arrays import namespace
from keras_gen.core.checks import check
from keras_gen.diffusion.schedules.base import NoiseSchedule
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.schedules.ContinuousSchedule")
class ContinuousSchedule(NoiseSchedule):
    """Base class of schedules in continuous time: with the derivatives of alpha and sigma come the SDE and the ODE.

        forward SDE           dx = f x dt + g dw,               f = alpha' / alpha,  g^2 = 2 sigma sigma' - 2 f sigma^2
        reverse SDE           dx = (f x - g^2 score) dt + g dw
        probability-flow ODE  dx = (f x - g^2 score / 2) dt = (alpha' x0 + sigma' eps) dt

    To write another: set `t_start`, `t_min` and `t_max`; define `alpha`, `sigma`, `derivatives` and `inverse_log_snr`
    with `keras_gen.core.arrays.namespace`, so that they take NumPy and tensors; return the constructor's arguments from
    `get_config`. A network is told `network_time(t)`, by default 1000 t.

    Reference: Song et al. 2020, arXiv:2011.13456; https://kexue.fm/archives/9209.
    """

    @abc.abstractmethod
    def derivatives(self, t: Any) -> tuple[Any, Any]:
        """Returns `(d alpha / dt, d sigma / dt)` at the times `t`."""

    def velocity(self, t: Any) -> tuple[Any, Any]:
        """Returns p and q of the `"velocity"` p x0 + q eps that a network predicts: by default `derivatives(t)`."""
        return self.derivatives(t)

    def drift(self, t: Any) -> Any:
        """Returns f of `dx = f x dt + g dw`."""
        return self.derivatives(t)[0] / self.alpha(t)

    def diffusion(self, t: Any) -> Any:
        """Returns g of `dx = f x dt + g dw`."""
        _, d_sigma = self.derivatives(t)
        sigma = self.sigma(t)
        # VE's derivative is exact, and g^2 never less than 0 but by rounding.
        return namespace(t).sqrt(namespace(t).maximum(2 * sigma * (d_sigma - self.drift(t) * sigma), 0.0))

    def times_at(self, fraction: Any) -> Any:
        return self.t_start + (self.t_max - self.t_start) * fraction

    def network_time(self, t: Any) -> Any:
        return 1000.0 * t


def check_continuous(schedule: Any, name: str = "schedule") -> None:
    """Refuses a schedule that has no derivatives."""
    rule = "be a ContinuousSchedule: the ODE and the SDE need the derivatives of alpha and sigma"
    check(isinstance(schedule, ContinuousSchedule), name, rule, type(schedule).__name__)


def check_range(name: str, low: Any, high: Any) -> tuple[float, float]:
    """Refuses ends of which the first is not the smaller and positive one; returns them as floats."""
    valid = all(isinstance(end, int | float | np.number) for end in (low, high)) and 0 < low < high < np.inf
    check(valid, name, "be > 0, and less than its upper end", f"{low!r} and {high!r}")
    return float(low), float(high)
