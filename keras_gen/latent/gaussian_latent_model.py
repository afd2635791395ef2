from typing import Any

import numpy as np
from keras import ops

from keras_gen.core.checks import check
from keras_gen.core.random import starting_noise
from keras_gen.latent.latent_model import LatentModel


class GaussianLatentModel(LatentModel):
    """Base class of models with `q(z | x) = N(mean(x), exp(log_var(x)))`, whose encoder gives mean and log_var."""

    def moments(self, x: Any, training: bool = False) -> tuple[Any, Any]:
        """Returns mean and log-variance of q(z | x), float32."""
        outputs = self.encoder(x, training=training)
        pair = isinstance(outputs, list | tuple) and len(outputs) == 2
        check(pair, "encoder", "give a list of mean and log_var", f"{type(outputs).__name__}")
        mean, log_var = (ops.cast(output, "float32") for output in outputs)
        alike = tuple(mean.shape[1:]) == tuple(log_var.shape[1:])
        check(alike, "encoder", "give mean and log_var of one shape", f"{mean.shape} and {log_var.shape}")
        return mean, log_var

    def mode(self, x: Any) -> Any:
        return self.moments(x)[0]

    def draw_latents(self, n: int, seed: int) -> np.ndarray:
        return starting_noise(n, self.latent_shape, seed)
