"""Noise schedules in discrete time."""

from typing import Any

import numpy as np
from keras import ops

from keras_gen.core.arrays import array_module
from keras_gen.core.checks import (
    check,
    check_fraction,
    check_integer,
    check_nonnegative,
    check_positive,
    is_integer,
    is_number,
    real_array,
)
from keras_gen.diffusion.schedules.base import NoiseSchedule
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.schedules.DiscreteSchedule")
class DiscreteSchedule(NoiseSchedule):
    """Noise schedule in discrete time: `T` steps with noise variances `betas`.

        alpha_t^2 = prod_{i <= t} (1 - beta_i),   sigma_t^2 = 1 - alpha_t^2,   t = 0 .. T - 1

    `t = -1` stands for clean data: alpha = 1, sigma = 0. All values are NumPy float64; layers and samplers cast once.

    Subclasses compute `betas`, pass them to `super().__init__`, and return their own arguments from `get_config`.

    Args:
        betas: sequence of `T` floats in (0, 1).

    Attributes:
        num_steps: int, `T`.
        betas: float64 array `(T,)`.
        alphas_cumprod: float64 array `(T,)`, `alpha_t^2`.
        steps: int array, all times 0 .. T - 1. Posts and papers count 1 .. T: their step t is time t - 1 here, and
            their x_0, clean data, is time -1.

    Raises:
        ValueError: if `betas` is empty or has values outside (0, 1).

    Reference: Ho et al. 2020, arXiv:2006.11239; https://kexue.fm/archives/9119.
    """

    t_start = t_min = 0
    t_clean = -1
    spacing = "leading"

    def __init__(self, betas: Any):
        betas = real_array("betas", betas).astype("float64")
        check(betas.ndim == 1 and betas.size > 0, "betas", "be a non-empty sequence of numbers", betas)
        outside = betas[~((betas > 0) & (betas < 1))]
        check(outside.size == 0, "betas", "be in (0, 1)", outside)
        self._set_alphas(np.sqrt(np.cumprod(1 - betas)))

    def _set_alphas(self, alphas: np.ndarray) -> None:
        # Entry 0 is clean data, so that time -1 is a valid index after the shift by one.
        self._alphas = np.concatenate([[1.0], alphas])
        self._sigmas = np.sqrt(1 - self._alphas**2)
        self.num_steps = len(alphas)
        self.t_max = self.num_steps - 1
        self.alphas_cumprod = alphas**2
        self.betas = 1 - (self._alphas[1:] / self._alphas[:-1]) ** 2

    @property
    def steps(self) -> np.ndarray:
        return np.arange(self.num_steps)

    def alpha(self, t: Any) -> Any:
        """Returns the factor of the data at the integer times `t`, in -1 .. T - 1."""
        return self._entry(self._alphas, t)

    def sigma(self, t: Any) -> Any:
        """Returns the factor of the noise at the integer times `t`, in -1 .. T - 1."""
        return self._entry(self._sigmas, t)

    def inverse_log_snr(self, log_snr: Any) -> Any:
        table = self.log_snr(np.arange(self.num_steps))
        borders = -(table[:-1] + table[1:]) / 2  # ascending; between two of them, one time is the nearest
        if array_module(log_snr) is np:
            return np.searchsorted(borders, -np.asarray(log_snr, "float64"))
        borders = ops.convert_to_tensor(np.minimum(borders, 1e9), "float32")
        times = ops.searchsorted(borders, -ops.reshape(log_snr, (-1,)))
        return ops.reshape(times, ops.shape(log_snr))

    def times_at(self, fraction: Any) -> Any:
        if array_module(fraction) is np:
            return np.floor(np.asarray(fraction) * self.num_steps).astype(int)
        # A float32 fraction may round up to 1, or below 0.
        return ops.clip(ops.cast(ops.floor(fraction * self.num_steps), "int32"), 0, self.num_steps - 1)

    def check_time(self, name: str, t: Any) -> None:
        rule = f"be an integer in 0 .. {self.num_steps - 1}"
        check(is_integer(t) and 0 <= t < self.num_steps, name, rule, t)

    def get_config(self) -> dict[str, Any]:
        return {"betas": self.betas.tolist()}

    def _entry(self, table: np.ndarray, t: Any) -> Any:
        if array_module(t) is not np:
            return ops.take(table.astype("float32"), t + 1)
        t = np.asarray(t)
        is_time = np.issubdtype(t.dtype, np.integer) and bool(np.all((t >= -1) & (t < self.num_steps)))
        check(is_time, "t", f"be integers in -1 .. {self.num_steps - 1}", t)
        return table[t + 1]


