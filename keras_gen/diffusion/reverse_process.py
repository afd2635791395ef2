import functools
import json
from typing import Any

import numpy as np
from keras import ops

from keras_gen.core.batches import even_batches
from keras_gen.core.checks import check, check_integer
from keras_gen.core.compiled import as_tensor
from keras_gen.core.loop import progress_bar, run_in_parts
from keras_gen.core.noise import step_seeds
from keras_gen.diffusion.ddpm_sampler import DDPMSampler
from keras_gen.diffusion.denoising_network import prepare_condition
from keras_gen.diffusion.diffusion_sampler import DiffusionSampler


def reverse_process(
    model: Any,
    sampler: DiffusionSampler,
    x_t: np.ndarray,
    times: np.ndarray,
    *,
    condition: Any = None,
    seed: int,
    step_noise: Any = None,
    batch_size: int = 64,
    verbose: str | int = "auto",
    frames: int = 1,
) -> np.ndarray:
    """Takes images from `times[0]` through the falling `times` to clean data; see `DiffusionModel.sample`.

    The loop is compiled once for each sampler and batch shape: schedule, times and noise are its arguments.

    Args:
        model: a `DiffusionModel`.
        sampler: the rule of each step.
        x_t: `(n, *image_shape)`, images at `times[0]`.
        times: int array `(steps + 1,)`.
        condition: see `DiffusionModel.sample`, like the arguments that follow.
        seed: int.
        step_noise: `(steps, n, *image_shape)` or `None`.
        batch_size: int.
        verbose: `"auto"`, 0 or 1.
        frames: int >= 1. At how many evenly spaced steps to keep the state.

    Returns:
        float32 array `(frames, n, *image_shape)`, the last entry being the finished images.
    """
    n, steps = len(x_t), len(times) - 1
    check_integer("batch_size", batch_size)
    check(frames <= steps, "frames", f"be at most the number of steps, {steps}", frames)
    if step_noise is not None:
        step_noise = np.asarray(step_noise, "float32")
        expected = (steps, *x_t.shape)
        check(step_noise.shape == expected, "step_noise", f"have shape {expected}", f"shape {step_noise.shape}")
    condition = prepare_condition(model.network, condition, n)

    def loop(draws: Any, rows: Any, labels: Any, x: Any, start: Any, stop: Any) -> Any:
        return sampler.run(functools.partial(model.denoise, condition=labels), x, start, stop, rows, draws)

    rows = {name: as_tensor(column) for name, column in sampler.rows(model.schedule, times).items()}
    kept = np.linspace(0, steps, frames + 1).round().astype(int)[1:]
    batches = list(even_batches(n, batch_size))
    shapes = (len(batches[0]), steps, x_t.shape[1:], step_noise is None)
    program = model.program((type(sampler), json.dumps(sampler.get_config()), shapes), loop)
    bar = progress_bar(len(batches) * steps, verbose)
    path = np.empty((frames, n, *x_t.shape[1:]), "float32")
    for number, index in enumerate(batches):
        if step_noise is None:
            draws = {"seeds": as_tensor(step_seeds(steps, seed, number, model.seed_generator.state.dtype))}
        else:
            draws = {"step_noise": as_tensor(step_noise[:, index])}
        labels = None if condition is None else as_tensor(condition[index])
        states = run_in_parts(functools.partial(program, draws, rows, labels), as_tensor(x_t[index]), steps, kept, bar)
        for frame, (_, x) in enumerate(states):
            path[frame, index] = ops.convert_to_numpy(x)
    return path


def resolve_sampler(sampler: DiffusionSampler | None) -> DiffusionSampler:
    """Returns the sampler, for `None` the default one. Refuses anything else."""
    sampler = DDPMSampler() if sampler is None else sampler
    check(isinstance(sampler, DiffusionSampler), "sampler", "be a DiffusionSampler or None", repr(sampler))
    return sampler
