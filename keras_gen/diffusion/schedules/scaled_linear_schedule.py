from typing import Any

import numpy as np

from keras_gen.core.checks import check_fraction, check_integer
from keras_gen.diffusion.schedules.discrete_schedule import DiscreteSchedule
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.schedules.ScaledLinearSchedule")
class ScaledLinearSchedule(DiscreteSchedule):
    """Variances whose roots grow in a straight line from `sqrt(beta_start)` to `sqrt(beta_end)`.

    Used by latent diffusion. With its defaults the noisiest image still holds data: alpha = 0.068 at the last step.

    Args:
        num_steps: int >= 1, `T`. Defaults to `1000`.
        beta_start: float in (0, 1). Defaults to `0.00085`.
        beta_end: float in (0, 1). Defaults to `0.012`.

    Raises:
        ValueError: if an argument is outside its range.

    Reference: Rombach et al. 2021, arXiv:2112.10752.
    """

    def __init__(self, num_steps: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012):
        check_integer("num_steps", num_steps)
        self.beta_start = check_fraction("beta_start", beta_start)
        self.beta_end = check_fraction("beta_end", beta_end)
        super().__init__(np.linspace(beta_start**0.5, beta_end**0.5, num_steps) ** 2)

    def get_config(self) -> dict[str, Any]:
        return {"num_steps": self.num_steps, "beta_start": self.beta_start, "beta_end": self.beta_end}
