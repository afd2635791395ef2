from typing import Any

import keras
import numpy as np

from keras_gen.core.checks import check
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.schedules.DiscreteSchedule")
class DiscreteSchedule:
    """A noise schedule of `T` small steps with variances `betas`.

        alpha_t^2 = prod_{i <= t} (1 - beta_i),   sigma_t^2 = 1 - alpha_t^2,   t = 0 .. T - 1

    `t = -1` stands for clean data: alpha = 1, sigma = 0. All values are NumPy float64; layers and samplers cast once.

    To write another schedule: a subclass computes its betas, passes them to `super().__init__`, and returns its own
    arguments from `get_config`.

    Args:
        betas: sequence of `T` floats in (0, 1).

    Attributes:
        num_steps: int, `T`.
        betas: float64 array `(T,)`.
        alphas_cumprod: float64 array `(T,)`, `alpha_t^2`.

    Raises:
        ValueError: if a beta is outside (0, 1), or there is none.

    Reference: Ho et al. 2020, arXiv:2006.11239; https://kexue.fm/archives/9119.
    """

    def __init__(self, betas: Any):
        betas = np.asarray(betas, "float64")
        check(betas.ndim == 1 and betas.size > 0, "betas", "be a non-empty sequence of numbers", betas)
        outside = betas[~((betas > 0) & (betas < 1))]
        check(outside.size == 0, "betas", "be in (0, 1)", outside)
        self._set_alphas(np.sqrt(np.cumprod(1 - betas)))

    def _set_alphas(self, alphas: np.ndarray) -> None:
        # Entry 0 is clean data, so that time -1 is a valid index after the shift by one.
        self._alphas = np.concatenate([[1.0], alphas])
        self.num_steps = len(alphas)
        self.alphas_cumprod = alphas**2
        self.betas = 1 - (self._alphas[1:] / self._alphas[:-1]) ** 2

    def alpha(self, t: Any) -> np.ndarray:
        """Returns the factor of the data at the integer times `t`, in -1 .. T - 1."""
        t = np.asarray(t)
        valid = np.issubdtype(t.dtype, np.integer) and np.all((t >= -1) & (t < self.num_steps))
        check(valid, "t", f"be integers in -1 .. {self.num_steps - 1}", t)
        return self._alphas[t + 1]

    def sigma(self, t: Any) -> np.ndarray:
        """Returns the factor of the noise at the integer times `t`, in -1 .. T - 1."""
        return np.sqrt(1 - self.alpha(t) ** 2)

    def log_snr(self, t: Any) -> np.ndarray:
        """Returns `log(alpha_t^2 / sigma_t^2)`, infinite for clean data."""
        with np.errstate(divide="ignore"):
            return 2 * (np.log(self.alpha(t)) - np.log(self.sigma(t)))

    def get_config(self) -> dict[str, Any]:
        return {"betas": self.betas.tolist()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "DiscreteSchedule":
        return cls(**keras.saving.deserialize_keras_object(config))
