"""Distributions of training times."""

import abc
import math
from typing import Any

import keras
from keras import ops

from keras_gen.core.checks import check, check_positive, is_number
from keras_gen.core.configured import Configured
from keras_gen.diffusion.schedules.base import NoiseSchedule
from keras_gen.export import keras_gen_export

GOLDEN_RATIO = (math.sqrt(5) - 1) / 2


@keras_gen_export("keras_gen.schedules.TimeSampler")
class TimeSampler(Configured, abc.ABC):
    """Base class of distributions of training times.

    Subclasses define `draw`, based on `keras.random`, and return the constructor's arguments from `get_config`.
    `schedule.times_at` maps fractions, 0 for the cleanest and 1 for the noisiest time, to times.

    Reference: Esser et al. 2024, arXiv:2403.03206, section 3.1.
    """

    @abc.abstractmethod
    def draw(self, batch: Any, schedule: NoiseSchedule, seed: Any) -> Any:
        """Draws times of the schedule, a tensor `(batch,)`, of integers in discrete time."""


class Stratified(keras.random.SeedGenerator):
    """Seed generator of stratified times, for evaluation: `u_k = u + k phi (mod 1)` with one uniform draw u.

    With phi the golden ratio, the times of a batch cover the schedule as evenly as a grid, in any order of the data.
    Other draws are those of `generator`.
    """

    def __init__(self, generator: keras.random.SeedGenerator):  # no super().__init__(): it would create a variable
        self.generator = generator

    def next(self, ordered: bool = True) -> Any:
        return self.generator.next(ordered)


def uniform(batch: Any, seed: Any) -> Any:
    """Draws uniform float32 values `(batch,)` in (0, 1): independent ones, or stratified with a `Stratified` seed."""
    if not isinstance(seed, Stratified):
        return ops.maximum(keras.random.uniform((batch,), dtype="float32", seed=seed), 1e-7)
    shift = keras.random.uniform((), dtype="float32", seed=seed)
    u = shift + GOLDEN_RATIO * ops.arange(batch, dtype="float32")
    return ops.clip(u - ops.floor(u), 1e-7, 1 - 1e-7)


def standard_normal(batch: Any, seed: Any) -> Any:
    """Draws standard normal float32 values `(batch,)`, independent or stratified as in `uniform`."""
    if not isinstance(seed, Stratified):
        return keras.random.normal((batch,), dtype="float32", seed=seed)
    return math.sqrt(2) * ops.erfinv(2 * uniform(batch, seed) - 1)


@keras_gen_export("keras_gen.schedules.UniformTime")
class UniformTime(TimeSampler):
    """Samples times uniformly, as in DDPM.

    Reference: Ho et al. 2020, arXiv:2006.11239, algorithm 1.
    """

    def draw(self, batch: Any, schedule: NoiseSchedule, seed: Any) -> Any:
        return schedule.times_at(uniform(batch, seed))


@keras_gen_export("keras_gen.schedules.CosMapTime")
class CosMapTime(TimeSampler):
    """Samples times such that the log-SNR of a rectified flow is distributed as in the cosine schedule.

        t = 1 - 1 / (tan(pi u / 2) + 1)

    `u` is uniform in (0, 1); t = 0 is the cleanest, t = 1 the noisiest time of the schedule. The density of t is
    `2 / (pi - 2 pi t + 2 pi t^2)`.

    Reference: Esser et al. 2024, arXiv:2403.03206, equation 21.
    """

    def draw(self, batch: Any, schedule: NoiseSchedule, seed: Any) -> Any:
        return schedule.times_at(1 - 1 / (ops.tan(0.5 * math.pi * uniform(batch, seed)) + 1))


@keras_gen_export("keras_gen.schedules.LogNormalSigma")
class LogNormalSigma(TimeSampler):
    """Samples noise levels as in EDM: `log(sigma / alpha) = mean + std n`, with `n` standard normal.

    The time is that of this noise level in the schedule, or the nearest one in discrete time.

    Args:
        mean: float. Defaults to `-1.2`.
        std: float > 0. Defaults to `1.2`.

    Raises:
        ValueError: if `mean` is not a number or `std` is not > 0.

    Reference: Karras et al. 2022, arXiv:2206.00364, table 1.
    """

    def __init__(self, mean: float = -1.2, std: float = 1.2):
        check(is_number(mean), "mean", "be a number", repr(mean))
        self.mean, self.std = float(mean), check_positive("std", std)

    def draw(self, batch: Any, schedule: NoiseSchedule, seed: Any) -> Any:
        log_sigma = self.mean + self.std * standard_normal(batch, seed)
        return schedule.inverse_log_snr(-2 * log_sigma)

    def get_config(self) -> dict[str, Any]:
        return {"mean": self.mean, "std": self.std}


@keras_gen_export("keras_gen.schedules.LogitNormalTime")
class LogitNormalTime(TimeSampler):
    """Samples intermediate times, where flow matching is hardest, more often: `t = sigmoid(mean + std n)`.

    `n` is standard normal; t = 0 is the cleanest, t = 1 the noisiest time of the schedule.

    Args:
        mean: float; larger values give noisier times. Defaults to `0.0`.
        std: float > 0. Defaults to `1.0`.

    Raises:
        ValueError: if `mean` is not a number or `std` is not > 0.

    Reference: Esser et al. 2024, arXiv:2403.03206, equation 19.
    """

    def __init__(self, mean: float = 0.0, std: float = 1.0):
        check(is_number(mean), "mean", "be a number", repr(mean))
        self.mean, self.std = float(mean), check_positive("std", std)

    def draw(self, batch: Any, schedule: NoiseSchedule, seed: Any) -> Any:
        n = standard_normal(batch, seed)
        return schedule.times_at(ops.sigmoid(self.mean + self.std * n))

    def get_config(self) -> dict[str, Any]:
        return {"mean": self.mean, "std": self.std}


@keras_gen_export("keras_gen.schedules.ModeTime")
class ModeTime(TimeSampler):
    """Samples intermediate times more often, but also both ends: `t = 1 - u - scale (cos^2(pi u / 2) - 1 + u)`.

    `u` is uniform in (0, 1); t = 0 is the cleanest, t = 1 the noisiest time of the schedule.

    Args:
        scale: float in [-1, 2 / (pi - 2)]; 0 is uniform, positive values favor the middle, negative ones the ends.
            Defaults to `1.29`.

    Raises:
        ValueError: if `scale` is outside its range, where t would not decrease with u.

    Reference: Esser et al. 2024, arXiv:2403.03206, equation 20.
    """

    def __init__(self, scale: float = 1.29):
        is_monotonic = is_number(scale) and -1 <= scale <= 2 / (math.pi - 2)
        check(is_monotonic, "scale", "be in [-1, 2 / (pi - 2)]", repr(scale))
        self.scale = float(scale)

    def draw(self, batch: Any, schedule: NoiseSchedule, seed: Any) -> Any:
        u = uniform(batch, seed)
        return schedule.times_at(1 - u - self.scale * (ops.square(ops.cos(0.5 * math.pi * u)) - 1 + u))

    def get_config(self) -> dict[str, Any]:
        return {"scale": self.scale}
