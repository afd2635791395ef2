"""Likelihoods of diffusion models: the variational bound, the density of the probability-flow ODE, and Gamma_t."""

import functools
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.arrays import mean_per_sample, mean_square, sum_per_sample
from keras_gen.core.calculus.divergence import exact_divergence, hutchinson_divergence, random_signs
from keras_gen.core.calculus.ode import dormand_prince
from keras_gen.core.checks import check, check_broadcast, check_choice, check_finite, check_integer, check_positive
from keras_gen.core.compiled import sequential_loop
from keras_gen.core.random import StepSeed
from keras_gen.diffusion.samplers.base import Denoiser, coefficient_table, epsilon_of, row_of
from keras_gen.diffusion.samplers.ddpm import DDPMSampler
from keras_gen.diffusion.schedules.discrete import DiscreteSchedule
from keras_gen.diffusion.schedules.posterior import log_variance
from keras_gen.export import keras_gen_export
from keras_gen.latent.divergences import gaussian_kl


@keras_gen_export("keras_gen.losses.discretized_gaussian_nll")
def discretized_gaussian_nll(x: Any, mean: Any, log_var: Any, levels: int = 256) -> Any:
    """Computes the negative log-probability of the bin around `x` under a Gaussian, in nats.

        -log P(x - h < X < x + h),   X ~ N(mean, exp(log_var)),   h = 1 / (levels - 1)

    The bins of the `levels` pixel values cover [-1, 1]; the first and last one extend to infinity.

    Args:
        x: float tensor of pixel values in [-1, 1].
        mean: tensor that broadcasts to `x`.
        log_var: tensor that broadcasts to `x`, or a number.
        levels: int >= 2, number of distinct pixel values. Defaults to `256`.

    Returns:
        float32 tensor of the shape of `x`.

    Raises:
        ValueError: if `levels` is not an integer >= 2, an array is not of finite real numbers, or shapes do not match.

    Reference: Ho et al. 2020, arXiv:2006.11239, equation 13.
    """
    check_integer("levels", levels, at_least=2)
    for name, value in {"x": x, "mean": mean, "log_var": log_var}.items():
        check_finite(name, value)
    x, mean, log_var = (ops.cast(value, "float32") for value in (x, mean, log_var))
    check_broadcast("mean", mean, x.shape)
    check_broadcast("log_var", log_var, x.shape)
    h = 1 / (levels - 1)
    scale = ops.exp(-0.5 * log_var)
    offset = x - mean
    # Both ends of the bin are computed in the lower tail, where erfc keeps its relative precision.
    inner = _cdf((h - ops.abs(offset)) * scale) - _cdf((-h - ops.abs(offset)) * scale)
    first, last = _cdf((offset + h) * scale), _cdf((h - offset) * scale)
    probability = ops.where(x < -1 + h, first, ops.where(x > 1 - h, last, inner))
    return -ops.log(ops.maximum(probability, 1e-30))


def _cdf(x: Any) -> Any:
    return 0.5 * ops.erfc(-x / math.sqrt(2))


def bound_term(x0: Any, x0_hat: Any, variance_weight: Any, row: dict[str, Any], levels: int = 256) -> Any:
    """Returns one term of the bound in bits/dim: `KL(q(x_s | x_t, x0) || p(x_s | x_t))`, or `-log p(x0 | x_0)`.

    Args:
        x0: float32 tensor `(batch, ...)`, the data.
        x0_hat: tensor like `x0`, the predicted data.
        variance_weight: weight of the large log-variance, a number or a tensor like `x0`.
        row: coefficients from `reverse_rows` that broadcast to `x0`. Where `is_stochastic` is 0, s is clean data.
        levels: int, number of distinct pixel values.

    Returns:
        float32 tensor `(batch,)`.

    Reference: Ho et al. 2020, arXiv:2006.11239, equation 5; Nichol and Dhariwal 2021, arXiv:2102.09672.
    """
    log_var = log_variance(variance_weight, row)
    divergence = gaussian_kl(row["of_x0"] * (x0 - x0_hat), row["log_small"], log_var)
    nll = discretized_gaussian_nll(x0, x0_hat, log_var, levels)
    nats = ops.where(row["is_stochastic"] > 0, divergence, nll)
    return mean_per_sample(nats) / math.log(2)


def prior_term(x0: np.ndarray, schedule: DiscreteSchedule) -> np.ndarray:
    """Returns `KL(q(x_{T-1} | x0) || N(0, I))` in bits/dim, for NumPy data `(n, ...)`, as `(n,)`."""
    variance = schedule.sigma(schedule.num_steps - 1) ** 2
    mean = schedule.alpha(schedule.num_steps - 1) * x0.astype("float64")
    nats = 0.5 * (variance - 1 - np.log(variance) + mean**2)
    return nats.mean(axis=tuple(range(1, x0.ndim))) / np.log(2)


