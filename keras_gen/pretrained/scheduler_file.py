"""Scheduler files of diffusers: the classes that can be read, their defaults, and the values that are supported.

A file holds the class's name, `_class_name`, and the arguments of its constructor. What it leaves out has the class's
default, which differs from class to class. Options that a class does not know are ignored, as diffusers does: files
made from those of other classes hold them.
"""

import json
import pathlib
from typing import Any

from keras_gen.core.checks import check, check_flag, check_integer, check_positive
from keras_gen.core.files import reading

MOST_TIMES = 100_000  # of a schedule: a larger number is a slip, and its table would fill the memory

_BETAS = {
    "num_train_timesteps": 1000,
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "prediction_type": "epsilon",
    "steps_offset": 0,
}
_BOUND = {"clip_sample": True, "clip_sample_range": 1.0, "thresholding": False}
_LEVELS = {"use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False}
FLOW_MATCHING = "FlowMatchEulerDiscreteScheduler"
# class -> its options and their defaults
CLASSES: dict[str, dict[str, Any]] = {
    "DDIMScheduler": {
        **_BETAS,
        **_BOUND,
        "timestep_spacing": "leading",
        "set_alpha_to_one": True,
        "rescale_betas_zero_snr": False,
    },
    "PNDMScheduler": {
        **_BETAS,
        "timestep_spacing": "leading",
        "set_alpha_to_one": False,
        "skip_prk_steps": False,
    },
    "DDPMScheduler": {
        **_BETAS,
        **_BOUND,
        "timestep_spacing": "leading",
        "variance_type": "fixed_small",
        "rescale_betas_zero_snr": False,
    },
    "EulerDiscreteScheduler": {
        **_BETAS,
        **_LEVELS,
        "timestep_spacing": "linspace",
        "timestep_type": "discrete",
        "interpolation_type": "linear",
        "final_sigmas_type": "zero",
        "rescale_betas_zero_snr": False,
    },
    "DPMSolverMultistepScheduler": {
        **_BETAS,
        **_LEVELS,
        "timestep_spacing": "linspace",
        "solver_order": 2,
        "algorithm_type": "dpmsolver++",
        "solver_type": "midpoint",
        "final_sigmas_type": "zero",
        "lambda_min_clipped": -float("inf"),
        "variance_type": None,
        "thresholding": False,
        "use_lu_lambdas": False,
        "use_flow_sigmas": False,
        "use_dynamic_shifting": False,
        "rescale_betas_zero_snr": False,
    },
    FLOW_MATCHING: {
        **_LEVELS,
        "num_train_timesteps": 1000,
        "shift": 1.0,
        "use_dynamic_shifting": False,
        "invert_sigmas": False,
        "shift_terminal": None,
        "stochastic_sampling": False,
    },
}
_OFF = (False, None)
# option -> the values that are supported, of all classes
SUPPORTED: dict[str, tuple[Any, ...]] = {
    "beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2"),
    "prediction_type": ("epsilon", "sample", "v_prediction"),
    "timestep_spacing": ("leading", "linspace", "trailing"),
    "thresholding": _OFF,
    "use_karras_sigmas": _OFF,
    "use_exponential_sigmas": _OFF,
    "use_beta_sigmas": _OFF,
    "use_lu_lambdas": _OFF,
    "use_flow_sigmas": _OFF,
    "use_dynamic_shifting": _OFF,
    "invert_sigmas": _OFF,
    "stochastic_sampling": _OFF,
    "shift_terminal": (None,),
    "timestep_type": ("discrete",),
    "interpolation_type": ("linear",),
    "final_sigmas_type": ("zero",),
    "lambda_min_clipped": (-float("inf"), None),
    "solver_order": (1, 2),
    "solver_type": ("midpoint",),
    "algorithm_type": ("dpmsolver++", "sde-dpmsolver++"),
}
# Those of one class alone.
_OF_CLASS: dict[str, dict[str, tuple[Any, ...]]] = {
    "PNDMScheduler": {"skip_prk_steps": (True,), "prediction_type": ("epsilon",)},
    "DDPMScheduler": {"variance_type": ("fixed_small", "fixed_large", "learned_range")},
    "EulerDiscreteScheduler": {"rescale_betas_zero_snr": _OFF},
    "DPMSolverMultistepScheduler": {
        "rescale_betas_zero_snr": _OFF,
        "variance_type": (None,),
    },
}


def scheduler_options(config: Any) -> dict[str, Any]:
    """Returns all options of a scheduler file, its defaults filled in, with the class under `"_class_name"`.

    Args:
        config: a dict, or the path of a `scheduler_config.json`.

    Raises:
        ValueError: if the file cannot be read, the class is unknown, or an option has a value that is not supported.
    """
    config = read_config(config)
    kind = config.get("_class_name")
    rule = f"have a _class_name among {', '.join(CLASSES)}"
    check(isinstance(kind, str) and kind in CLASSES, "config", rule, f"_class_name {kind!r}")
    options = {name: config.get(name, default) for name, default in CLASSES[kind].items()}
    for name, value in options.items():
        _check_option(kind, name, value)
    return {"_class_name": kind, **options}


def read_config(config: Any) -> dict[str, Any]:
    """Returns a configuration that is a dict, or read from the path of a JSON file."""
    if isinstance(config, str | pathlib.Path):
        with reading("config", config, "be a JSON file", ValueError, OSError):
            config = json.loads(pathlib.Path(config).read_text(encoding="utf-8"))
    check(isinstance(config, dict), "config", "be a dict, or the path of a file that holds one", type(config).__name__)
    return config


def _check_option(kind: str, name: str, value: Any) -> None:
    supported = {**SUPPORTED, **_OF_CLASS.get(kind, {})}.get(name)
    if supported is not None:
        is_supported = any(type(value) is type(one) and value == one for one in supported)
        choices = " or ".join(map(repr, supported))
        check(is_supported, name, f"be {choices}, which is what is supported of {kind}", repr(value))
    elif isinstance(CLASSES[kind][name], bool):
        check_flag(name, value)
    elif name in ("num_train_timesteps", "steps_offset"):
        check_integer(name, value, at_least=0 if name == "steps_offset" else 1)
        check(value <= MOST_TIMES, name, f"be at most {MOST_TIMES:,}", value)
    elif name in ("shift", "clip_sample_range", "beta_start", "beta_end"):
        check_positive(name, value)
