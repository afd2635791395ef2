from typing import Any

import numpy as np

from keras_gen.core.checks import check_fraction, check_integer
from keras_gen.diffusion.schedules.discrete_schedule import DiscreteSchedule
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.schedules.LinearSchedule")
class LinearSchedule(DiscreteSchedule):
    """Variances that grow in a straight line, `beta_t = beta_start + (beta_end - beta_start) t / (T - 1)`.

    The default range belongs to 1000 steps. With fewer, raise it in proportion, or the last image keeps some data.

    Args:
        num_steps: int >= 1, `T`. Defaults to `1000`.
        beta_start: float in (0, 1). Defaults to `1e-4`.
        beta_end: float in (0, 1). Defaults to `0.02`.

    Raises:
        ValueError: if an argument is outside its range.

    Reference: Ho et al. 2020, arXiv:2006.11239, section 4.
    """

    def __init__(self, num_steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02):
        check_integer("num_steps", num_steps)
        self.beta_start = check_fraction("beta_start", beta_start)
        self.beta_end = check_fraction("beta_end", beta_end)
        super().__init__(np.linspace(beta_start, beta_end, num_steps))

    def get_config(self) -> dict[str, Any]:
        return {"num_steps": self.num_steps, "beta_start": self.beta_start, "beta_end": self.beta_end}
