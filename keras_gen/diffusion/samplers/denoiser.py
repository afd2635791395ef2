"""What a sampler is given: the network's x0, guided and bounded as the user wants."""

from collections.abc import Callable
from typing import Any

from keras import ops

from keras_gen.diffusion.samplers.guidance import Guidance
from keras_gen.diffusion.samplers.threshold import DynamicThreshold


class Denoiser:
    """Evaluates a model for a sampler: `x0, share = denoise(x_t, row)`.

    `row` holds what the model's `coefficients` say of one time, and perhaps more. `share` is the model's share of the
    large variance, see `DDPMSampler`.

    Args:
        model: a `DiffusionModel`.
        condition: tensor `(batch, ...)` or `None`.
        guidance: a `Guidance` or `None`.
        clip_x0: float > 0, a `DynamicThreshold` or `None`: how x0 is bounded.
        constrain: function of x0, applied last, or `None`.
    """

    def __init__(
        self,
        model: Any,
        condition: Any = None,
        guidance: Guidance | None = None,
        clip_x0: Any = None,
        constrain: Callable[[Any], Any] | None = None,
    ):
        self.model, self.condition, self.guidance = model, condition, guidance
        self.clip_x0, self.constrain = clip_x0, constrain

    def __call__(self, x_t: Any, row: dict[str, Any]) -> tuple[Any, Any]:
        evaluate = self.model.denoise if self.guidance is None else self.guidance.bind(self.model)
        x0, share = evaluate(x_t, row, self.condition)
        if isinstance(self.clip_x0, DynamicThreshold):
            x0 = self.clip_x0(x0)
        elif self.clip_x0 is not None:
            x0 = ops.clip(x0, -self.clip_x0, self.clip_x0)
        if self.constrain is not None:
            x0 = self.constrain(x0)
        return x0, share

    def velocity(self, x_t: Any, t: Any) -> Any:
        """Returns dx / dt of the probability-flow ODE, at any time of a continuous schedule."""
        row = self.model.coefficients(t)
        x0, _ = self(x_t, row)
        return row["d_alpha"] * x0 + row["d_sigma"] * epsilon_of(x_t, x0, row)


def epsilon_of(x_t: Any, x0: Any, row: dict[str, Any]) -> Any:
    """Returns the noise in `x_t = alpha x0 + sigma eps`."""
    return (x_t - row["alpha"] * x0) / row["sigma"]
