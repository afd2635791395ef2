from typing import Any

import numpy as np
from keras import ops

from keras_gen.core.checks import check
from keras_gen.core.noise import starting_noise
from keras_gen.core.per_sample import per_sample
from keras_gen.export import keras_gen_export
from keras_gen.latent.gaussian_kl import gaussian_kl
from keras_gen.latent.gaussian_sampling import sample_gaussian
from keras_gen.latent.latent_model import LatentModel


@keras_gen_export("keras_gen.models.VAE")
class VAE(LatentModel):
    """Variational autoencoder with Gaussian latents.

        q(z | x) = N(mean(x), exp(log_var(x))),   p(z) = N(0, I)
        loss = E_q[-log p(x | z)] + kl_weight KL(q(z | x) || p(z))

    With `kl_weight=1` the loss is minus a bound on the log-likelihood, in nats per sample. Train with `fit(images)`; no
    `loss` is given to `compile`. `evaluate` gives the bound on other images, `elbo` for each.

    Args:
        encoder: a Keras model from data to a list of `mean` and `log_var`, both `(batch, ...)`.
        decoder: a Keras layer or model from latents to the parameters of the likelihood (for `"bernoulli"` the
            logits).
        likelihood: `"bernoulli"`, `"gaussian"` (of variance 1), or a `Likelihood`, see `keras_gen/losses.py`. Defaults
            to `"bernoulli"`.
        kl_weight: float >= 0, or a `keras.optimizers.schedules.LearningRateSchedule` of the training step, such as one
            from 0 to 1 that lets the latents find a use first. Above 1, this is beta-VAE. Defaults to `1.0`.
        seed: int or `None`. Seeds all draws of the model. Defaults to `None`, a seed from Keras's global one.
        **kwargs: `name`, `dtype`, `trainable`, as for any Keras model.

    Call arguments:
        x: data `(batch, ...)`; images are scaled to [-1, 1].

    Returns:
        The data unchanged: the work is in `fit`, `sample`, `encode`, `decode`, `reconstruct` and `elbo`.

    Raises:
        ValueError: if an argument is of the wrong type, or encoder, decoder and data do not fit together.

    Example:

    >>> x, z = keras.Input((8, 8, 1)), keras.Input((2,))
    >>> h = keras.layers.Dense(64, "relu")(keras.layers.Flatten()(x))
    >>> encoder = keras.Model(x, [keras.layers.Dense(2)(h), keras.layers.Dense(2)(h)])
    >>> decoder = keras.Sequential([z, keras.layers.Dense(64), keras.layers.Reshape((8, 8, 1))])
    >>> model = keras_gen.models.VAE(encoder, decoder)
    >>> model.compile("adam")
    >>> model.fit(images)                     # float32 (n, 8, 8, 1) in [-1, 1]
    >>> new = model.sample(16, seed=0)        # float32 (16, 8, 8, 1)

    Reference: https://kexue.fm/archives/5253; Kingma and Welling 2013, arXiv:1312.6114.
    """

    def infer(self, x: Any, condition: Any, seed: Any, training: bool) -> tuple[Any, Any]:
        mean, log_var = self.moments(x, training)
        return sample_gaussian(mean, log_var, seed), per_sample(gaussian_kl(mean, log_var, 0.0))

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
