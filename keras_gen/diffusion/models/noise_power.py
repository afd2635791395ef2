"""How much of the noise a network finds, which tells the best variance of a sampler."""

import functools
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.batches import even_batches
from keras_gen.core.checks import check_integer
from keras_gen.core.compiled import as_tensor
from keras_gen.core.loop import progress_bar, run_in_parts, sequential_loop
from keras_gen.core.random import StepSeed, step_seeds
from keras_gen.diffusion.samplers.denoiser import epsilon_of
from keras_gen.diffusion.samplers.reverse_process import complete_rows


def noise_power(
    model: Any,
    times: np.ndarray,
    x: np.ndarray,
    condition: np.ndarray | None,
    seed: int,
    batch_size: int,
    verbose: str | int,
) -> np.ndarray:
    """Returns `1 - E |eps - eps_hat(x_t)|^2 / dimensions` for each of the `times`, float32, not below 0."""
    check_integer("batch_size", batch_size)
    steps = len(times)
    rows = complete_rows(model, {"t": times})

    def loop(seeds: Any, rows: Any, given: Any, power: Any, start: Any, stop: Any) -> Any:
        x0 = given["x0"]

        def body(i: Any, power: Any) -> Any:
            row = {name: column[i] for name, column in rows.items()}
            eps = keras.random.normal(ops.shape(x0), dtype="float32", seed=StepSeed(seeds[i]))
            x_t = row["alpha"] * x0 + row["sigma"] * eps
            x0_hat, _ = model.denoise(x_t, row, given.get("condition"))
            squares = ops.square(eps - epsilon_of(x_t, x0_hat, row))
            # The last batch is filled up with copies, which do not count.
            mean = ops.sum(given["weight"] * ops.mean(squares, axis=tuple(range(1, len(x0.shape)))))
            return ops.where(ops.arange(steps) == i, power + mean, power)

        return sequential_loop(start, stop, body, power)

    batches = list(even_batches(len(x), batch_size))
    program = model.program(("noise_power", steps, len(batches[0]), x.shape[1:]), loop)
    bar = progress_bar(len(batches) * steps, verbose)
    power = ops.zeros((steps,), "float32")
    for number, index in enumerate(batches):
        seeds = as_tensor(step_seeds(steps, seed, number, model.seed_generator.state.dtype))
        first = np.append(True, np.diff(index) > 0)
        given = {"x0": as_tensor(x[index]), "weight": as_tensor(first / len(x))}
        if condition is not None:
            given["condition"] = as_tensor(condition[index])
        ((_, power),) = run_in_parts(functools.partial(program, seeds, rows, given), power, steps, [steps], bar)
    return np.maximum(1 - ops.convert_to_numpy(power), 0)
