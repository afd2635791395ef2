"""The von Mises-Fisher distribution on the unit sphere, `p(z) ~ exp(kappa mu . z)`, by a table of its angle."""

from typing import Any

import keras
import numpy as np
from keras import ops

POINTS = 2**14
SMALLEST = 1e-24


class AngleTable:
    """The angle between `mu` and a draw, of density `sin(angle)^(dim - 2) exp(kappa cos(angle))` on [0, pi].

    Args:
        dim: int >= 2, of the space around the sphere.
        kappa: float >= 0, the concentration; 0 is the uniform distribution.

    Attributes:
        angles: float64 `(POINTS,)`.
        cdf: float64 `(POINTS,)`, the probability of a smaller angle.
        mean_cosine: float, `E[mu . z] = I_{dim/2}(kappa) / I_{dim/2-1}(kappa)`.
        kl: float, the divergence from the uniform distribution, in nats.
    """

    def __init__(self, dim: int, kappa: float):
        # Angles beyond some deviations, 1 / sqrt(kappa), hold nothing; the table is spent on the rest.
        self.angles = np.linspace(0, min(np.pi, 12 * np.sqrt((dim + 10) / max(kappa, 1e-6))), POINTS)
        middles, log_weights = _log_weights(self.angles, dim, kappa)
        weights = np.exp(log_weights - log_weights.max())
        self.cdf = np.concatenate([[0], np.cumsum(weights)]) / weights.sum()
        self.mean_cosine = float((weights * np.cos(middles)).sum() / weights.sum())
        surface = np.logaddexp.reduce(_log_weights(np.linspace(0, np.pi, POINTS), dim, 0.0)[1])
        self.kl = float(kappa * (self.mean_cosine - 1) - np.logaddexp.reduce(log_weights) + surface)

    def draw(self, mu: Any, seed: Any) -> Any:
        """Draws around unit vectors `mu` `(batch, dim)`, in float32, with a gradient to `mu`."""
        # One normal draw for direction and angle: a fixed seed would give two draws the same bits.
        eps = keras.random.normal((ops.shape(mu)[0], mu.shape[-1] + 1), dtype="float32", seed=seed)
        angle = self._quantile(0.5 + 0.5 * ops.erf(eps[:, :1] / np.sqrt(2.0).item()))
        across = eps[:, 1:] - ops.sum(eps[:, 1:] * mu, axis=-1, keepdims=True) * mu
        # In two dimensions a draw almost along mu leaves little across it, which rounding tilts: so scale once more.
        return unit_vectors(ops.cos(angle) * mu + ops.sin(angle) * unit_vectors(across))

    def _quantile(self, u: Any) -> Any:
        cdf, angles = self.cdf.astype("float32"), self.angles.astype("float32")
        right = ops.reshape(ops.searchsorted(cdf, ops.reshape(u, (-1,))), ops.shape(u))
        right = ops.clip(ops.cast(right, "int32"), 1, POINTS - 1)
        low, high = ops.take(cdf, right - 1), ops.take(cdf, right)
        share = (u - low) / ops.maximum(high - low, 1e-12)
        return ops.take(angles, right - 1) + float(angles[1]) * ops.clip(share, 0.0, 1.0)


def _log_weights(angles: np.ndarray, dim: int, kappa: float) -> tuple[np.ndarray, np.ndarray]:
    middles = (angles[1:] + angles[:-1]) / 2
    return middles, (dim - 2) * np.log(np.sin(middles)) + kappa * (np.cos(middles) - 1) + np.log(angles[1])


def unit_vectors(x: Any) -> Any:
    """Scales vectors to unit length, in float32. A zero stays 0, with gradient 0 (that of `ops.normalize` is NaN)."""
    x = ops.cast(x, "float32")
    square = ops.sum(ops.square(x), axis=-1, keepdims=True)
    return x * ops.where(square > SMALLEST, ops.rsqrt(ops.maximum(square, SMALLEST)), 0.0)
