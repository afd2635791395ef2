import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.arrays import sum_per_sample
from keras_gen.core.checks import check
from keras_gen.export import keras_gen_export
from keras_gen.latent.gaussian import sample_gaussian
from keras_gen.latent.latent_model import GaussianLatentModel
from keras_gen.latent.likelihoods import Likelihood


@keras_gen_export("keras_gen.models.VAE")
class VAE(GaussianLatentModel):
    """Variational autoencoder with Gaussian latents; the prior is N(0, I) or a learned normalizing flow (f-VAE).

        q(z | x) = N(mean(x), exp(log_var(x))),   p(z) = N(0, I) or a flow
        loss = E_q[-log p(x | z)] + kl_weight KL(q(z | x) || p(z))

    With `kl_weight=1` the loss is the negative ELBO, in nats per sample. Train with `fit(images)`, without a `loss` in
    `compile`. `evaluate` returns the mean loss on other images, `elbo` the bound of each.

    Args:
        encoder: a Keras model from data to a list of `mean` and `log_var`, both `(batch, ...)`.
        decoder: a Keras layer or model from latents to the parameters of the likelihood (for `"bernoulli"` the
            logits).
        likelihood: `"bernoulli"`, `"gaussian"` (unit variance), `"laplace"` (unit scale), or a `Likelihood` (see
            `keras_gen/latent/likelihoods.py`). Defaults to `"bernoulli"`.
        kl_weight: float >= 0, or a `keras.optimizers.schedules.LearningRateSchedule` of the training step, such as a
            warm-up from 0 to 1 (KL annealing) against posterior collapse. Above 1, this is beta-VAE. Defaults to `1.0`.
        prior: a `keras_gen.models.Flow` over latents, trained jointly, with the KL term estimated at the sampled
            latents; or `None`, N(0, I). Defaults to `None`.
        seed: int or `None`. Seed of all random draws. Defaults to `None`, a seed from Keras's global generator.
        **kwargs: `name`, `dtype`, `trainable`, as for any Keras model.

    Call arguments:
        x: data `(batch, ...)`; images are scaled to [-1, 1].

    Returns:
        The data unchanged; use `fit`, `sample`, `encode`, `decode`, `reconstruct` and `elbo`.

    Raises:
        ValueError: if an argument has the wrong type, or encoder, decoder and data are incompatible.

    Example:

    >>> x, z = keras.Input((8, 8, 1)), keras.Input((2,))
    >>> h = keras.layers.Dense(64, "relu")(keras.layers.Flatten()(x))
    >>> encoder = keras.Model(x, [keras.layers.Dense(2)(h), keras.layers.Dense(2)(h)])
    >>> decoder = keras.Sequential([z, keras.layers.Dense(64), keras.layers.Reshape((8, 8, 1))])
    >>> model = keras_gen.models.VAE(encoder, decoder)
    >>> model.compile("adam")
    >>> model.fit(images)                     # float32 (n, 8, 8, 1) in [-1, 1]
    >>> new = model.sample(16, seed=0)        # float32 (16, 8, 8, 1)

    Reference: https://kexue.fm/archives/5253; https://kexue.fm/archives/5977 (f-VAE); Kingma and Welling 2013,
    arXiv:1312.6114.
    """

    def __init__(
        self,
        encoder: keras.Layer,
        decoder: keras.Layer,
        likelihood: str | Likelihood = "bernoulli",
        kl_weight: Any = 1.0,
        prior: keras.Model | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(encoder, decoder, likelihood, kl_weight, seed, **kwargs)
        has_density = prior is None or hasattr(prior, "log_density")
        check(has_density, "prior", "be None or a model with log_density, such as Flow", prior)
        self.prior = prior

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        if self.prior is not None and not self.prior.built:
            self.prior.build((None, *self.latent_shape))

    def infer(self, x: Any, condition: Any, seed: Any, training: bool) -> tuple[Any, Any]:
        if self.prior is None:
            return super().infer(x, condition, seed, training)
        mean, log_var = self.moments(x, training)
        z = sample_gaussian(mean, log_var, seed)
        mean_log_q = -0.5 * sum_per_sample(1 + log_var + math.log(2 * math.pi))  # minus the entropy
        return z, mean_log_q - ops.cast(self.prior.log_density(z, training=training), "float32")

    def draw_latents(self, n: int, seed: int) -> np.ndarray:
        return super().draw_latents(n, seed) if self.prior is None else self.prior.sample(n, seed=seed, verbose=0)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "prior": keras.saving.serialize_keras_object(self.prior)}
