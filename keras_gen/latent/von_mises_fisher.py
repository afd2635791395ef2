"""Sampling from the von Mises-Fisher distribution on the unit sphere."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.arrays import unit_vectors
from keras_gen.core.checks import check, check_nonnegative, known_size
from keras_gen.core.random import check_seed, seed_generator
from keras_gen.export import keras_gen_export

POINTS = 2**14


class AngleTable:
    """Table of the angle between `mu` and a sample, of density ~ `sin(angle)^(dim - 2) exp(kappa cos(angle))`.

    Args:
        dim: int >= 2, dimension of the ambient space.
        kappa: float >= 0, the concentration; 0 is the uniform distribution.

    Attributes:
        angles: float64 `(POINTS,)`, from 0 to at most pi.
        cdf: float64 `(POINTS,)`, the cumulative distribution function at `angles`.
        mean_cosine: float, `E[mu . z] = I_{dim/2}(kappa) / I_{dim/2-1}(kappa)`.
        kl: float, the KL divergence from the uniform distribution, in nats.
    """

    def __init__(self, dim: int, kappa: float):
        # Angles beyond some standard deviations, 1 / sqrt(kappa), have negligible mass: the table ends there.
        self.angles = np.linspace(0, min(np.pi, 12 * np.sqrt((dim + 10) / max(kappa, 1e-6))), POINTS)
        middles, log_weights = _log_weights(self.angles, dim, kappa)
        weights = np.exp(log_weights - log_weights.max())
        self.cdf = np.concatenate([[0], np.cumsum(weights)]) / weights.sum()
        self.mean_cosine = float((weights * np.cos(middles)).sum() / weights.sum())
        surface = np.logaddexp.reduce(_log_weights(np.linspace(0, np.pi, POINTS), dim, 0.0)[1])
        self.kl = float(kappa * (self.mean_cosine - 1) - np.logaddexp.reduce(log_weights) + surface)

    def draw(self, mu: Any, seed: Any) -> Any:
        """Samples around unit vectors `mu` `(batch, dim)` in float32, differentiable with respect to `mu`."""
        # One normal draw for direction and angle: two draws with a fixed seed would have the same bits.
        eps = keras.random.normal((ops.shape(mu)[0], mu.shape[-1] + 1), dtype="float32", seed=seed)
        angle = self._quantile(0.5 + 0.5 * ops.erf(eps[:, :1] / np.sqrt(2.0).item()))
        across = eps[:, 1:] - ops.sum(eps[:, 1:] * mu, axis=-1, keepdims=True) * mu
        # In two dimensions, noise nearly parallel to mu has a tiny orthogonal part, tilted by rounding: so normalize.
        return unit_vectors(ops.cos(angle) * mu + ops.sin(angle) * unit_vectors(across))

    def _quantile(self, u: Any) -> Any:
        cdf, angles = self.cdf.astype("float32"), self.angles.astype("float32")
        right = ops.reshape(ops.searchsorted(cdf, ops.reshape(u, (-1,))), ops.shape(u))
        right = ops.clip(ops.cast(right, "int32"), 1, POINTS - 1)
        low, high = ops.take(cdf, right - 1), ops.take(cdf, right)
        fraction = (u - low) / ops.maximum(high - low, 1e-12)
        return ops.take(angles, right - 1) + float(angles[1]) * ops.clip(fraction, 0.0, 1.0)


def _log_weights(angles: np.ndarray, dim: int, kappa: float) -> tuple[np.ndarray, np.ndarray]:
    middles = (angles[1:] + angles[:-1]) / 2
    return middles, (dim - 2) * np.log(np.sin(middles)) + kappa * (np.cos(middles) - 1) + np.log(angles[1])


@keras_gen_export("keras_gen.layers.VonMisesFisherSampling")
class VonMisesFisherSampling(keras.layers.Layer):
    """Von Mises-Fisher sampling on the unit sphere: `z = cos(a) mu + sin(a) nu`, of density ~ `exp(kappa mu . z)`.

    `nu` is uniform among the directions orthogonal to mu; the angle a is drawn by inverse transform sampling from a
    precomputed table. The KL divergence from the uniform distribution depends only on kappa and the dimension: it is
    the attribute `kl`, in nats, once the layer is built. Samples in both training and inference.

    Args:
        kappa: float >= 0. The concentration; 0 is uniform. Defaults to `20.0`.
        seed: int or `None`. Defaults to `None`, a seed from Keras's global generator.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        x: float tensor `(batch, dim)`, `dim >= 2`, nonzero: `mu = x / |x|`.

    Returns:
        A tensor like `x`, of unit length along the last axis.

    Raises:
        ValueError: if `kappa` is negative or `x` does not have shape `(batch, dim >= 2)`.

    Reference: https://kexue.fm/archives/8404; Davidson et al. 2018, arXiv:1804.00891.
    """

    def __init__(self, kappa: float = 20.0, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.kappa = check_nonnegative("kappa", kappa)
        self.seed = check_seed(seed)
        self.seed_generator = seed_generator(self.seed)

    def build(self, x_shape: tuple[int | None, ...]) -> None:
        dim = known_size("x", x_shape)
        check(len(x_shape) == 2 and dim >= 2, "x", "have shape (batch, dim >= 2)", f"shape {tuple(x_shape)}")
        self.table = AngleTable(dim, self.kappa)
        self.kl = self.table.kl

    def call(self, x: Any) -> Any:
        return ops.cast(self.table.draw(unit_vectors(x), self.seed_generator), self.compute_dtype)

    def compute_output_shape(self, x_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return x_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "kappa": self.kappa, "seed": self.seed}
