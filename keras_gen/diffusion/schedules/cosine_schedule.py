from typing import Any

import numpy as np

from keras_gen.core.checks import check, check_fraction, check_integer, is_number
from keras_gen.diffusion.schedules.discrete_schedule import DiscreteSchedule
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.schedules.CosineSchedule")
class CosineSchedule(DiscreteSchedule):
    """The cosine schedule, which destroys an image more evenly than a linear one.

        f(u) = cos^2((u + offset) / (1 + offset) * pi / 2),   beta_t = min(1 - f((t + 1) / T) / f(t / T), max_beta)

    Args:
        num_steps: int >= 1, `T`. Defaults to `1000`.
        offset: float >= 0, keeps the first betas from vanishing. Defaults to `0.008`.
        max_beta: float in (0, 1), keeps alpha of the last step above 0. Defaults to `0.999`.

    Raises:
        ValueError: if an argument is outside its range.

    Reference: Nichol and Dhariwal 2021, arXiv:2102.09672, equation 17.
    """

    def __init__(self, num_steps: int = 1000, offset: float = 0.008, max_beta: float = 0.999):
        check_integer("num_steps", num_steps)
        check(is_number(offset) and offset >= 0, "offset", "be a number >= 0", repr(offset))
        self.offset = float(offset)
        self.max_beta = check_fraction("max_beta", max_beta)
        u = np.arange(num_steps + 1) / num_steps
        f = np.cos((u + offset) / (1 + offset) * np.pi / 2) ** 2
        super().__init__(np.minimum(1 - f[1:] / f[:-1], max_beta))

    def get_config(self) -> dict[str, Any]:
        return {"num_steps": self.num_steps, "offset": self.offset, "max_beta": self.max_beta}
