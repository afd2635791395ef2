from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.arrays import unit_vectors
from keras_gen.core.checks import check, check_nonnegative
from keras_gen.core.random import starting_noise
from keras_gen.export import keras_gen_export
from keras_gen.latent.latent_model import LatentModel
from keras_gen.latent.likelihoods import Likelihood
from keras_gen.latent.von_mises_fisher import AngleTable


@keras_gen_export("keras_gen.models.VonMisesFisherVAE")
class VonMisesFisherVAE(LatentModel):
    """Variational autoencoder with latents on the unit sphere.

        q(z | x) = vMF(mu(x), kappa),   p(z) uniform on the sphere,   KL(q || p) a constant

    For `kappa > 0` the KL term is a positive constant, so the posterior cannot collapse. It is included in the loss,
    so that `nll + kl` is the negative ELBO.

    Args:
        encoder: a Keras layer or model from data to `(batch, dim)`, `dim >= 2`; mu is the normalized output.
        decoder: as for `VAE`.
        kappa: float >= 0. The concentration. Defaults to `20.0`.
        likelihood: as for `VAE`. Defaults to `"bernoulli"`.
        kl_weight: as for `VAE`; without effect on training, since the KL term is constant. Defaults to `1.0`.
        seed: as for `VAE`.
        **kwargs: `name`, `dtype`, `trainable`, as for any Keras model.

    Call arguments:
        x: data `(batch, ...)`; images are scaled to [-1, 1].

    Returns:
        The data unchanged; use `fit`, `sample`, `encode`, `decode`, `reconstruct` and `elbo`.

    Raises:
        ValueError: as `VAE` does, and if `kappa` is negative or latents do not have shape `(batch, dim >= 2)`.

    Reference: https://kexue.fm/archives/8404; Davidson et al. 2018, arXiv:1804.00891.
    """

    def __init__(
        self,
        encoder: keras.Layer,
        decoder: keras.Layer,
        kappa: float = 20.0,
        likelihood: str | Likelihood = "bernoulli",
        kl_weight: Any = 1.0,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(encoder, decoder, likelihood, kl_weight, seed, **kwargs)
        self.kappa = check_nonnegative("kappa", kappa)

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        is_vector = len(self.latent_shape) == 1 and self.latent_shape[0] >= 2
        check(is_vector, "encoder", "return latents of shape (batch, dim >= 2)", self.latent_shape)
        self.table = AngleTable(self.latent_shape[0], self.kappa)

    def infer(self, x: Any, condition: Any, seed: Any, training: bool) -> tuple[Any, Any]:
        z = self.table.draw(unit_vectors(self.encoder(x, training=training)), seed)
        return z, ops.full_like(z[:, 0], self.table.kl)

    def mode(self, x: Any) -> Any:
        return unit_vectors(self.encoder(x, training=False))

    def draw_latents(self, n: int, seed: int) -> np.ndarray:
        z = starting_noise(n, self.latent_shape, seed)
        return z / np.linalg.norm(z, axis=-1, keepdims=True)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "kappa": self.kappa}
