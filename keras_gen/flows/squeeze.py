from typing import Any

from keras import ops

from keras_gen.core.checks import check, check_integer
from keras_gen.core.per_sample import for_each_sample
from keras_gen.export import keras_gen_export
from keras_gen.flows.bijector import Bijector


@keras_gen_export("keras_gen.layers.Squeeze")
class Squeeze(Bijector):
    """Turns each square of an image into channels: `(h, w, c)` becomes `(h / f, w / f, f f c)`.

        y[i, j, (a f + b) c + k] = x[i f + a, j f + b, k],   log_det = 0

    Args:
        factor: int >= 2, the side f of a square. Defaults to `2`.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        x: `(batch, height, width, channels)`.
        condition: is ignored. Defaults to `None`.
        inverse: bool. Defaults to `False`.
        training: bool. Defaults to `False`.

    Returns:
        y: float32 `(batch, height / factor, width / factor, factor^2 channels)`.
        log_det: float32 `(batch,)`, zeros.

    Raises:
        ValueError: if `factor` is less than 2, or does not divide height and width.

    Example:

    >>> y, log_det = keras_gen.layers.Squeeze()(images)        # (n, 28, 28, 1) -> (n, 14, 14, 4)

    Reference: https://kexue.fm/archives/5807; Dinh et al. 2016, arXiv:1605.08803, section 3.6.
    """

    def __init__(self, factor: int = 2, **kwargs: Any):
        super().__init__(**kwargs)
        self.factor = check_integer("factor", factor, at_least=2)

    def build(self, x_shape: Any, condition_shape: Any = None) -> None:
        check(len(x_shape) == 4, "x", "be images (batch, height, width, channels)", f"shape {tuple(x_shape)}")
        f, sides = self.factor, x_shape[1:3]
        divisible = all(side is not None and side % f == 0 for side in sides)
        check(divisible, "x", f"have height and width that {f} divides", f"shape {tuple(x_shape)}")

    def forward_and_log_det(self, x: Any, condition: Any = None, training: bool = False) -> tuple[Any, Any]:
        f, (_, h, w, c) = self.factor, x.shape
        y = ops.reshape(x, (-1, h // f, f, w // f, f, c))
        y = ops.reshape(ops.transpose(y, (0, 1, 3, 2, 4, 5)), (-1, h // f, w // f, f * f * c))
        return y, for_each_sample(0, x)

    def inverse_and_log_det(self, y: Any, condition: Any = None, training: bool = False) -> tuple[Any, Any]:
        f, (_, h, w, c) = self.factor, y.shape
        x = ops.reshape(y, (-1, h, w, f, f, c // f**2))
        x = ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, h * f, w * f, c // f**2))
        return x, for_each_sample(0, y)

    def output_shape(self, x_shape: Any) -> tuple[int | None, ...]:
        batch, h, w, c = x_shape
        return batch, h // self.factor, w // self.factor, c * self.factor**2

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "factor": self.factor}
