from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.arrays import sum_per_sample
from keras_gen.core.checks import check, check_flag
from keras_gen.core.logits import warn_of_activation
from keras_gen.export import keras_gen_export
from keras_gen.latent.divergences import categorical_kl
from keras_gen.latent.gumbel import gumbel_softmax, scheduled_temperature
from keras_gen.latent.latent_model import LatentModel
from keras_gen.latent.likelihoods import Likelihood


@keras_gen_export("keras_gen.models.GumbelVAE")
class GumbelVAE(LatentModel):
    """Variational autoencoder with categorical latents, trained with the Gumbel-softmax relaxation.

        q(z | x) = prod_n Categorical(logits_n(x)),   p(z) uniform
        loss = E[-log p(x | z)] + kl_weight sum_n KL(q_n || uniform)

    In training z is relaxed (or, with `hard=True`, one-hot with the relaxed gradient), so that the loss is a surrogate
    and not a bound unless `hard`. `evaluate`, `elbo`, and validation during `fit` draw exact one-hot z: there
    `nll + kl` is the negative ELBO, including its constant `N log K`.

    Args:
        encoder: a Keras layer or model from data to logits `(batch, ..., K)`, such as `(batch, N, K)`.
        decoder: as for `VAE`, from `(batch, ..., K)`.
        temperature: float > 0, or a `keras.optimizers.schedules.LearningRateSchedule` of the training step; see
            `layers.GumbelSoftmax`. Defaults to `1.0`.
        hard: bool. Whether to train with one-hot z (straight-through estimator). Defaults to `False`.
        likelihood: as for `VAE`. Defaults to `"bernoulli"`.
        kl_weight: as for `VAE`. Defaults to `1.0`.
        seed: as for `VAE`.
        **kwargs: `name`, `dtype`, `trainable`, as for any Keras model.

    Call arguments:
        x: data `(batch, ...)`; images are scaled to [-1, 1].

    Returns:
        The data unchanged; use `fit`, `sample`, `encode` (one-hot), `decode`, `reconstruct` and `elbo`.

    Raises:
        ValueError: as `VAE` does, and if the temperature is not positive or there is only one class.

    Reference: https://kexue.fm/archives/6705; Jang et al. 2016, arXiv:1611.01144.
    """

    def __init__(
        self,
        encoder: keras.Layer,
        decoder: keras.Layer,
        temperature: Any = 1.0,
        hard: bool = False,
        likelihood: str | Likelihood = "bernoulli",
        kl_weight: Any = 1.0,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(encoder, decoder, likelihood, kl_weight, seed, **kwargs)
        warn_of_activation("encoder", encoder)
        self.temperature = scheduled_temperature(temperature)
        self.hard = check_flag("hard", hard)

    def infer(self, x: Any, condition: Any, seed: Any, training: bool) -> tuple[Any, Any]:
        logits = self._logits(x, training)
        kl = sum_per_sample(categorical_kl(logits))
        temperature = self.temperature(training=training)
        return gumbel_softmax(logits, temperature, self.hard or not training, seed=seed), kl

    def mode(self, x: Any) -> Any:
        logits = self._logits(x, training=False)
        return ops.one_hot(ops.argmax(logits, axis=-1), logits.shape[-1], dtype="float32")

    def draw_latents(self, n: int, seed: int) -> np.ndarray:
        *variables, classes = self.latent_shape
        return np.eye(classes, dtype="float32")[np.random.default_rng(seed).integers(0, classes, (n, *variables))]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "temperature": self.temperature.serialized(), "hard": self.hard}

    def _logits(self, x: Any, training: bool) -> Any:
        logits = ops.cast(self.encoder(x, training=training), "float32")
        shape = tuple(logits.shape)
        check(len(shape) >= 3 and shape[-1] >= 2, "encoder", "return logits of shape (batch, ..., K >= 2)", shape)
        return logits
