"""Base class of diffusion samplers, the denoiser that they call, and the reverse process."""

import abc
import copy
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.checks import (
    check,
    check_choice,
    check_given,
    check_integer_or_none,
    check_numbers,
    finite_array,
    finite_samples,
    is_number,
)
from keras_gen.core.compiled import as_tensor, sequential_loop
from keras_gen.core.configured import Configured, check_configured, key_of
from keras_gen.core.random import normal_rows
from keras_gen.diffusion.samplers.guidance import Guidance
from keras_gen.diffusion.samplers.threshold import DynamicThreshold
from keras_gen.diffusion.schedules.base import NoiseSchedule
from keras_gen.diffusion.schedules.time_grid import SPACINGS, explicit_times, time_grid
from keras_gen.export import keras_gen_export


class Denoiser:
    """Denoiser that a sampler calls: the model's x0 prediction with guidance and thresholding applied.

    It is called as `x0, variance_weight = denoise(x_t, row)`. `row` holds the model's `coefficients` at one time, and
    possibly others. `variance_weight` is the model's weight of the large log-variance, see `DDPMSampler`.

    Args:
        model: a `DiffusionModel`.
        condition: tensor `(batch, ...)`, a dict of them, or `None`.
        guidance: a `Guidance` or `None`.
        clip_x0: float > 0, a `DynamicThreshold` or `None`: bound of x0.
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
        self.model, self.condition = model, condition
        self.evaluate = model.denoise if guidance is None else guidance.bind(model)
        self.clip_x0, self.constrain = clip_x0, constrain

    def __call__(self, x_t: Any, row: dict[str, Any]) -> tuple[Any, Any]:
        x0, variance_weight = self.evaluate(x_t, row, self.condition)
        return self.bounded(x0), variance_weight

    def bounded(self, x0: Any) -> Any:
        """Returns x0 after `clip_x0` and `constrain`."""
        if isinstance(self.clip_x0, DynamicThreshold):
            x0 = self.clip_x0(x0)
        elif self.clip_x0 is not None:
            x0 = ops.clip(x0, -self.clip_x0, self.clip_x0)
        return x0 if self.constrain is None else self.constrain(x0)

    def velocity(self, x_t: Any, t: Any) -> Any:
        """Returns dx / dt of the probability-flow ODE at any time of a continuous schedule."""
        row = self.model.coefficients(t)
        x0, _ = self(x_t, row)
        return row["d_alpha"] * x0 + row["d_sigma"] * epsilon_of(x_t, x0, row)


def epsilon_of(x_t: Any, x0: Any, row: dict[str, Any]) -> Any:
    """Returns the noise in `x_t = alpha x0 + sigma eps`."""
    return (x_t - row["alpha"] * x0) / row["sigma"]


@keras_gen_export("keras_gen.samplers.DiffusionSampler")
class DiffusionSampler(Configured, abc.ABC):
    """Base class of diffusion samplers: a table of coefficients, one row for each step, and the rule of a step.

    To implement a sampler:
    1. `rows(schedule, times)` adds coefficients, float64 arrays `(N,)`, to those of `super().rows`;
    2. `step(denoise, x_t, row, noise)` returns `x_s`; `denoise(x_t, row)` returns the model's x0 and its weight of the
       large log-variance at the time of the row, `noise()` a standard normal draw like `x_t`;
    3. `get_config` returns the constructor's arguments.

    If a step evaluates the network at a second time, `rows` adds a nested table for that time, `at(schedule, times)`,
    under another name. For multistep methods, `start` and `finish` define the state that is passed between steps. If a
    step draws more than once, `draws` is the number of draws, and `noise(k)` is draw k.

    Samplers are stateless: the same one may be used by many models and threads.

    Args:
        steps: int, number of network evaluations, or `None`: the number of steps of the schedule. Defaults to `None`.
        spacing: `"leading"`, `"linspace"`, `"trailing"`, `"karras"` or `"log_snr"`, the spacing of the times. Defaults
            to `None`, the schedule's own: "leading" in discrete time.
        clip_x0: float > 0, a `DynamicThreshold`, or `None`. Bounds each prediction of x0 to [-clip_x0, clip_x0]; use 1
            for images. Defaults to `None`.
        times: `N + 1` strictly decreasing times of the schedule, instead of `steps` and `spacing`. The network is
            evaluated at all but the last, where sampling ends: -1 is clean data in discrete time, usually 0 in
            continuous time. Defaults to `None`.

    Raises:
        ValueError: if an argument is outside its range.
    """

    draws = 1

    def __init__(
        self,
        steps: int | None = None,
        spacing: str | None = None,
        clip_x0: float | DynamicThreshold | None = None,
        times: Sequence[float] | None = None,
    ):
        if spacing is not None:
            check_choice("spacing", spacing, SPACINGS)
        is_valid = clip_x0 is None or isinstance(clip_x0, DynamicThreshold) or (is_number(clip_x0) and clip_x0 > 0)
        check(is_valid, "clip_x0", "be > 0, a DynamicThreshold or None", repr(clip_x0))
        self.steps = check_integer_or_none("steps", steps)
        self.spacing = spacing
        self.clip_x0 = float(clip_x0) if is_number(clip_x0) else clip_x0
        self.given_times = None if times is None else check_numbers("times", times, at_least=2)

    def times(self, schedule: NoiseSchedule) -> np.ndarray:
        """Returns the `N + 1` decreasing times of the trajectory, ending at clean data unless they were given."""
        if self.given_times is not None:
            return explicit_times(schedule, self.given_times)
        steps = getattr(schedule, "num_steps", None) if self.steps is None else self.steps
        steps = check_given("steps", steps, "be given for a schedule in continuous time")
        return time_grid(schedule, steps, self.spacing)

    def noise_scale(self, schedule: NoiseSchedule, times: np.ndarray) -> float:
        """Returns the deviation of the starting noise: that of `times[0]` if above 1 (as for VE and EDM), else 1."""
        return max(1.0, float(schedule.sigma(times[0])))

    def check_model(self, model: Any, times: np.ndarray) -> None:
        """Raises `ValueError` for a model that it cannot sample at these times. Accepts all models by default."""

    def rows(self, schedule: NoiseSchedule, times: np.ndarray) -> dict[str, Any]:
        """Returns coefficients, arrays `(N,)` by name; by default the time of each step and its `alpha` and `sigma`.

        `coefficient_table` adds the model's coefficients to every table with times, including nested ones.
        """
        return self.at(schedule, times[:-1])

    def at(self, schedule: NoiseSchedule, times: np.ndarray) -> dict[str, np.ndarray]:
        """Returns a table for network evaluations at `times`, one for each step."""
        return {"t": times, "alpha": schedule.alpha(times), "sigma": schedule.sigma(times)}

    @abc.abstractmethod
    def step(self, denoise: Denoiser, x_t: Any, row: dict[str, Any], noise: Callable[..., Any]) -> Any:
        """Computes `x_s` from `x_t`."""

    def start(self, x: Any) -> Any:
        """Returns the initial state given `x_T`; by default `x_T` itself."""
        return x

    def finish(self, state: Any) -> Any:
        """Returns `x_s` given the state that `step` returned; by default the state itself."""
        return state

    def run(self, denoise: Denoiser, inputs: dict[str, Any], state: Any, first: Any, last: Any) -> Any:
        """Performs the steps `first` .. `last - 1` in one compilable loop.

        Args:
            denoise: the denoiser.
            inputs: `"rows"`, the table as float32 (and integer) tensors, and `"seeds"`, `(N, draws, 2)`, to draw the
                noise, or `(N, draws, batch, 2)`, to draw each row's own, or `"step_noise"`, `(batch, N, draws, ...)`,
                to use given noise.
            state: the state before step `first`.
            first: integer scalar.
            last: integer scalar.

        Returns:
            The state after step `last - 1`.
        """

        def body(i: Any, state: Any) -> Any:
            x_t = self.finish(state)

            def noise(k: int = 0) -> Any:
                if "step_noise" in inputs:
                    return inputs["step_noise"][:, i, k]
                return normal_rows(ops.shape(x_t), inputs["seeds"][i, k])

            return self.step(denoise, state, row_of(inputs["rows"], i), noise)

        return sequential_loop(first, last, body, state)

    def traced_config(self) -> dict[str, Any]:
        """Returns what `step` depends on: samplers of equal ones share a compiled program.

        By default the configuration without `steps`, `spacing` and `times`, which only the table depends on, and
        without the value of `clip_x0`, which is an argument of the program.
        """
        config = {name: value for name, value in self.get_config().items() if name not in ("steps", "spacing", "times")}
        return {**config, "clip_x0": "a number" if isinstance(self.clip_x0, float) else config["clip_x0"]}

    def get_config(self) -> dict[str, Any]:
        clip_x0 = self.clip_x0
        if isinstance(clip_x0, DynamicThreshold):
            clip_x0 = keras.saving.serialize_keras_object(clip_x0)
        return {"steps": self.steps, "spacing": self.spacing, "clip_x0": clip_x0, "times": self.given_times}


def check_sampler(sampler: Any) -> None:
    """Checks that `sampler` is a `DiffusionSampler`, or `None` for a default."""
    is_sampler = sampler is None or isinstance(sampler, DiffusionSampler)
    check(is_sampler, "sampler", "be a DiffusionSampler or None", repr(sampler))
    if sampler is not None:
        check_configured("sampler", sampler)


def has_step_of(sampler: Any, cls: type[DiffusionSampler]) -> bool:
    """Returns whether `sampler` is an instance of `cls`, or of a subclass that overrides neither `step` nor `rows`."""
    return isinstance(sampler, cls) and type(sampler).step is cls.step and type(sampler).rows is cls.rows


def reverse_process(
    model: Any,
    sampler: DiffusionSampler,
    x_t: np.ndarray,
    times: np.ndarray,
    *,
    condition: Any = None,
    guidance: Guidance | None = None,
    seed: int | tuple[int, ...],
    step_noise: Any = None,
    known: tuple[np.ndarray, np.ndarray] | None = None,
    batch_size: int = 64,
    verbose: str | int = "auto",
    frames: int = 1,
) -> np.ndarray:
    """Runs the reverse process from `times[0]` along the decreasing `times` to clean data; see `DiffusionModel.sample`.

    The loop is compiled once for each sampler and batch shape: schedule, times and noise are its arguments.

    Args:
        model: a `DiffusionModel`.
        sampler: the sampler.
        x_t: `(n, *image_shape)`, images at `times[0]`.
        times: array `(steps + 1,)`.
        condition: as for `DiffusionModel.sample`, like the following arguments.
        guidance: a `Guidance` or `None`.
        seed: int, or a tuple of `n`, one for each image.
        step_noise: `(steps, n, *image_shape)` or `None`.
        known: images and the mask of the pixels that x0 must match, or `None`.
        batch_size: int.
        verbose: `"auto"`, 0 or 1.
        frames: int >= 1. Number of evenly spaced steps whose states are returned.

    Returns:
        float32 array `(frames, n, *image_shape)`; the last entry holds the generated images.
    """
    steps = len(times) - 1
    check(frames <= steps, "frames", f"be at most the number of steps, {steps}", frames)
    arrays = {"x_t": x_t, "condition": prepared_condition(model, guidance, condition, len(x_t))}
    arrays["step_noise"] = _checked_noise(step_noise, sampler, (steps, *x_t.shape))
    if known is not None:
        arrays |= {"known": known[0], "mask": known[1]}

    def loop(inputs: dict[str, Any], state: Any, first: Any, last: Any) -> Any:
        fill = (lambda x0: ops.where(inputs["mask"], inputs["known"], x0)) if "mask" in inputs else None
        denoise = Denoiser(
            model,
            inputs.get("condition"),
            guidance and with_attributes(guidance, inputs["guidance"]),
            inputs.get("clip_x0", sampler.clip_x0),
            fill,
        )
        return sampler.run(denoise, inputs, state, first, last)

    stops = frame_steps(steps, frames)
    path = np.empty((frames, *x_t.shape), "float32")
    # Numbers that a user varies are arguments of the program, so that it serves all of them.
    shared = {"rows": coefficient_table(model, sampler.rows(model.schedule, times))}
    if isinstance(sampler.clip_x0, float):
        shared["clip_x0"] = as_tensor(np.float32(sampler.clip_x0))
    if guidance is not None:
        shared["guidance"] = {name: as_tensor(np.float32(getattr(guidance, name))) for name in guidance.scalars}
    states = model.run_steps(
        (type(sampler), key_of(sampler.traced_config()), key_of_guidance(guidance)),
        loop,
        arrays,
        lambda inputs: sampler.start(inputs["x_t"]),
        steps=steps,
        batch_size=batch_size,
        verbose=verbose,
        shared=shared,
        seed=seed if step_noise is None else None,
        draws=sampler.draws,
        stops=stops,
        read=sampler.finish,
        extra_layers=() if guidance is None else guidance.layers,
    )
    for index, stop, images in states:
        path[stops.index(stop), index] = images
    finite_samples(np.moveaxis(path, 0, 1), arrays["condition"])
    return path


def frame_steps(steps: int, frames: int) -> list[int]:
    """Returns the numbers of steps after which frames are taken, evenly spaced up to `steps`."""
    return np.linspace(0, steps, frames + 1).round().astype(int)[1:].tolist()


def row_of(table: dict[str, Any], i: Any) -> dict[str, Any]:
    """Returns the coefficients of step `i`, in a table and in those nested in it."""
    return keras.tree.map_structure(lambda column: column[i], table)


def coefficient_table(model: Any, rows: dict[str, Any]) -> dict[str, Any]:
    """Converts the sampler's coefficients to tensors, and adds the model's own coefficients at the same times.

    Common entries, such as `alpha`, must have equal values.
    """
    table = {
        name: coefficient_table(model, column) if isinstance(column, dict) else as_tensor(np.asarray(column))
        for name, column in rows.items()
    }
    if "t" not in rows:
        return table
    row = model.coefficients(rows["t"])
    different = sorted(name for name in row.keys() & rows.keys() if not np.allclose(row[name], rows[name]))
    check(not different, "rows", "agree with the model's coefficients of the same name", different)
    return {**{name: as_tensor(np.asarray(column)) for name, column in row.items()}, **table}


def prepared_condition(model: Any, guidance: Guidance | None, condition: Any, n: int) -> Any:
    """Returns the condition of `n` images as arrays, after checking it against model and guidance."""
    if guidance is None:
        return model.prepare_condition(condition, n)
    check(isinstance(guidance, Guidance), "guidance", "be a Guidance or None", repr(guidance))
    guidance.check_model(model)
    return guidance.condition(model, condition, n)


def with_attributes(thing: Any, values: dict[str, Any]) -> Any:
    """Returns a shallow copy with other values of some attributes."""
    result = copy.copy(thing)
    for name, value in values.items():
        setattr(result, name, value)
    return result


def key_of_guidance(guidance: Guidance | None) -> Any:
    """Returns a cache key: type and settings without `scalars`; of layers, since weights may change, the identity."""
    if guidance is None:
        return None
    # Not `get_config`, which would serialize a whole classifier, or fail if the classifier has none.
    own = {name: value for name, value in vars(guidance).items() if name not in guidance.scalars}
    return type(guidance), key_of(own)


def _checked_noise(step_noise: Any, sampler: DiffusionSampler, shape: tuple[int, ...]) -> np.ndarray | None:
    """Returns the noise of all steps as `(n, steps, draws, ...)`."""
    if step_noise is None:
        return None
    step_noise = finite_array("step_noise", step_noise).astype("float32")
    full_shape = (shape[0], sampler.draws, *shape[1:])
    expected = shape if sampler.draws == 1 else full_shape
    check(step_noise.shape == expected, "step_noise", f"have shape {expected}", f"shape {step_noise.shape}")
    return np.moveaxis(step_noise.reshape(full_shape), 2, 0)
