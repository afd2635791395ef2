"""Gradient penalties for discriminators."""

import abc
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_gen.core.arrays import sum_per_sample
from keras_gen.core.calculus.gradient import gradient
from keras_gen.core.checks import check_nonnegative
from keras_gen.export import keras_gen_export


class Penalty(abc.ABC):
    """Base class of gradient penalties.

    Subclasses define `__call__`. `discriminator` takes data and returns `(batch,)`; it may be called any number of
    times, also within `keras.ops.jvp` and `keras_gen.ops.gradient`. Random draws use `seed`.

    Gradients are computed per sample, so the discriminator must not use batch normalization.
    """

    def __init__(self, weight: float = 10.0):
        self.weight = check_nonnegative("weight", weight)

    @abc.abstractmethod
    def __call__(self, discriminator: Callable[[Any], Any], x: Any, fake: Any, seed: Any) -> Any:
        """Returns the penalty, float32 `(batch,)`, for data and samples, both float32 `(batch, ...)`."""

    def get_config(self) -> dict[str, Any]:
        return {"weight": self.weight}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Penalty":
        return cls(**config)


@keras_gen_export("keras_gen.losses.R1Penalty")
class R1Penalty(Penalty):
    """R1 gradient penalty: the squared gradient norm of the discriminator at the data, which helps GANs converge.

        weight / 2 |grad D(x)|^2 = weight / 2 E_v[(v . grad D(x))^2],   v = +-1 in each dimension, even odds

    The right-hand side needs one forward-mode derivative along one random `v`, and no second reverse pass. This
    estimate is unbiased for the squared norm only.

    Args:
        weight: float >= 0. Larger for larger images: between a thousandth and a tenth of the number of pixels,
            depending on batch size and data. Defaults to `10.0`.

    Raises:
        ValueError: if `weight` is negative.

    Reference: Mescheder et al. 2018, arXiv:1801.04406, section 4.1; Hutchinson's estimator.
    """

    def __call__(self, discriminator: Callable[[Any], Any], x: Any, fake: Any, seed: Any) -> Any:
        heads = keras.random.uniform(ops.shape(x), seed=seed) < 0.5
        v = ops.where(heads, ops.ones_like(x), -ops.ones_like(x))
        _, slope = ops.jvp(discriminator, (x,), (v,))
        return self.weight / 2 * ops.square(slope)


TINY = 1e-12  # the square root is not differentiable at 0


@keras_gen_export("keras_gen.losses.GradientPenalty")
class GradientPenalty(Penalty):
    """Gradient penalty of WGAN-GP: pulls the gradient norm to 1 on straight lines between data and samples.

        weight (|grad D(y)| - 1)^2,   y = u x + (1 - u) G(z),   u ~ U(0, 1)

    Args:
        weight: float >= 0. Defaults to `10.0`.

    Raises:
        ValueError: if `weight` is negative.

    Reference: Gulrajani et al. 2017, arXiv:1704.00028, equation 3.
    """

    def __call__(self, discriminator: Callable[[Any], Any], x: Any, fake: Any, seed: Any) -> Any:
        dtype = keras.backend.result_type(x.dtype, fake.dtype)
        x, fake = ops.cast(x, dtype), ops.cast(fake, dtype)
        u = keras.random.uniform((ops.shape(x)[0], *(1 for _ in x.shape[1:])), dtype=dtype, seed=seed)
        slope = gradient(discriminator, u * x + (1 - u) * fake)
        norm = ops.sqrt(sum_per_sample(ops.square(slope)) + TINY)
        return self.weight * ops.square(norm - 1)
