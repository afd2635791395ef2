"""Time grids of samplers."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_gen.core.checks import check, check_choice, check_integer
from keras_gen.diffusion.schedules.base import NoiseSchedule
from keras_gen.diffusion.schedules.discrete import DiscreteSchedule

SPACINGS = ("leading", "linspace", "trailing", "karras", "log_snr")
KARRAS_RHO = 7.0


def time_grid(schedule: NoiseSchedule, steps: int, spacing: str | None) -> np.ndarray:
    """Returns `steps + 1` decreasing times, the last one clean data (-1 for a discrete schedule, usually 0 otherwise).

        leading   equal strides up from the cleanest time, without the noisiest times
        linspace  equal strides from the first to the last time
        trailing  equal strides from the noisiest time down to clean data
        karras    equal strides of (sigma / alpha)^(1/7), from the first to the last time
        log_snr   equal strides of log(sigma / alpha), from the first to the last time

    In discrete time, the times are rounded to those of the schedule.

    Args:
        schedule: the schedule, of `T` steps if discrete.
        steps: int, `N` >= 1, and `N <= T` for a discrete schedule.
        spacing: one of these names, or `None`, the schedule's default.

    Returns:
        array `(N + 1,)`, of integers for a discrete schedule.

    Raises:
        ValueError: if the schedule does not support the spacing, or the times are not strictly decreasing.

    Reference: Lin et al. 2023, arXiv:2305.08891, table 2; Karras et al. 2022, arXiv:2206.00364, equation 5.
    """
    spacing = schedule.spacing if spacing is None else spacing
    check_choice("spacing", spacing, SPACINGS)
    check_integer("steps", steps)
    if spacing in ("karras", "log_snr"):
        times = _times_by_noise_level(schedule, steps, spacing)
    elif isinstance(schedule, DiscreteSchedule):
        rule = f"be at most the schedule's number of steps, {schedule.num_steps}"
        check(steps <= schedule.num_steps, "steps", rule, steps)
        times = _integer_times(schedule.num_steps, steps, spacing)
    else:
        times = _real_times(schedule, steps, spacing)
    times = np.append(times, schedule.t_clean)
    rule = f"be fewer: with spacing {spacing!r} the times of the grid are not strictly decreasing"
    check(bool(np.all(np.diff(times) < 0)), "steps", rule, steps)
    return times


def explicit_times(schedule: NoiseSchedule, times: Sequence[float] | np.ndarray) -> np.ndarray:
    """Returns explicit times as an array, after checking that they are strictly decreasing times of the schedule."""
    times = np.asarray(times)
    if isinstance(schedule, DiscreteSchedule):
        check(times.dtype.kind in "iu", "times", "be integers for a discrete schedule", times)
    in_range = (times >= schedule.t_clean) & (times <= schedule.t_max)
    rule = f"be strictly decreasing times in {schedule.t_clean} (clean data) .. {schedule.t_max}"
    check(bool(np.all(np.diff(times) < 0) and np.all(in_range)), "times", rule, times)
    return times


def _integer_times(num_steps: int, steps: int, spacing: str) -> np.ndarray:
    times: np.ndarray
    if spacing == "leading":
        times = np.arange(steps) * num_steps // steps
    elif spacing == "linspace":
        times = np.linspace(num_steps - 1, 0, steps)[::-1]
    else:
        times = np.arange(1, steps + 1) * num_steps / steps - 1
    # Rounding half up keeps times that are one apart distinct; np.round maps both 1.5 and 2.5 to 2.
    return np.floor(times[::-1] + 0.5).astype(int)


def _real_times(schedule: NoiseSchedule, steps: int, spacing: str) -> np.ndarray:
    if spacing == "linspace":
        return np.linspace(schedule.t_max, schedule.t_min, steps)
    if spacing == "leading":
        return np.linspace(schedule.t_max, schedule.t_min, steps + 1)[1:]
    rule = "not be 'trailing' for a schedule without a finite time of clean data"
    check(np.isfinite(schedule.t_clean), "spacing", rule, repr(spacing))
    return np.linspace(schedule.t_max, schedule.t_clean, steps + 1)[:-1]


def _times_by_noise_level(schedule: NoiseSchedule, steps: int, spacing: str) -> Any:
    first, last = (-0.5 * schedule.log_snr(t) for t in (schedule.t_max, schedule.t_min))
    rule = "be a different one for a schedule that ends at zero signal"
    check(np.isfinite(first) and np.isfinite(last), "spacing", rule, repr(spacing))
    if spacing == "log_snr":
        levels = np.linspace(first, last, steps)
    else:
        ends = np.exp(np.array([first, last]) / KARRAS_RHO)
        levels = KARRAS_RHO * np.log(np.linspace(ends[0], ends[1], steps))
    # Rounding errors must not lead outside the range of the schedule.
    return np.clip(schedule.inverse_log_snr(-2 * levels), schedule.t_min, schedule.t_max)