@keras_gen_export("keras_gen.schedules.LinearSchedule")
class LinearSchedule(DiscreteSchedule):
    """Linear schedule: `beta_t = beta_start + (beta_end - beta_start) t / (T - 1)`.

    The default range is for 1000 steps. With fewer, scale it up in proportion, or the noisiest image keeps some signal.

    Args:
        num_steps: int >= 1, `T`. Defaults to `1000`.
        beta_start: float in (0, 1). Defaults to `1e-4`.
        beta_end: float in (0, 1). Defaults to `0.02`.

    Raises:
        ValueError: if an argument is outside its range.

    Reference: Ho et al. 2020, arXiv:2006.11239, section 4.
    """

    def __init__(self, num_steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02):
        check_integer("num_steps", num_steps)
        self.beta_start = check_fraction("beta_start", beta_start)
        self.beta_end = check_fraction("beta_end", beta_end)
        super().__init__(np.linspace(beta_start, beta_end, num_steps))

    def get_config(self) -> dict[str, Any]:
        return {"num_steps": self.num_steps, "beta_start": self.beta_start, "beta_end": self.beta_end}


@keras_gen_export("keras_gen.schedules.ScaledLinearSchedule")
class ScaledLinearSchedule(DiscreteSchedule):
    """Scaled linear schedule: `sqrt(beta_t)` increases linearly from `sqrt(beta_start)` to `sqrt(beta_end)`.

    Used by latent diffusion. With the defaults the noisiest image keeps some signal: alpha = 0.068 at the last step.

    Args:
        num_steps: int >= 1, `T`. Defaults to `1000`.
        beta_start: float in (0, 1). Defaults to `0.00085`.
        beta_end: float in (0, 1). Defaults to `0.012`.

    Raises:
        ValueError: if an argument is outside its range.

    Reference: Rombach et al. 2021, arXiv:2112.10752.
    """

    def __init__(self, num_steps: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012):
        check_integer("num_steps", num_steps)
        self.beta_start = check_fraction("beta_start", beta_start)
        self.beta_end = check_fraction("beta_end", beta_end)
        super().__init__(np.linspace(beta_start**0.5, beta_end**0.5, num_steps) ** 2)

    def get_config(self) -> dict[str, Any]:
        return {"num_steps": self.num_steps, "beta_start": self.beta_start, "beta_end": self.beta_end}


@keras_gen_export("keras_gen.schedules.CosineSchedule")
class CosineSchedule(DiscreteSchedule):
    """Cosine schedule: adds noise more evenly over time than a linear one.

        f(u) = cos^2((u + offset) / (1 + offset) * pi / 2),   beta_t = min(1 - f((t + 1) / T) / f(t / T), max_beta)

    Args:
        num_steps: int >= 1, `T`. Defaults to `1000`.
        offset: float >= 0, keeps the first betas from vanishing. Defaults to `0.008`.
        max_beta: float in (0, 1), keeps alpha of the last step above 0. Defaults to `0.999`.

    Raises:
        ValueError: if an argument is outside its range.

    Reference: Nichol and Dhariwal 2021, arXiv:2102.09672, equation 17.
    """

    def __init__(self, num_steps: int = 1000, offset: float = 0.008, max_beta: float = 0.999):
        check_integer("num_steps", num_steps)
        self.offset = check_nonnegative("offset", offset)
        self.max_beta = check_fraction("max_beta", max_beta)
        u = np.arange(num_steps + 1) / num_steps
        f = np.cos((u + offset) / (1 + offset) * np.pi / 2) ** 2
        super().__init__(np.minimum(1 - f[1:] / f[:-1], max_beta))

    def get_config(self) -> dict[str, Any]:
        return {"num_steps": self.num_steps, "offset": self.offset, "max_beta": self.max_beta}


