"""Base distributions of flows."""

import abc
import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.arrays import sum_per_sample
from keras_gen.core.random import starting_noise
from keras_gen.export import keras_gen_export

FORMER_NAMES = {"place": "from_noise"}  # of methods in version 0.1


@keras_gen_export("keras_gen.layers.Base", also=("keras_gen.distributions.Base",))
class Base(keras.layers.Layer):
    """Base class of base distributions: densities of a flow's latents.

    To write a new base distribution, define `log_density`, `draw_noise` in NumPy, and `from_noise`, from noise to
    latents; create all weights in `build`.

    Args:
        **kwargs: `name`, `dtype`, `trainable`, as for any Keras layer.

    Call arguments:
        z: `(batch, ...)`.

    Returns:
        log p(z), `(batch,)`, float32 (or float64, if z is), including all normalizing constants.

    Raises:
        ValueError: if a weight cannot be created for the shape of z.

    Example:

    >>> log_p = keras_gen.layers.NormalBase()(z)

    Reference: Dinh et al. 2014, arXiv:1410.8516, section 3.4.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        for former, name in FORMER_NAMES.items():
            if former in vars(cls):
                setattr(cls, name, getattr(cls, former))

    @abc.abstractmethod
    def log_density(self, z: Any) -> Any:
        """Returns log p(z), `(batch,)`."""

    @abc.abstractmethod
    def draw_noise(self, n: int, shape: tuple[int, ...], seed: int) -> np.ndarray:
        """Draws float32 noise `(n, *shape)`; draw k depends only on `seed` and k."""

    def from_noise(self, noise: Any, temperature: float) -> Any:
        """Maps noise to latents; a `temperature` below 1 contracts them toward their center."""
        return temperature * noise

    def build(self, z_shape: Any) -> None:
        """Creates weights. Does nothing by default."""

    def call(self, z: Any) -> Any:
        return self.log_density(z if keras.backend.standardize_dtype(z.dtype) == "float64" else ops.cast(z, "float32"))

    def get_config(self) -> dict[str, Any]:
        # For subclasses without arguments of their own: Keras rejects these if `dtype` is a policy object.
        return super().get_config()


def log_standard_normal(z: Any) -> Any:
    """Returns the log-density of the standard normal distribution, `(batch,)`."""
    return -0.5 * sum_per_sample(z**2 + math.log(2 * math.pi))


@keras_gen_export("keras_gen.layers.NormalBase", also=("keras_gen.distributions.NormalBase",))
class NormalBase(Base):
    """Standard normal distribution: `log p(z) = -1/2 sum_i (z_i^2 + log 2 pi)`.

    Args:
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        z: `(batch, ...)`.

    Returns:
        log p(z), float32 `(batch,)`.

    Raises:
        ValueError: if `dtype` is not a valid dtype.

    Example:

    >>> flow = keras_gen.models.Flow(bijector, keras_gen.layers.NormalBase())      # or "normal"

    Reference: Dinh et al. 2014, arXiv:1410.8516, section 3.4.
    """

    def log_density(self, z: Any) -> Any:
        return log_standard_normal(z)

    def draw_noise(self, n: int, shape: tuple[int, ...], seed: int) -> np.ndarray:
        return starting_noise(n, shape, seed)


@keras_gen_export("keras_gen.layers.LearnedNormalBase", also=("keras_gen.distributions.LearnedNormalBase",))
class LearnedNormalBase(Base):
    """Normal distribution with learned mean and standard deviation for each dimension.

        log p(z) = -1/2 sum_i [((z_i - mean_i) / sigma_i)^2 + 2 log sigma_i + log 2 pi]

    Args:
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        z: `(batch, ...)`.

    Returns:
        log p(z), float32 `(batch,)`.

    Raises:
        ValueError: if the size of an axis of z is unknown.

    Example:

    >>> flow = keras_gen.models.Flow(bijector, keras_gen.layers.LearnedNormalBase())

    Reference: Kingma and Dhariwal 2018, arXiv:1807.03039, section 3.
    """

    def build(self, z_shape: Any) -> None:
        self.mean, self.log_sigma = (
            self.add_weight(name=name, shape=z_shape[1:], initializer="zeros", autocast=False)
            for name in ("mean", "log_sigma")
        )

    def log_density(self, z: Any) -> Any:
        log_sigma = ops.cast(self.log_sigma, z.dtype)
        eps = (z - ops.cast(self.mean, z.dtype)) * ops.exp(-log_sigma)
        return -0.5 * sum_per_sample(eps**2 + 2 * log_sigma + math.log(2 * math.pi))

    def draw_noise(self, n: int, shape: tuple[int, ...], seed: int) -> np.ndarray:
        return starting_noise(n, shape, seed)

    def from_noise(self, noise: Any, temperature: float) -> Any:
        sigma = ops.exp(ops.cast(self.log_sigma, noise.dtype))
        return ops.cast(self.mean, noise.dtype) + temperature * sigma * noise


@keras_gen_export("keras_gen.layers.LogisticBase", also=("keras_gen.distributions.LogisticBase",))
class LogisticBase(Base):
    """Standard logistic distribution, with heavier tails than the normal distribution.

        log p(z) = -sum_i [softplus(z_i) + softplus(-z_i)]

    Args:
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        z: `(batch, ...)`.

    Returns:
        log p(z), float32 `(batch,)`.

    Raises:
        ValueError: if `dtype` is not a valid dtype.

    Example:

    >>> flow = keras_gen.models.Flow(bijector, keras_gen.layers.LogisticBase())    # or "logistic"

    Reference: Dinh et al. 2014, arXiv:1410.8516, section 3.4.
    """

    def log_density(self, z: Any) -> Any:
        return -sum_per_sample(ops.softplus(z) + ops.softplus(-z))

    def draw_noise(self, n: int, shape: tuple[int, ...], seed: int) -> np.ndarray:
        return np.random.default_rng(seed).logistic(size=(n, *shape)).astype("float32")


@keras_gen_export("keras_gen.layers.LaplaceBase", also=("keras_gen.distributions.LaplaceBase",))
class LaplaceBase(Base):
    """Standard Laplace distribution: `log p(z) = -sum_i (|z_i| + log 2)`, the density behind an L1 loss.

    Args:
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        z: `(batch, ...)`.

    Returns:
        log p(z), float32 `(batch,)`.

    Raises:
        ValueError: if `dtype` is not a valid dtype.

    Example:

    >>> flow = keras_gen.models.Flow(bijector, keras_gen.layers.LaplaceBase())     # or "laplace"

    Reference: Li et al. 2021, arXiv:2107.11291, section 3.3.
    """

    def log_density(self, z: Any) -> Any:
        return -sum_per_sample(ops.abs(z) + math.log(2))

    def draw_noise(self, n: int, shape: tuple[int, ...], seed: int) -> np.ndarray:
        return np.random.default_rng(seed).laplace(size=(n, *shape)).astype("float32")


@keras_gen_export("keras_gen.layers.UniformBase", also=("keras_gen.distributions.UniformBase",))
class UniformBase(Base):
    """Uniform distribution on the unit cube: `log p(z) = 0` inside, minus infinity outside.

    Args:
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        z: `(batch, ...)`.

    Returns:
        log p(z), float32 `(batch,)`.

    Raises:
        ValueError: if `dtype` is not a valid dtype.

    Example:

    >>> flow = keras_gen.models.Flow(keras_gen.layers.Dequantize(256), keras_gen.layers.UniformBase())  # 8 bits/dim

    Reference: Theis et al. 2015, arXiv:1511.01844, section 3.1.
    """

    def log_density(self, z: Any) -> Any:
        return sum_per_sample(ops.where((z >= 0) & (z <= 1), ops.zeros_like(z), -float("inf")))

    def draw_noise(self, n: int, shape: tuple[int, ...], seed: int) -> np.ndarray:
        return np.random.default_rng(seed).random((n, *shape), dtype="float32")

    def from_noise(self, noise: Any, temperature: float) -> Any:
        return 0.5 + temperature * (noise - 0.5)
