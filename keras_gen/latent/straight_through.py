from typing import Any

from keras import ops

from keras_gen.core.checks import check, check_floats, real_tensor, same_shape
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.ops.straight_through")
def straight_through(hard: Any, soft: Any) -> Any:
    """Returns `hard` with the gradient of `soft` (straight-through estimator): `sg(hard) + soft - sg(soft)`.

    Here `sg` is `stop_gradient`. The value is exactly `hard`, since `soft - sg(soft)` is computed first.

    Args:
        hard: tensor.
        soft: float tensor of the same shape, finite.

    Returns:
        A tensor of the dtype of `soft`.

    Raises:
        ValueError: if the shapes differ, or `soft` is not floating-point.

    Reference: Bengio et al. 2013, arXiv:1308.3432; https://kexue.fm/archives/6760.
    """
    soft = real_tensor("soft", soft)
    check_floats("soft", soft)
    hard = real_tensor("hard", hard, soft.dtype)
    check(
        same_shape(hard.shape, soft.shape),
        "hard",
        f"have the shape of soft, {tuple(soft.shape)}",
        f"shape {tuple(hard.shape)}",
    )
    return ops.stop_gradient(hard) + (soft - ops.stop_gradient(soft))
