"""The variational bound of a diffusion model, term by term."""

import functools
import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.batches import even_batches
from keras_gen.core.checks import check, check_integer
from keras_gen.core.compiled import as_tensor
from keras_gen.core.loop import progress_bar, run_in_parts, sequential_loop
from keras_gen.core.random import StepSeed, step_seeds
from keras_gen.diffusion.models.discretized_gaussian_nll import discretized_gaussian_nll
from keras_gen.diffusion.models.network_interface import prepare_condition
from keras_gen.diffusion.samplers.ddpm import DDPMSampler
from keras_gen.diffusion.samplers.denoiser import Denoiser
from keras_gen.diffusion.samplers.reverse_process import complete_rows
from keras_gen.diffusion.schedules.discrete_schedule import DiscreteSchedule
from keras_gen.diffusion.schedules.posterior import log_variance
from keras_gen.latent.gaussian_kl import gaussian_kl


def bound_term(x0: Any, x0_hat: Any, w: Any, row: dict[str, Any], levels: int = 256) -> Any:
    """Returns one term of the bound in bits/dim: `KL(q(x_s | x_t, x0) || p(x_s | x_t))`, or `-log p(x0 | x_0)`.

    Args:
        x0: float32 tensor `(batch, ...)`, the data.
        x0_hat: tensor like `x0`, the network's prediction of it.
        w: share of the large variance, a number or a tensor like `x0`.
        row: coefficients from `reverse_rows`, that broadcast to `x0`. Where its `noise` is 0, s is clean data.
        levels: int, number of distinct pixel values.

    Returns:
        float32 tensor `(batch,)`.

    Reference: Ho et al. 2020, arXiv:2006.11239, equation 5; Nichol and Dhariwal 2021, arXiv:2102.09672.
    """
    log_var = log_variance(w, row)
    divergence = gaussian_kl(row["x0"] * (x0 - x0_hat), row["log_small"], log_var)
    nll = discretized_gaussian_nll(x0, x0_hat, log_var, levels)
    nats = ops.where(row["noise"] > 0, divergence, nll)
    return ops.mean(nats, axis=tuple(range(1, len(x0.shape)))) / math.log(2)


def prior_term(x0: np.ndarray, schedule: DiscreteSchedule) -> np.ndarray:
    """Returns `KL(q(x_{T-1} | x0) || N(0, I))` in bits/dim, for NumPy data `(n, ...)`, as `(n,)`."""
    variance = schedule.sigma(schedule.num_steps - 1) ** 2
    mean = schedule.alpha(schedule.num_steps - 1) * x0.astype("float64")
    nats = 0.5 * (variance - 1 - np.log(variance) + mean**2)
    return nats.mean(axis=tuple(range(1, x0.ndim))) / np.log(2)


def variational_bound(
    model: Any,
    x: np.ndarray,
    *,
    condition: Any,
    levels: int,
    clip_x0: float | None,
    seed: int,
    batch_size: int,
    verbose: str | int,
) -> np.ndarray:
    """Sums all terms for each image, each at one draw of noise; see `DDPM.elbo`."""
    check_integer("levels", levels, at_least=2)
    check_integer("batch_size", batch_size)
    check(np.abs(x).max() <= 1, "x", "have pixel values in [-1, 1]", f"values up to {np.abs(x).max()}")
    clip_x0 = DDPMSampler(clip_x0=clip_x0).clip_x0
    condition = prepare_condition(model.network, condition, len(x))

    def loop(seeds: Any, tables: Any, labels: Any, x0: Any, total: Any, start: Any, stop: Any) -> Any:
        denoise = Denoiser(model, labels, clip_x0=clip_x0)

        def body(t: Any, total: Any) -> Any:
            row = {name: table[t] for name, table in tables.items()}
            eps = keras.random.normal(ops.shape(x0), dtype="float32", seed=StepSeed(seeds[t]))
            x0_hat, w = denoise(row["alpha"] * x0 + row["sigma"] * eps, row)
            return total + bound_term(x0, x0_hat, w, row, levels)

        return sequential_loop(start, stop, body, total)

    steps = model.schedule.num_steps
    tables = complete_rows(model, {**model.tables, "t": np.arange(steps)})
    batches = list(even_batches(len(x), batch_size))
    program = model.program(("bound", levels, clip_x0, len(batches[0]), x.shape[1:]), loop)
    bar = progress_bar(len(batches) * steps, verbose)
    terms = np.empty(len(x), "float32")
    for number, index in enumerate(batches):
        seeds = as_tensor(step_seeds(steps, seed, number, model.seed_generator.state.dtype))
        labels = None if condition is None else as_tensor(condition[index])
        run = functools.partial(program, seeds, tables, labels, as_tensor(x[index]))
        for _, total in run_in_parts(run, ops.zeros((len(index),), "float32"), steps, [steps], bar):
            terms[index] = ops.convert_to_numpy(total)
    return terms + prior_term(x, model.schedule).astype("float32")
