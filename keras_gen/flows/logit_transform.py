import math
from typing import Any

from keras import ops

from keras_gen.core.checks import check, is_number
from keras_gen.core.clip import clip
from keras_gen.core.per_sample import per_sample
from keras_gen.export import keras_gen_export
from keras_gen.flows.bijector import Bijector


@keras_gen_export("keras_gen.layers.LogitTransform")
class LogitTransform(Bijector):
    """Takes numbers in [0, 1] to the real line.

        p = alpha + (1 - 2 alpha) x,   y = log p - log(1 - p)
        log_det = sum [softplus(y) + softplus(-y) + log(1 - 2 alpha)]

    Outside of [0, 1] there is no density: there `log_det` is minus infinity. With `alpha=0`, uniform data become
    standard logistic.

    Args:
        alpha: float in [0, 0.5). Keeps the ends of [0, 1] away from infinity. Defaults to `0.05`.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        x: `(batch, ...)`, in [0, 1].
        condition: is ignored. Defaults to `None`.
        inverse: bool. Defaults to `False`.
        training: bool. Defaults to `False`.

    Returns:
        y: a float32 tensor like `x`.
        log_det: float32 `(batch,)`.

    Raises:
        ValueError: if `alpha` is out of range.

    Example:

    >>> y, log_det = keras_gen.layers.LogitTransform()(x)

    Reference: Dinh et al. 2016, arXiv:1605.08803, section 4.1.
    """

    def __init__(self, alpha: float = 0.05, **kwargs: Any):
        super().__init__(**kwargs)
        check(is_number(alpha) and 0 <= alpha < 0.5, "alpha", "be in [0, 0.5)", repr(alpha))
        self.alpha = float(alpha)

    def forward_and_log_det(self, x: Any, condition: Any = None, training: bool = False) -> tuple[Any, Any]:
        smallest = 1e-15 if self.bijection_dtype == "float64" else 1e-7
        p = clip(self.alpha + (1 - 2 * self.alpha) * x, smallest, 1 - smallest)
        y = ops.log(p) - ops.log1p(-p)
        within = (x >= 0) & (x <= 1)
        return y, per_sample(ops.where(within, self._log_derivative(y), -float("inf")))

    def inverse_and_log_det(self, y: Any, condition: Any = None, training: bool = False) -> tuple[Any, Any]:
        x = (ops.sigmoid(y) - self.alpha) / (1 - 2 * self.alpha)
        return x, -per_sample(self._log_derivative(y))

    def _log_derivative(self, y: Any) -> Any:
        return ops.softplus(y) + ops.softplus(-y) + math.log(1 - 2 * self.alpha)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "alpha": self.alpha}
