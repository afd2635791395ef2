from typing import Any

import keras

from keras_gen.core.checks import check
from keras_gen.diffusion.schedules.discrete_schedule import DiscreteSchedule
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.schedules.ZeroTerminalSNR")
class ZeroTerminalSNR(DiscreteSchedule):
    """Stretches a schedule so that its last step is pure noise, as sampling assumes it to be.

        alpha'_t = (alpha_t - alpha_{T-1}) alpha_0 / (alpha_0 - alpha_{T-1})

    At the last step the data cannot be computed from the noise: use it with `prediction="v"` or `"x0"`, and sample
    with `spacing="trailing"`.

    Args:
        schedule: a `DiscreteSchedule` of at least two steps.

    Raises:
        ValueError: if `schedule` is not such a schedule.

    Reference: Lin et al. 2023, arXiv:2305.08891, algorithm 1.
    """

    def __init__(self, schedule: DiscreteSchedule):
        valid = isinstance(schedule, DiscreteSchedule) and schedule.num_steps > 1
        check(valid, "schedule", "be a DiscreteSchedule of at least two steps", schedule)
        self.schedule = schedule
        alphas = schedule.alpha(range(schedule.num_steps))
        self._set_alphas((alphas - alphas[-1]) * alphas[0] / (alphas[0] - alphas[-1]))

    def get_config(self) -> dict[str, Any]:
        return {"schedule": keras.saving.serialize_keras_object(self.schedule)}
