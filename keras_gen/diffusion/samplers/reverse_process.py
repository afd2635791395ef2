import functools
import json
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.checks import check, check_integer
from keras_gen.core.compiled import as_tensor, even_batches, progress_bar, run_in_parts
from keras_gen.core.random import step_seeds
from keras_gen.diffusion.samplers.base import Denoiser, DiffusionSampler
from keras_gen.diffusion.samplers.guidance import Guidance


def reverse_process(
    model: Any,
    sampler: DiffusionSampler,
    x_t: np.ndarray,
    times: np.ndarray,
    *,
    condition: Any = None,
    guidance: Guidance | None = None,
    seed: int,
    step_noise: Any = None,
    known: tuple[np.ndarray, np.ndarray] | None = None,
    batch_size: int = 64,
    verbose: str | int = "auto",
    frames: int = 1,
) -> np.ndarray:
    """Takes images from `times[0]` through the falling `times` to clean data; see `ImageGeneration.sample`.

    The loop is compiled once for each sampler and batch shape: schedule, times and noise are its arguments.

    Args:
        model: a `DiffusionModel`.
        sampler: the rule of each step.
        x_t: `(n, *image_shape)`, images at `times[0]`.
        times: array `(steps + 1,)`.
        condition: see `ImageGeneration.sample`, like the arguments that follow.
        guidance: a `Guidance` or `None`.
        seed: int.
        step_noise: `(steps, n, *image_shape)` or `None`.
        known: images and mask of the pixels that x0 is to have, or `None`.
        batch_size: int.
        verbose: `"auto"`, 0 or 1.
        frames: int >= 1. At how many evenly spaced steps to keep the state.

    Returns:
        float32 array `(frames, n, *image_shape)`, the last entry being the finished images.
    """
    n, steps = len(x_t), len(times) - 1
    check_integer("batch_size", batch_size)
    check(frames <= steps, "frames", f"be at most the number of steps, {steps}", frames)
    step_noise = _checked_noise(step_noise, sampler, (steps, *x_t.shape))
    condition = prepared_condition(model, guidance, condition, n)

    def loop(draws: Any, rows: Any, given: Any, state: Any, start: Any, stop: Any) -> Any:
        fill = (lambda x0: ops.where(given["mask"], given["known"], x0)) if "mask" in given else None
        denoise = Denoiser(model, given.get("condition"), guidance, sampler.clip_x0, fill)
        return sampler.run(denoise, state, start, stop, rows, draws)

    rows = complete_rows(model, sampler.rows(model.schedule, times))
    kept = np.linspace(0, steps, frames + 1).round().astype(int)[1:]
    batches = list(even_batches(n, batch_size))
    shapes = (len(batches[0]), steps, x_t.shape[1:], step_noise is None, known is None)
    key = (type(sampler), json.dumps(sampler.get_config()), key_of(guidance), shapes)
    program = model.program(key, loop, () if guidance is None else guidance.layers)
    bar = progress_bar(len(batches) * steps, verbose)
    path = np.empty((frames, n, *x_t.shape[1:]), "float32")
    for number, index in enumerate(batches):
        if step_noise is None:
            seeds = step_seeds(steps * sampler.draws, seed, number, model.seed_generator.state.dtype)
            draws = {"seeds": as_tensor(seeds.reshape(steps, sampler.draws, 2))}
        else:
            draws = {"step_noise": as_tensor(step_noise[:, :, index])}
        given = {} if condition is None else {"condition": as_tensor(condition[index])}
        if known is not None:
            given |= {"known": as_tensor(known[0][index]), "mask": ops.convert_to_tensor(known[1][index])}
        run = functools.partial(program, draws, rows, given)
        states = run_in_parts(run, sampler.start(as_tensor(x_t[index])), steps, kept, bar)
        for frame, (_, state) in enumerate(states):
            path[frame, index] = ops.convert_to_numpy(sampler.finish(state))
    return path


def _checked_noise(step_noise: Any, sampler: DiffusionSampler, shape: tuple[int, ...]) -> np.ndarray | None:
    """Returns the noise of all steps as `(steps, draws, n, ...)`."""
    if step_noise is None:
        return None
    step_noise = np.asarray(step_noise, "float32")
    whole = (shape[0], sampler.draws, *shape[1:])
    expected = shape if sampler.draws == 1 else whole
    check(step_noise.shape == expected, "step_noise", f"have shape {expected}", f"shape {step_noise.shape}")
    return step_noise.reshape(whole)


def complete_rows(model: Any, rows: dict[str, Any]) -> dict[str, Any]:
    """Returns the rows as tensors, with what the model has to say of each time in them."""
    tensors = {}
    for name, column in rows.items():
        tensors[name] = complete_rows(model, column) if isinstance(column, dict) else as_tensor(np.asarray(column))
    if "t" in rows:
        own = {name: as_tensor(np.asarray(value)) for name, value in model.coefficients(rows["t"]).items()}
        tensors = {**own, **tensors}
    return tensors


def prepared_condition(model: Any, guidance: Guidance | None, condition: Any, n: int) -> np.ndarray | None:
    """Returns the condition of `n` images as an array; refuses one that does not fit model and guidance."""
    if guidance is None:
        return model.prepare_condition(condition, n)
    check(isinstance(guidance, Guidance), "guidance", "be a Guidance or None", repr(guidance))
    guidance.check_model(model)
    return guidance.condition(model, condition, n)


def key_of(guidance: Guidance | None) -> Any:
    """Returns what tells two guidances apart; layers by themselves, for their weights may change."""
    if guidance is None:
        return None
    # Not its `get_config`, which would write out a whole classifier, or fail for one that has none.
    own = {k: v for k, v in vars(guidance).items() if k != "layers" and not isinstance(v, keras.Layer)}
    return type(guidance), repr(own), tuple(map(id, guidance.layers))
