"""Observation models p(x | z)."""

import abc
import math
from typing import Any

import numpy as np
from keras import ops

from keras_gen.core.arrays import at_index, sum_per_sample
from keras_gen.core.checks import check, check_integer, check_positive
from keras_gen.export import keras_gen_export


class Likelihood(abc.ABC):
    """Base class of likelihoods `p(x | output)`.

    Subclasses define `nll`, `mean`, `check` and `output_shape`; `dtype`, that of the data; `takes_logits`, whether the
    decoder should not end in an activation; and `get_config` for their own arguments.
    """

    dtype = "float32"
    takes_logits = False

    @abc.abstractmethod
    def nll(self, x: Any, output: Any) -> Any:
        """Returns `-log p(x | output)` in nats, float32 `(batch,)`, including all normalizing constants."""

    @abc.abstractmethod
    def mean(self, output: Any) -> Any:
        """Returns the mean of p(x | output), or the mode for integer data."""

    @abc.abstractmethod
    def check(self, name: str, x: np.ndarray) -> None:
        """Checks that data are in the support of the likelihood."""

    def output_shape(self, data_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the shape required of the decoder's output for `data_shape`, both without the batch axis."""
        return data_shape

    def get_config(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Likelihood":
        return cls(**config)


@keras_gen_export("keras_gen.losses.BernoulliLikelihood")
class BernoulliLikelihood(Likelihood):
    """Bernoulli likelihood of binary pixels with logits `output`: the summed binary cross-entropy.

        -log p(x | output) = sum softplus(output) - b output,   b = (x + 1) / 2

    Data are scaled to [-1, 1], -1 black and 1 white. For gray pixels the value is the expectation over random
    binarizations, in which a pixel is white with probability b; the ELBO then bounds their mean log-likelihood.

    Raises:
        ValueError: if data are outside [-1, 1].

    Reference: https://kexue.fm/archives/5253; Kingma and Welling 2013, arXiv:1312.6114, appendix C.1.
    """

    takes_logits = True

    def nll(self, x: Any, output: Any) -> Any:
        output = ops.cast(output, "float32")
        b = (ops.cast(x, "float32") + 1) / 2
        return sum_per_sample(ops.softplus(output) - b * output)

    def mean(self, output: Any) -> Any:
        return 2 * ops.sigmoid(ops.cast(output, "float32")) - 1

    def check(self, name: str, x: np.ndarray) -> None:
        inside = bool(np.abs(x).max() <= 1 + 1e-6)
        check(inside, name, "be in [-1, 1], from black to white", f"values in [{x.min():.4g}, {x.max():.4g}]")


@keras_gen_export("keras_gen.losses.CategoricalLikelihood")
class CategoricalLikelihood(Likelihood):
    """Categorical likelihood of integers, such as text tokens, with logits `output`: the summed cross-entropy.

        -log p(x | output) = -sum log softmax(output)[x]

    The decoder's output has an additional last axis, the classes.

    Args:
        num_classes: int >= 2. Data are integers 0 .. num_classes - 1.

    Raises:
        ValueError: if `num_classes` is less than 2, or data are not integers in this range.

    Reference: https://kexue.fm/archives/5332.
    """

    dtype = "int32"
    takes_logits = True

    def __init__(self, num_classes: int):
        self.num_classes = check_integer("num_classes", num_classes, at_least=2)

    def nll(self, x: Any, output: Any) -> Any:
        log_p = ops.log_softmax(ops.cast(output, "float32"), axis=-1)
        return -sum_per_sample(at_index(log_p, x))

    def mean(self, output: Any) -> Any:
        return ops.cast(ops.argmax(output, axis=-1), "int32")

    def check(self, name: str, x: np.ndarray) -> None:
        check(x.dtype.kind in "iu", name, "be integers", f"dtype {x.dtype}")
        inside = x.min() >= 0 and x.max() < self.num_classes
        check(inside, name, f"be in 0 .. {self.num_classes - 1}", f"values in [{x.min()}, {x.max()}]")

    def output_shape(self, data_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*data_shape, self.num_classes)

    def get_config(self) -> dict[str, Any]:
        return {"num_classes": self.num_classes}


@keras_gen_export("keras_gen.losses.GaussianLikelihood")
class GaussianLikelihood(Likelihood):
    """Gaussian likelihood with mean `output`: half the squared error over the variance, plus normalizing constants.

        -log p(x | output) = sum (|x - output|^2 / variance + log(2 pi variance)) / 2

    It is a density, so the log-likelihood may be positive and the loss negative.

    Args:
        variance: float > 0. Defaults to `1.0`.

    Raises:
        ValueError: if `variance` is not positive.

    Reference: https://kexue.fm/archives/5253; Kingma and Welling 2013, arXiv:1312.6114, appendix C.2.
    """

    def __init__(self, variance: float = 1.0):
        self.variance = check_positive("variance", variance)

    def nll(self, x: Any, output: Any) -> Any:
        error = ops.square(ops.cast(x, "float32") - ops.cast(output, "float32"))
        return 0.5 * sum_per_sample(error / self.variance + math.log(2 * math.pi * self.variance))

    def mean(self, output: Any) -> Any:
        return ops.cast(output, "float32")

    def check(self, name: str, x: np.ndarray) -> None:
        """Accepts any finite data."""

    def get_config(self) -> dict[str, Any]:
        return {"variance": self.variance}


@keras_gen_export("keras_gen.losses.LaplaceLikelihood")
class LaplaceLikelihood(Likelihood):
    """Laplace likelihood with median `output`: the absolute error over the scale, plus normalizing constants.

        -log p(x | output) = sum |x - output| / scale + log(2 scale)

    Its gradient does not grow with the error, so that reconstructions are less blurred than by the squared error.

    Args:
        scale: float > 0. Defaults to `1.0`.

    Raises:
        ValueError: if `scale` is not positive.

    Reference: Esser et al. 2020, arXiv:2012.09841; Rombach et al. 2021, arXiv:2112.10752, whose autoencoders minimize
    the absolute error.
    """

    def __init__(self, scale: float = 1.0):
        self.scale = check_positive("scale", scale)

    def nll(self, x: Any, output: Any) -> Any:
        error = ops.absolute(ops.cast(x, "float32") - ops.cast(output, "float32"))
        return sum_per_sample(error / self.scale + math.log(2 * self.scale))

    def mean(self, output: Any) -> Any:
        return ops.cast(output, "float32")

    def check(self, name: str, x: np.ndarray) -> None:
        """Accepts any finite data."""

    def get_config(self) -> dict[str, Any]:
        return {"scale": self.scale}
