import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.arrays import broadcast_to_batch, clip, sum_per_sample
from keras_gen.core.checks import check, check_integer
from keras_gen.core.random import check_seed, seed_generator
from keras_gen.export import keras_gen_export
from keras_gen.flows.bijector import Bijector, build_shape_preserving, check_bijector
from keras_gen.flows.distributions import log_standard_normal


@keras_gen_export("keras_gen.layers.Dequantize", also=("keras_gen.bijectors.Dequantize",))
class Dequantize(Bijector):
    """Dequantization: adds noise to discrete pixel values, so that they have a density on [0, 1].

        k = (x + 1) / 2 (levels - 1),   y = (k + u) / levels,   u ~ q(u | x) on [0, 1)
        log_det = -D log(levels) - log q(u | x)

    for images x in [-1, 1] of D dimensions, with integers k. With this `log_det`, `log p(y) + log_det`, averaged over
    u, is a lower bound on the log-*probability* of x, the integral of the density over its cell. The inverse rounds
    down to the nearest level, which recovers x exactly.

    q is uniform or learned (variational dequantization): then `bijector`, conditioned on x, maps logits of u to
    standard normal noise.

    Args:
        levels: int from 2 to 2^20, with `dtype="float64"` to 2^30. Number of possible pixel values. Defaults to `256`.
        bijector: a bijector that preserves the shape of x. Defaults to `None`, uniform noise.
        seed: int or `None`. Defaults to `None`, a seed from Keras's global one.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        x: `(batch, ...)`, images in [-1, 1].
        condition: ignored. Defaults to `None`.
        inverse: bool. Defaults to `False`.
        training: bool. Noise is drawn in both training and inference. Defaults to `False`.

    Returns:
        y: a float32 tensor like `x`, in [0, 1].
        log_det: float32 `(batch,)`.

    Raises:
        ValueError: if `levels` is out of range, or `bijector` is not a bijector; in a model, also if the data are not
            quantized to these levels.

    Example:

    >>> y, log_det = keras_gen.layers.Dequantize(levels=256, seed=0)(images)

    Reference: Theis et al. 2015, arXiv:1511.01844, section 3.1; Ho et al. 2019, arXiv:1902.00275, section 3.1.
    """

    def __init__(self, levels: int = 256, bijector: Bijector | None = None, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.levels = check_integer("levels", levels, at_least=2)
        # So that noise within a level keeps 3 bits at least; levels are counted in int32.
        most = min(2**30, int(1 / (8 * float(np.finfo(self.bijection_dtype).eps))))
        check(self.levels <= most, "levels", f"be at most {most} in {self.bijection_dtype}", levels)
        if bijector is not None:
            check_bijector("bijector", bijector)
        self.bijector = bijector
        self.seed = check_seed(seed)
        self.seed_generator = seed_generator(self.seed)

    def build(self, x_shape: Any, condition_shape: Any = None) -> None:
        self.num_dims = math.prod(x_shape[1:])
        if self.bijector is not None:
            build_shape_preserving(self.bijector, x_shape, x_shape)

    def forward_and_log_det(self, x: Any, condition: Any = None, training: bool = False) -> tuple[Any, Any]:
        draw = keras.random.uniform if self.bijector is None else keras.random.normal
        noise = draw(ops.shape(x), dtype=self.bijection_dtype, seed=self.seed_generator)
        return self._with_noise(x, noise, training)

    @property
    def takes_noise(self) -> bool:
        return True

    def forward_with_noise(self, x: Any, noise: Any, condition: Any = None) -> tuple[Any, Any]:
        return self._with_noise(x, noise, training=False)

    def _with_noise(self, x: Any, noise: Any, training: bool) -> tuple[Any, Any]:
        k = ops.round((x + 1) / 2 * (self.levels - 1))
        u, log_q = self._as_u(noise, x, training)
        # Closer to the ends, rounding would move k + u to another level.
        margin = self.levels * float(np.finfo(self.bijection_dtype).eps)
        return (k + clip(u, margin, 1 - margin)) / self.levels, self._cells(x) - log_q

    def inverse_and_log_det(self, y: Any, condition: Any = None, training: bool = False) -> tuple[Any, Any]:
        k = ops.cast(ops.cast(ops.clip(y * self.levels, 0, self.levels - 1), "int32"), y.dtype)
        x = 2 * k / (self.levels - 1) - 1
        return x, self._log_q(y * self.levels - k, x, training) - self._cells(y)

    def _cells(self, x: Any) -> Any:
        return broadcast_to_batch(-self.num_dims * math.log(self.levels), x)

    def _as_u(self, noise: Any, x: Any, training: bool) -> tuple[Any, Any]:
        """Returns u and log q(u | x) of noise: u itself, or what the bijector makes of standard normal noise."""
        if self.bijector is None:
            return noise, 0.0
        logits, log_det = self.bijector(noise, x, inverse=True, training=training)
        return ops.sigmoid(logits), log_standard_normal(noise) - log_det + _log_sigmoid_slope(logits)

    def _log_q(self, u: Any, x: Any, training: bool) -> Any:
        if self.bijector is None:
            return 0.0
        u = clip(u, 1e-7, 1 - 1e-7)
        logits = ops.log(u) - ops.log1p(-u)
        eps, log_det = self.bijector(logits, x, training=training)
        return log_standard_normal(eps) + log_det + _log_sigmoid_slope(logits)

    def check_data(self, name: str, x: np.ndarray) -> None:
        k = (x.astype("float64") + 1) / 2 * (self.levels - 1)
        rule = f"be images in [-1, 1] of {self.levels} levels"
        check(bool((np.abs(x) <= 1 + 1e-6).all()), name, rule, f"values from {x.min():g} to {x.max():g}")
        check(bool((np.abs(k - np.round(k)) < 1e-3).all()), name, rule, "values between the levels")

    def get_config(self) -> dict[str, Any]:
        bijector = keras.saving.serialize_keras_object(self.bijector)
        return {**super().get_config(), "levels": self.levels, "bijector": bijector, "seed": self.seed}


def _log_sigmoid_slope(logits: Any) -> Any:
    """Returns the log-determinant of the map from u to logits, the negative of the sigmoid's."""
    return sum_per_sample(ops.softplus(logits) + ops.softplus(-logits))