@keras_gen_export("keras_gen.schedules.SigmoidSchedule")
class SigmoidSchedule(DiscreteSchedule):
    """Sigmoid schedule: alpha^2 follows a logistic curve, with few steps near its two ends.

        s(u) = sigmoid((start + u (end - start)) / tau),   f(u) = (s(1) - s(u)) / (s(1) - s(0))
        beta_t = min(1 - f((t + 1) / T) / f(t / T), max_beta)

    Args:
        num_steps: int >= 1, `T`. Defaults to `1000`.
        start: float, start of the sigmoid's interval. Defaults to `-3.0`.
        end: float > start, end of the interval. Defaults to `3.0`.
        tau: float > 0, temperature: low for small images, higher for large ones. Defaults to `1.0`.
        max_beta: float in (0, 1), keeps alpha of the last step above 0. Defaults to `0.999`.

    Raises:
        ValueError: if an argument is outside its range.

    Reference: Jabri et al. 2022, arXiv:2212.11972; Chen 2023, arXiv:2301.10972, algorithm 1.
    """

    def __init__(
        self,
        num_steps: int = 1000,
        start: float = -3.0,
        end: float = 3.0,
        tau: float = 1.0,
        max_beta: float = 0.999,
    ):
        check_integer("num_steps", num_steps)
        check(is_number(start) and is_number(end) and start < end, "start", f"be a number < end={end!r}", repr(start))
        self.start, self.end, self.tau = float(start), float(end), check_positive("tau", tau)
        self.max_beta = check_fraction("max_beta", max_beta)
        u = np.arange(num_steps + 1) / num_steps
        sigmoid = 1 / (1 + np.exp(-(self.start + u * (self.end - self.start)) / self.tau))
        f = (sigmoid[-1] - sigmoid) / (sigmoid[-1] - sigmoid[0])
        super().__init__(np.minimum(1 - f[1:] / f[:-1], max_beta))

    def get_config(self) -> dict[str, Any]:
        own = {"start": self.start, "end": self.end, "tau": self.tau, "max_beta": self.max_beta}
        return {"num_steps": self.num_steps, **own}


@keras_gen_export("keras_gen.schedules.KexueSchedule")
class KexueSchedule(DiscreteSchedule):
    """Schedule of the kexue.fm posts, written there as `alpha_t = sqrt(1 - 0.02 t / T)` for `t = 1 .. T`.

        beta_t = beta_end (t + 1) / T,   t = 0 .. T - 1

    The post's `alpha_t` is the factor of a single step; this library's `alpha_t` is the product of the first `t + 1`.

    Args:
        num_steps: int >= 1, `T`. Defaults to `1000`.
        beta_end: float in (0, 1). Defaults to `0.02`.

    Raises:
        ValueError: if an argument is outside its range.

    Reference: https://kexue.fm/archives/9119.
    """

    def __init__(self, num_steps: int = 1000, beta_end: float = 0.02):
        check_integer("num_steps", num_steps)
        self.beta_end = check_fraction("beta_end", beta_end)
        super().__init__(beta_end * np.arange(1, num_steps + 1) / num_steps)

    def get_config(self) -> dict[str, Any]:
        return {"num_steps": self.num_steps, "beta_end": self.beta_end}
