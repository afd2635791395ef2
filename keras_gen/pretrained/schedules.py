"""The noise schedule and the prediction of a diffusers scheduler file."""

from typing import Any

from keras_gen.diffusion.prediction import Prediction, short_form
from keras_gen.diffusion.schedules.base import NoiseSchedule
from keras_gen.diffusion.schedules.continuous import RectifiedFlowSchedule
from keras_gen.diffusion.schedules.discrete import (
    CosineSchedule,
    DiscreteSchedule,
    LinearSchedule,
    ScaledLinearSchedule,
)
from keras_gen.diffusion.schedules.modifiers import Shifted, ZeroTerminalSNR
from keras_gen.export import keras_gen_export
from keras_gen.pretrained.scheduler_file import FLOW_MATCHING, scheduler_options

PREDICTIONS = {"epsilon": "epsilon", "sample": "x0", "v_prediction": "v"}


@keras_gen_export("keras_gen.schedules.from_diffusers")
def from_diffusers(config: Any) -> NoiseSchedule:
    """Reads the noise schedule of a diffusers scheduler file.

    The classes are those of `samplers.from_diffusers`, which reads the times and the rule of a step from the same file.

    Args:
        config: a dict, or the path of a `scheduler_config.json`.

    Returns:
        A `DiscreteSchedule`; for `FlowMatchEulerDiscreteScheduler` a `RectifiedFlowSchedule`, `Shifted` by the file's
        shift.

    Raises:
        ValueError: if the file cannot be read, or holds a class or a value that is not supported.

    Example:

    >>> schedule = keras_gen.schedules.from_diffusers("pipeline/scheduler/scheduler_config.json")
    >>> model = keras_gen.models.DDPM(network, schedule)

    Reference: https://github.com/huggingface/diffusers, whose files these are.
    """
    options = scheduler_options(config)
    if options["_class_name"] == FLOW_MATCHING:
        flow, shift = RectifiedFlowSchedule(), options["shift"]
        return flow if shift == 1 else Shifted(flow, shift)
    schedule = _of_betas(options)
    return ZeroTerminalSNR(schedule) if options.get("rescale_betas_zero_snr") else schedule


def prediction_of(options: dict[str, Any]) -> str:
    """Returns the short form of the prediction that the options of a scheduler file tell."""
    if options["_class_name"] == FLOW_MATCHING:
        return "velocity"
    return PREDICTIONS[options["prediction_type"]]


def config_of(schedule: NoiseSchedule, prediction: Prediction) -> dict[str, Any]:
    """Returns a scheduler file for a schedule and a prediction: a DDIM scheduler, or one of flow matching.

    Raises:
        ValueError: if diffusers has no such schedule or prediction.
    """
    short = short_form(prediction)
    flow = schedule.schedule if isinstance(schedule, Shifted) else schedule
    if isinstance(flow, RectifiedFlowSchedule) and short == "velocity":
        return {"_class_name": FLOW_MATCHING, "shift": getattr(schedule, "shift", 1.0)}
    names = {ours: theirs for theirs, ours in PREDICTIONS.items()}
    rule = f"be a RectifiedFlowSchedule of a velocity, or a DiscreteSchedule of {' or '.join(map(repr, names))}"
    if not isinstance(schedule, DiscreteSchedule) or short not in names:
        raise ValueError(f"`schedule` must {rule}. Received: schedule={schedule!r} of {short!r}")
    return {
        "_class_name": "DDIMScheduler",
        **_betas_of(getattr(schedule, "schedule", schedule)),
        "num_train_timesteps": schedule.num_steps,
        "prediction_type": names[short],
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
        "rescale_betas_zero_snr": isinstance(schedule, ZeroTerminalSNR),
    }


def _betas_of(schedule: DiscreteSchedule) -> dict[str, Any]:
    for name, cls in (("linear", LinearSchedule), ("scaled_linear", ScaledLinearSchedule)):
        if type(schedule) is cls:
            return {"beta_schedule": name, "beta_start": schedule.beta_start, "beta_end": schedule.beta_end}
    return {"trained_betas": schedule.betas.tolist()}


def _of_betas(options: dict[str, Any]) -> DiscreteSchedule:
    if options["trained_betas"] is not None:
        return DiscreteSchedule(options["trained_betas"])
    steps, name = options["num_train_timesteps"], options["beta_schedule"]
    if name == "squaredcos_cap_v2":
        return CosineSchedule(steps)
    make = LinearSchedule if name == "linear" else ScaledLinearSchedule
    return make(steps, options["beta_start"], options["beta_end"])
