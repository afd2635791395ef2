"""The times that a sampler visits: one array, whose next entry is the next time."""

import numpy as np

from keras_gen.core.checks import check, check_choice, check_integer

SPACINGS = ("leading", "linspace", "trailing")


def time_grid(num_steps: int, steps: int, spacing: str) -> np.ndarray:
    """Returns `steps + 1` falling times, the last one -1 (clean data).

        leading   floor(i T / N)                the posts' and the DDIM code's; never sees the noisiest times
        linspace  round(i (T - 1) / (N - 1))    first and last time both
        trailing  round((i + 1) T / N) - 1      the noisiest time, and equal strides down to clean data

    Args:
        num_steps: int, `T`, the schedule's number of steps.
        steps: int, `N` in 1 .. T.
        spacing: `"leading"`, `"linspace"` or `"trailing"`.

    Returns:
        int array `(N + 1,)`.

    Reference: Lin et al. 2023, arXiv:2305.08891, table 2.
    """
    check_integer("steps", steps)
    check(steps <= num_steps, "steps", f"be at most the schedule's number of steps, {num_steps}", steps)
    check_choice("spacing", spacing, SPACINGS)
    if spacing == "leading":
        times = np.arange(steps) * num_steps // steps
    elif spacing == "linspace":
        times = np.linspace(num_steps - 1, 0, steps)[::-1]
    else:
        times = np.arange(1, steps + 1) * num_steps / steps - 1
    # Rounding half up keeps times that are one apart distinct; np.round sends 1.5 and 2.5 both to 2.
    return np.concatenate([np.floor(times[::-1] + 0.5).astype(int), [-1]])
