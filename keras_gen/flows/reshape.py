import math
from collections.abc import Sequence
from typing import Any

from keras import ops

from keras_gen.core.checks import check, is_integer
from keras_gen.core.per_sample import for_each_sample
from keras_gen.export import keras_gen_export
from keras_gen.flows.bijector import Bijector


@keras_gen_export("keras_gen.layers.Reshape")
class Reshape(Bijector):
    """Gives the numbers of a sample another shape: images to vectors, by default. `log_det = 0`.

    Args:
        target_shape: sequence of ints, the new shape without the batch; one may be -1. Defaults to `(-1,)`.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        x: `(batch, ...)`.
        condition: is ignored. Defaults to `None`.
        inverse: bool. Defaults to `False`.
        training: bool. Defaults to `False`.

    Returns:
        y: float32 `(batch, *target_shape)`.
        log_det: float32 `(batch,)`, zeros.

    Raises:
        ValueError: if `target_shape` is no shape, or not one for as many numbers as a sample has.

    Example:

    >>> y, log_det = keras_gen.layers.Reshape()(images)        # (n, 28, 28, 1) -> (n, 784)

    Reference: https://kexue.fm/archives/5776 (NICE takes images as vectors).
    """

    def __init__(self, target_shape: Sequence[int] = (-1,), **kwargs: Any):
        super().__init__(**kwargs)
        shape = isinstance(target_shape, list | tuple) and len(target_shape) > 0
        whole = shape and all(is_integer(size) and (size > 0 or size == -1) for size in target_shape)
        check(whole and list(target_shape).count(-1) <= 1, "target_shape", "be sizes, -1 at most once", target_shape)
        self.target_shape = tuple(int(size) for size in target_shape)

    def build(self, x_shape: Any, condition_shape: Any = None) -> None:
        self.x_shape = tuple(x_shape[1:])
        self.y_shape = self.output_shape(x_shape)[1:]

    def forward_and_log_det(self, x: Any, condition: Any = None, training: bool = False) -> tuple[Any, Any]:
        return ops.reshape(x, (-1, *self.y_shape)), for_each_sample(0, x)

    def inverse_and_log_det(self, y: Any, condition: Any = None, training: bool = False) -> tuple[Any, Any]:
        return ops.reshape(y, (-1, *self.x_shape)), for_each_sample(0, y)

    def output_shape(self, x_shape: Any) -> tuple[int | None, ...]:
        check(None not in x_shape[1:], "x", "have a known shape", f"shape {tuple(x_shape)}")
        size = math.prod(x_shape[1:])
        known = math.prod(n for n in self.target_shape if n != -1)
        fits = size % known == 0 if -1 in self.target_shape else size == known
        check(fits, "target_shape", f"hold the {size} numbers of a sample", self.target_shape)
        return (x_shape[0], *(size // known if n == -1 else n for n in self.target_shape))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "target_shape": self.target_shape}
