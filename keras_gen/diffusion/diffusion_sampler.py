import abc
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.checks import check, check_choice, check_integer, is_number
from keras_gen.core.loop import sequential_loop
from keras_gen.core.noise import StepSeed
from keras_gen.diffusion.discrete_schedule import DiscreteSchedule
from keras_gen.diffusion.time_grid import SPACINGS, time_grid
from keras_gen.export import keras_gen_export

Denoise = Callable[[Any, dict[str, Any]], tuple[Any, Any]]


@keras_gen_export("keras_gen.samplers.DiffusionSampler")
class DiffusionSampler(abc.ABC):
    """Base class: a sampler is a table of coefficients, a row for each step, and a rule that applies one row.

    To write another:
    1. `rows(schedule, times)` adds its coefficients, float64 arrays `(N,)`, to those of `super().rows`;
    2. `step(denoise, x_t, row, noise)` returns `x_s`; `denoise(x_t, row)` gives the network's x0 and its share of the
       large variance, `noise()` a standard normal draw like `x_t`; call the latter only where it is needed;
    3. its constructor's arguments go to `get_config`.

    It holds no state between steps: one sampler may serve many models and threads.

    Args:
        steps: int, number of network evaluations, or `None`: as many as the schedule has. Defaults to `None`.
        spacing: `"leading"`, `"linspace"` or `"trailing"`: how the steps are laid over the schedule. Defaults to
            `"leading"`.
        clip_x0: float > 0 or `None`. Bounds each prediction of x0 to [-clip_x0, clip_x0]; use 1 for images.
            Defaults to `None`.

    Raises:
        ValueError: if an argument is outside its range.
    """

    def __init__(self, steps: int | None = None, spacing: str = "leading", clip_x0: float | None = None):
        check_choice("spacing", spacing, SPACINGS)
        valid = clip_x0 is None or (is_number(clip_x0) and clip_x0 > 0)
        check(valid, "clip_x0", "be > 0 or None", repr(clip_x0))
        self.steps = None if steps is None else check_integer("steps", steps)
        self.spacing = spacing
        self.clip_x0 = None if clip_x0 is None else float(clip_x0)

    def times(self, schedule: DiscreteSchedule) -> np.ndarray:
        """Returns the `N + 1` falling times it visits, the last one clean data."""
        return time_grid(schedule.num_steps, schedule.num_steps if self.steps is None else self.steps, self.spacing)

    def rows(self, schedule: DiscreteSchedule, times: np.ndarray) -> dict[str, np.ndarray]:
        """Returns arrays `(N,)` by name; here the time of each step and its `alpha` and `sigma`."""
        return {"t": times[:-1], "alpha": schedule.alpha(times[:-1]), "sigma": schedule.sigma(times[:-1])}

    @abc.abstractmethod
    def step(self, denoise: Denoise, x_t: Any, row: dict[str, Any], noise: Callable[[], Any]) -> Any:
        """Returns `x_s` from `x_t`."""

    def run(self, denoise: Denoise, x: Any, start: Any, stop: Any, rows: dict[str, Any], draws: dict[str, Any]) -> Any:
        """Takes the steps `start` .. `stop - 1` in one compilable loop.

        Args:
            denoise: function of `(x_t, row)`, see the class.
            x: tensor `(batch, ...)`, the state before step `start`.
            start: integer scalar.
            stop: integer scalar.
            rows: the table, as float32 (and integer) tensors.
            draws: `{"seeds": (N, 2)}` to draw the noise, or `{"step_noise": (N, batch, ...)}` to use a given one.

        Returns:
            tensor `(batch, ...)`, the state after step `stop - 1`.
        """

        def body(i: Any, x_t: Any) -> Any:
            def noise() -> Any:
                if "step_noise" in draws:
                    return draws["step_noise"][i]
                return keras.random.normal(ops.shape(x_t), dtype="float32", seed=StepSeed(draws["seeds"][i]))

            return self.step(self.clipped(denoise), x_t, {name: column[i] for name, column in rows.items()}, noise)

        return sequential_loop(start, stop, body, x)

    def get_config(self) -> dict[str, Any]:
        return {"steps": self.steps, "spacing": self.spacing, "clip_x0": self.clip_x0}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "DiffusionSampler":
        return cls(**config)

    def clipped(self, denoise: Denoise) -> Denoise:
        """Returns `denoise` with its x0 bounded by `clip_x0`."""
        if self.clip_x0 is None:
            return denoise

        def clipped(x_t: Any, row: dict[str, Any]) -> tuple[Any, Any]:
            x0, share = denoise(x_t, row)
            return ops.clip(x0, -self.clip_x0, self.clip_x0), share

        return clipped
