from typing import Any

import numpy as np

from keras_gen.core.checks import check_fraction, check_integer
from keras_gen.diffusion.schedules.discrete_schedule import DiscreteSchedule
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.schedules.KexueSchedule")
class KexueSchedule(DiscreteSchedule):
    """The schedule of the kexue.fm posts, which there reads `alpha_t = sqrt(1 - 0.02 t / T)` for `t = 1 .. T`.

        beta_t = beta_end (t + 1) / T,   t = 0 .. T - 1

    The post's `alpha_t` is one step's factor: the `alpha_t` of this library is the product of the first `t + 1`.

    Args:
        num_steps: int >= 1, `T`. Defaults to `1000`.
        beta_end: float in (0, 1). Defaults to `0.02`.

    Raises:
        ValueError: if an argument is outside its range.

    Reference: https://kexue.fm/archives/9119.
    """

    def __init__(self, num_steps: int = 1000, beta_end: float = 0.02):
        check_integer("num_steps", num_steps)
        self.beta_end = check_fraction("beta_end", beta_end)
        super().__init__(beta_end * np.arange(1, num_steps + 1) / num_steps)

    def get_config(self) -> dict[str, Any]:
        return {"num_steps": self.num_steps, "beta_end": self.beta_end}
