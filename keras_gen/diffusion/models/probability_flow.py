"""The density that the probability-flow ODE gives to data."""

import functools
import math
from typing import Any

import numpy as np
from keras import ops

from keras_gen.core.checks import check, check_choice, is_number
from keras_gen.core.divergence import exact_divergence, hutchinson_divergence, random_signs
from keras_gen.core.ode import dormand_prince
from keras_gen.core.per_sample import per_sample
from keras_gen.diffusion.samplers.denoiser import Denoiser


def flow_log_prob(
    model: Any,
    x: np.ndarray,
    condition: np.ndarray | None,
    trace: str,
    tolerance: float,
    seed: int,
    batch_size: int,
    verbose: str | int,
) -> np.ndarray:
    """Integrates velocity and divergence from the clean end to `t_max`; see `ScoreSDE.log_prob`."""
    check_choice("trace", trace, ("exact", "hutchinson"))
    check(is_number(tolerance) and tolerance > 0, "tolerance", "be > 0", repr(tolerance))
    schedule = model.schedule
    deviation = float(schedule.sigma(schedule.t_max))

    def log_prob(x: Any, *conditions: Any) -> Any:
        divergence = exact_divergence
        if trace == "hutchinson":
            signs = random_signs(x, model.seed_generator)
            divergence = functools.partial(_hutchinson, signs)

        def f(t: Any, state: Any) -> Any:
            return divergence(functools.partial(_velocity, model, t), state[0], *conditions)

        x_T, log_det = dormand_prince(f, (x, 0 * per_sample(x)), schedule.t_start, schedule.t_max, tolerance)
        numbers = math.prod(x.shape[1:])
        squares = per_sample(ops.square(x_T / deviation))
        return log_det - 0.5 * squares - numbers * (0.5 * math.log(2 * math.pi) + math.log(deviation))

    arrays = [x] if condition is None else [x, condition]
    name = ("log_prob", trace, tolerance)
    return model.in_batches(name, log_prob, *arrays, batch_size=batch_size, verbose=verbose, seed=seed)


def _velocity(model: Any, t: Any, x: Any, condition: Any = None) -> Any:
    return Denoiser(model, condition).velocity(x, t)


def _hutchinson(signs: Any, f: Any, x: Any, *extras: Any) -> Any:
    return hutchinson_divergence(f, x, signs, *extras)
