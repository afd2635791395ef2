"""What every sampler of diffusion models has: times, a table of coefficients, a rule for one step, and a denoiser."""

import abc
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.checks import check, check_choice, check_integer, is_number
from keras_gen.core.compiled import sequential_loop
from keras_gen.core.random import StepSeed
from keras_gen.diffusion.samplers.guidance import Guidance
from keras_gen.diffusion.samplers.threshold import DynamicThreshold
from keras_gen.diffusion.schedules.base import NoiseSchedule
from keras_gen.diffusion.schedules.time_grid import SPACINGS, time_grid
from keras_gen.export import keras_gen_export


class Denoiser:
    """Evaluates a model for a sampler: `x0, share = denoise(x_t, row)`.

    `row` holds what the model's `coefficients` say of one time, and perhaps more. `share` is the model's share of the
    large variance, see `DDPMSampler`.

    Args:
        model: a `DiffusionModel`.
        condition: tensor `(batch, ...)` or `None`.
        guidance: a `Guidance` or `None`.
        clip_x0: float > 0, a `DynamicThreshold` or `None`: how x0 is bounded.
        constrain: function of x0, applied last, or `None`.
    """

    def __init__(
        self,
        model: Any,
        condition: Any = None,
        guidance: Guidance | None = None,
        clip_x0: Any = None,
        constrain: Callable[[Any], Any] | None = None,
    ):
        self.model, self.condition, self.guidance = model, condition, guidance
        self.clip_x0, self.constrain = clip_x0, constrain

    def __call__(self, x_t: Any, row: dict[str, Any]) -> tuple[Any, Any]:
        evaluate = self.model.denoise if self.guidance is None else self.guidance.bind(self.model)
        x0, share = evaluate(x_t, row, self.condition)
        if isinstance(self.clip_x0, DynamicThreshold):
            x0 = self.clip_x0(x0)
        elif self.clip_x0 is not None:
            x0 = ops.clip(x0, -self.clip_x0, self.clip_x0)
        if self.constrain is not None:
            x0 = self.constrain(x0)
        return x0, share

    def velocity(self, x_t: Any, t: Any) -> Any:
        """Returns dx / dt of the probability-flow ODE, at any time of a continuous schedule."""
        row = self.model.coefficients(t)
        x0, _ = self(x_t, row)
        return row["d_alpha"] * x0 + row["d_sigma"] * epsilon_of(x_t, x0, row)


def epsilon_of(x_t: Any, x0: Any, row: dict[str, Any]) -> Any:
    """Returns the noise in `x_t = alpha x0 + sigma eps`."""
    return (x_t - row["alpha"] * x0) / row["sigma"]


