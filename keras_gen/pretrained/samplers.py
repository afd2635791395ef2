"""The sampler of a diffusers scheduler file: the rule of a step, and the times that it visits."""

from typing import Any

import numpy as np

from keras_gen.core.checks import check, check_integer
from keras_gen.diffusion.samplers.base import DiffusionSampler
from keras_gen.diffusion.samplers.ddim import ClippedDDIMSampler, DDIMSampler
from keras_gen.diffusion.samplers.ddpm import DDPMSampler
from keras_gen.diffusion.samplers.dpm_solver_pp import DPMSolverPPSampler
from keras_gen.diffusion.samplers.euler import EulerSampler, UnscaledEulerSampler
from keras_gen.diffusion.samplers.pndm import PLMSSampler
from keras_gen.export import keras_gen_export
from keras_gen.pretrained.scheduler_file import FLOW_MATCHING, scheduler_options

STEPS, FLOW_STEPS = 50, 28


@keras_gen_export("keras_gen.samplers.from_diffusers")
def from_diffusers(config: Any, steps: int | None = None) -> DiffusionSampler:
    """Reads the sampler of a diffusers scheduler file, with the times that diffusers visits.

        DDIMScheduler                    DDIMSampler, or ClippedDDIMSampler where clip_sample is true or left out
        PNDMScheduler                    PLMSSampler; skip_prk_steps must be true
        DDPMScheduler                    DDPMSampler; the variance is the model's
        EulerDiscreteScheduler           EulerSampler, or UnscaledEulerSampler where the spacing is not "leading"
        DPMSolverMultistepScheduler      DPMSolverPPSampler of order 1 or 2, as ODE or SDE
        FlowMatchEulerDiscreteScheduler  EulerSampler on a Shifted schedule, whose grid ends at k t / (1 + (k - 1) t) of
                                         t = 1 / 1000, and is then shifted once more

    Two things differ from diffusers. Its DDIM, PNDM and DDPM schedulers step from t to t - T // N even where the grid
    visits another time next, for "linspace" and if N does not divide T for "trailing" (diffusers issue 12633): here
    each step ends where the next one begins. Its Euler scheduler visits times between the schedule's for "linspace":
    here they are rounded.

    Args:
        config: a dict, or the path of a `scheduler_config.json`.
        steps: int >= 1, number of steps, `N`. Defaults to `None`, which is 50, or 28 for flow matching.

    Returns:
        The `DiffusionSampler`, with explicit `times`.

    Raises:
        ValueError: if the file cannot be read, or holds a class or a value that is not supported, or `steps` is not an
            integer from 1 to the number of times.

    Example:

    >>> sampler = keras_gen.samplers.from_diffusers("pipeline/scheduler/scheduler_config.json", steps=20)
    >>> model.sample(16, sampler)

    Reference: the formulas are those of the samplers; the spacings those of Lin et al. 2023, arXiv:2305.08891, table 2.
    """
    options = scheduler_options(config)
    kind = options["_class_name"]
    steps = check_integer("steps", (FLOW_STEPS if kind == FLOW_MATCHING else STEPS) if steps is None else steps)
    total = options["num_train_timesteps"]
    check(steps <= total, "steps", f"be at most the file's number of times, {total}", steps)
    return _MAKERS[kind](options, steps)


def _ddim(options: dict[str, Any], steps: int) -> DiffusionSampler:
    times = _with_last(_grid(options, steps), -1 if options["set_alpha_to_one"] else 0)
    if options["clip_sample"]:
        rule = "be true where clip_sample is, and the last time is 0"
        check(options["set_alpha_to_one"] or len(times) > steps, "set_alpha_to_one", rule, False)
        return ClippedDDIMSampler(clip_x0=options["clip_sample_range"], times=times)
    return DDIMSampler(times=times)


def _pndm(options: dict[str, Any], steps: int) -> DiffusionSampler:
    return PLMSSampler(times=_with_last(_grid(options, steps), -1 if options["set_alpha_to_one"] else 0))


def _ddpm(options: dict[str, Any], steps: int) -> DiffusionSampler:
    bound = options["clip_sample_range"] if options["clip_sample"] else None
    return DDPMSampler(clip_x0=bound, times=_with_last(_grid(options, steps), -1))


def _euler(options: dict[str, Any], steps: int) -> DiffusionSampler:
    times = _with_last(_grid(options, steps), -1)
    return (EulerSampler if options["timestep_spacing"] == "leading" else UnscaledEulerSampler)(times=times)


def _dpm_solver(options: dict[str, Any], steps: int) -> DiffusionSampler:
    # "leading" and "linspace" are grids of one time more, of which the cleanest is left out.
    is_trailing = options["timestep_spacing"] == "trailing"
    times = _grid(options, steps) if is_trailing else _grid(options, steps + 1)[:-1]
    sde = options["algorithm_type"].startswith("sde")
    return DPMSolverPPSampler(order=options["solver_order"], sde=sde, times=_with_last(times, -1))


def _flow_matching(options: dict[str, Any], steps: int) -> DiffusionSampler:
    shift, first = options["shift"], 1 / options["num_train_timesteps"]
    last = shift * first / (1 + (shift - 1) * first)
    return EulerSampler(times=[*np.linspace(1, last, steps), 0.0])


_MAKERS = {
    "DDIMScheduler": _ddim,
    "PNDMScheduler": _pndm,
    "DDPMScheduler": _ddpm,
    "EulerDiscreteScheduler": _euler,
    "DPMSolverMultistepScheduler": _dpm_solver,
    FLOW_MATCHING: _flow_matching,
}


def _grid(options: dict[str, Any], steps: int) -> np.ndarray:
    """Returns the decreasing times of the network's evaluations."""
    total, spacing = options["num_train_timesteps"], options["timestep_spacing"]
    if spacing == "linspace":
        times = np.linspace(total - 1, 0, steps)
    elif spacing == "trailing":
        times = total - np.arange(steps) * (total / steps) - 1
    else:
        offset = options["steps_offset"]
        times = np.arange(steps)[::-1] * (total // steps) + offset
        check(times[0] < total, "steps_offset", f"leave {steps} times below {total}", offset)
    return np.round(times).astype(int)


def _with_last(times: np.ndarray, last: int) -> list[int]:
    """Appends the time of the end, unless the grid ends there: a step of no length changes nothing."""
    return times.tolist() if times[-1] == last else [*times.tolist(), last]