def check_pixels(x: np.ndarray, levels: int) -> None:
    """Checks that images have values in [-1, 1], and that `levels`, the number of these values, is at least 2."""
    check_integer("levels", levels, at_least=2)
    largest = np.abs(x).max()
    check(largest <= 1, "x", "have pixel values in [-1, 1]", f"values up to {largest}")


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
    """Sums all terms for each image, each with one noise draw; see `DDPM.elbo`."""
    check_pixels(x, levels)
    bound = DDPMSampler(clip_x0=clip_x0).clip_x0
    condition = model.prepare_condition(condition, len(x))

    def loop(inputs: dict[str, Any], total: Any, first: Any, last: Any) -> Any:
        x0, denoise = inputs["x0"], Denoiser(model, inputs.get("condition"), clip_x0=bound)

        def body(t: Any, total: Any) -> Any:
            row = row_of(inputs["rows"], t)
            eps = keras.random.normal(ops.shape(x0), dtype="float32", seed=StepSeed(inputs["seeds"][t, 0]))
            x0_hat, variance_weight = denoise(row["alpha"] * x0 + row["sigma"] * eps, row)
            return total + bound_term(x0, x0_hat, variance_weight, row, levels)

        return sequential_loop(first, last, body, total)

    steps, terms = model.schedule.num_steps, np.empty(len(x), "float32")
    totals = model.run_steps(
        ("bound", levels, bound),
        loop,
        {"x0": x, "condition": condition},
        lambda inputs: ops.zeros((inputs["x0"].shape[0],), "float32"),
        steps=steps,
        batch_size=batch_size,
        verbose=verbose,
        shared={"rows": coefficient_table(model, {**model.tables, "t": np.arange(steps)})},
        seed=seed,
    )
    for index, _, total in totals:
        terms[index] = total
    return terms + prior_term(x, model.schedule).astype("float32")


def noise_power(
    model: Any,
    times: np.ndarray,
    x: np.ndarray,
    condition: Any,
    seed: int,
    batch_size: int,
    verbose: str | int,
) -> np.ndarray:
    """Estimates Gamma_t = `1 - E |eps - eps_hat(x_t)|^2 / dimensions` at the `times` by Monte Carlo, float32 >= 0."""

    def loop(inputs: dict[str, Any], power: Any, first: Any, last: Any) -> Any:
        x0 = inputs["x0"]

        def body(i: Any, power: Any) -> Any:
            row = row_of(inputs["rows"], i)
            eps = keras.random.normal(ops.shape(x0), dtype="float32", seed=StepSeed(inputs["seeds"][i, 0]))
            x_t = row["alpha"] * x0 + row["sigma"] * eps
            x0_hat, _ = model.denoise(x_t, row, inputs.get("condition"))
            error = mean_square(eps - epsilon_of(x_t, x0_hat, row))
            return ops.where(ops.arange(len(times), dtype="int32") == i, ops.expand_dims(error, 1), power)

        return sequential_loop(first, last, body, power)

    errors = np.empty((len(x), len(times)), "float32")
    states = model.run_steps(
        "noise_power",
        loop,
        {"x0": x, "condition": condition},
        lambda inputs: ops.zeros((inputs["x0"].shape[0], len(times)), "float32"),
        steps=len(times),
        batch_size=batch_size,
        verbose=verbose,
        shared={"rows": coefficient_table(model, {"t": times})},
        seed=seed,
    )
    for index, _, state in states:
        errors[index] = state
    return np.maximum(1 - errors.mean(axis=0), 0)


def flow_log_prob(
    model: Any,
    x: np.ndarray,
    condition: Any,
    trace: str,
    tolerance: float,
    seed: int,
    batch_size: int,
    verbose: str | int,
) -> np.ndarray:
    """Integrates velocity and divergence from the clean end to `t_max`; see `ScoreSDE.log_prob`."""
    check_choice("trace", trace, ("exact", "hutchinson"))
    tolerance = check_positive("tolerance", tolerance)
    arrays = [x] if condition is None else [x, condition]
    name, function = ("log_prob", trace, tolerance), flow_log_density(model, trace, tolerance)
    return model.in_batches(name, function, *arrays, batch_size=batch_size, verbose=verbose, seed=seed)


def flow_log_density(model: Any, trace: str = "exact", tolerance: float = 1e-5) -> Callable[..., Any]:
    """Returns the log-density `(batch,)` as a function of tensors, data and condition; see `ScoreSDE.log_prob`."""
    schedule = model.schedule
    std = float(schedule.sigma(schedule.t_max))

    def log_prob(x: Any, condition: Any = None) -> Any:
        divergence = exact_divergence
        if trace == "hutchinson":
            signs = random_signs(x, model.seed_generator)
            divergence = functools.partial(_hutchinson, signs)

        def f(t: Any, state: Any) -> Any:
            return divergence(functools.partial(_velocity, model, t), state[0], condition)

        x_T, log_det = dormand_prince(f, (x, 0 * sum_per_sample(x)), schedule.t_start, schedule.t_max, tolerance)
        num_dims = math.prod(x.shape[1:])
        squares = sum_per_sample(ops.square(x_T / std))
        return log_det - 0.5 * squares - num_dims * (0.5 * math.log(2 * math.pi) + math.log(std))

    return log_prob


def _velocity(model: Any, t: Any, x: Any, condition: Any) -> Any:
    return Denoiser(model, condition).velocity(x, t)


def _hutchinson(signs: Any, f: Any, x: Any, *extras: Any) -> Any:
    return hutchinson_divergence(f, x, signs, *extras)