@keras_gen_export("keras_gen.samplers.DiffusionSampler")
class DiffusionSampler(abc.ABC):
    """Base class: a sampler is a table of coefficients, a row for each step, and a rule that applies one row.

    To write another:
    1. `rows(schedule, times)` adds its coefficients, float64 arrays `(N,)`, to those of `super().rows`;
    2. `step(denoise, x_t, row, noise)` returns `x_s`; `denoise(x_t, row)` gives the network's x0 and its share of the
       large variance at the time of the row, `noise()` a standard normal draw like `x_t`;
    3. its constructor's arguments go to `get_config`.

    If a step evaluates the network at a second time, `rows` holds a table of that time, `at(schedule, times)`, under a
    name of its own. If it looks back on earlier steps, `start` and `finish` say what goes from step to step. If it
    draws more than once, `draws` says how often, and `noise(k)` is the draw k.

    It holds no state between steps: one sampler may serve many models and threads.

    Args:
        steps: int, number of network evaluations, or `None`: as many as the schedule has. Defaults to `None`.
        spacing: `"leading"`, `"linspace"`, `"trailing"`, `"karras"` or `"log_snr"`: how the steps are laid over the
            schedule. Defaults to `None`, the schedule's own: "leading" in discrete time.
        clip_x0: float > 0, a `DynamicThreshold`, or `None`. Bounds each prediction of x0 to [-clip_x0, clip_x0]; use 1
            for images. Defaults to `None`.

    Raises:
        ValueError: if an argument is outside its range.
    """

    draws = 1

    def __init__(self, steps: int | None = None, spacing: str | None = None, clip_x0: float | None = None):
        if spacing is not None:
            check_choice("spacing", spacing, SPACINGS)
        number = is_number(clip_x0) and clip_x0 > 0
        valid = number or clip_x0 is None or isinstance(clip_x0, DynamicThreshold)
        check(valid, "clip_x0", "be > 0, a DynamicThreshold or None", repr(clip_x0))
        self.steps = None if steps is None else check_integer("steps", steps)
        self.spacing = spacing
        self.clip_x0 = float(clip_x0) if number else clip_x0

    def times(self, schedule: NoiseSchedule) -> np.ndarray:
        """Returns the `N + 1` falling times it visits, the last one clean data."""
        steps = getattr(schedule, "num_steps", None) if self.steps is None else self.steps
        check(steps is not None, "steps", "be given for a schedule in continuous time", None)
        return time_grid(schedule, steps, self.spacing)

    def check_model(self, model: Any, times: np.ndarray) -> None:  # noqa: B027 (nothing to refuse)
        """Refuses a model that it cannot sample at these times. Refuses none by default."""

    def rows(self, schedule: NoiseSchedule, times: np.ndarray) -> dict[str, Any]:
        """Returns arrays `(N,)` by name; here the time of each step and its `alpha` and `sigma`."""
        return self.at(schedule, times[:-1])

    def at(self, schedule: NoiseSchedule, times: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the table of times at which the network is evaluated, one for each step."""
        return {"t": times, "alpha": schedule.alpha(times), "sigma": schedule.sigma(times)}

    @abc.abstractmethod
    def step(self, denoise: Denoiser, x_t: Any, row: dict[str, Any], noise: Callable[..., Any]) -> Any:
        """Returns `x_s` from `x_t`."""

    def start(self, x: Any) -> Any:
        """Returns what `step` is first given, from `x_T`: by default `x_T`."""
        return x

    def finish(self, state: Any) -> Any:
        """Returns `x_s` from what `step` returned: by default that itself."""
        return state

    def run(
        self, denoise: Denoiser, state: Any, start: Any, stop: Any, rows: dict[str, Any], draws: dict[str, Any]
    ) -> Any:
        """Takes the steps `start` .. `stop - 1` in one compilable loop.

        Args:
            denoise: the network, its guidance, and a bound of x0.
            state: the state before step `start`.
            start: integer scalar.
            stop: integer scalar.
            rows: the table, as float32 (and integer) tensors.
            draws: `{"seeds": (N, draws, 2)}` to draw the noise, or `{"step_noise": (N, draws, batch, ...)}` to use a
                given one.

        Returns:
            The state after step `stop - 1`.
        """

        def body(i: Any, state: Any) -> Any:
            x_t = self.finish(state)

            def noise(k: int = 0) -> Any:
                if "step_noise" in draws:
                    return draws["step_noise"][i, k]
                return keras.random.normal(ops.shape(x_t), dtype="float32", seed=StepSeed(draws["seeds"][i, k]))

            row = keras.tree.map_structure(lambda column: column[i], rows)
            return self.step(denoise, state, row, noise)

        return sequential_loop(start, stop, body, state)

    def get_config(self) -> dict[str, Any]:
        clip_x0 = self.clip_x0
        if isinstance(clip_x0, DynamicThreshold):
            clip_x0 = keras.saving.serialize_keras_object(clip_x0)
        return {"steps": self.steps, "spacing": self.spacing, "clip_x0": clip_x0}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "DiffusionSampler":
        return cls(**keras.saving.deserialize_keras_object(config))
