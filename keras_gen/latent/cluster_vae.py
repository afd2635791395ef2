import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.checks import as_labels, check, check_integer, check_layer
from keras_gen.core.logits import warn_of_activation
from keras_gen.export import keras_gen_export
from keras_gen.latent.gaussian import sample_gaussian
from keras_gen.latent.latent_model import GaussianLatentModel
from keras_gen.latent.likelihoods import Likelihood


@keras_gen_export("keras_gen.models.ClusterVAE")
class ClusterVAE(GaussianLatentModel):
    """Variational autoencoder for clustering: a discrete latent y, and a Gaussian prior for each cluster.

        p(y) = 1 / K,   p(z | y) = N(m_y, I),   q(y, z | x) = q(z | x) q(y | z)
        kl = E_q[sum_y q(y | z) log(q(z | x) / p(z | y))] + KL(q(y | z) || p(y))

    `nll + kl` is minus a lower bound on `log p(x)`, including the constant `log K`. Train with `fit(images)`, without
    labels; `cluster(images)` returns the cluster assignments.

    Args:
        encoder: as for `VAE`.
        decoder: as for `VAE`.
        classifier: a Keras layer or model from latents to the `num_clusters` logits of q(y | z).
        num_clusters: int >= 2, K. Defaults to `10`.
        likelihood: as for `VAE`. Defaults to `"bernoulli"`.
        kl_weight: as for `VAE`. Defaults to `1.0`.
        seed: as for `VAE`.
        **kwargs: `name`, `dtype`, `trainable`, as for any Keras model.

    Call arguments:
        x: data `(batch, ...)`; images are scaled to [-1, 1].

    Returns:
        The data unchanged; use `fit`, `cluster`, `sample`, `encode`, `decode`, `reconstruct` and `elbo`.

    Raises:
        ValueError: as `VAE` does, and if the classifier does not return `num_clusters` logits.

    Reference: https://kexue.fm/archives/5887.
    """

    def __init__(
        self,
        encoder: keras.Layer,
        decoder: keras.Layer,
        classifier: keras.Layer,
        num_clusters: int = 10,
        likelihood: str | Likelihood = "bernoulli",
        kl_weight: Any = 1.0,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(encoder, decoder, likelihood, kl_weight, seed, **kwargs)
        self.num_clusters = check_integer("num_clusters", num_clusters, at_least=2)
        check_layer("classifier", classifier)
        warn_of_activation("classifier", classifier)
        self.classifier = classifier

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        shape = tuple(self.classifier(keras.Input(self.latent_shape)).shape[1:])
        needed = (self.num_clusters,)
        check(shape == needed, "classifier", f"return outputs of shape {needed}", f"outputs of shape {shape}")
        check(len(self.latent_shape) == 1, "encoder", "return latents of shape (batch, dim)", self.latent_shape)
        shape = (self.num_clusters, *self.latent_shape)
        self.means = self.add_weight(name="means", shape=shape, initializer="zeros", autocast=False)

    def infer(self, x: Any, condition: Any, seed: Any, training: bool) -> tuple[Any, Any]:
        mean, log_var = self.moments(x, training)
        z = sample_gaussian(mean, log_var, seed)
        log_q = ops.log_softmax(ops.cast(self.classifier(z, training=training), "float32"), axis=-1)
        q = ops.exp(log_q)
        # E[log q(z | x)] in closed form, log p(z | y) at the sampled z; the constants log 2 pi cancel.
        distance = ops.sum(ops.square(ops.expand_dims(z, 1) - ops.cast(self.means, "float32")), axis=-1)
        kl_z = 0.5 * ops.sum(q * distance, axis=-1) - 0.5 * ops.sum(1 + log_var, axis=-1)
        return z, kl_z + ops.sum(q * log_q, axis=-1) + math.log(self.num_clusters)

    def cluster(self, x: Any, batch_size: int = 256) -> np.ndarray:
        """Computes the most likely cluster, `argmax_y q(y | z)` at the mean of q(z | x).

        Args:
            x: `(n, *data_shape)`.
            batch_size: int >= 1. Defaults to `256`.

        Returns:
            int32 array `(n,)`.

        Raises:
            ValueError: if `x` is incompatible with the model.
        """

        def most_likely(x: Any) -> Any:
            return ops.cast(ops.argmax(self.classifier(self.mode(x), training=False), axis=-1), "int32")

        return self.in_batches("cluster", most_likely, self.prepare_data("x", x), batch_size=batch_size)

    def to_conditional_prior(self, latents: Any, condition: Any) -> Any:
        return latents + ops.take(ops.cast(self.means, "float32"), condition, axis=0)

    def prepare_condition(self, condition: Any, n: int, seed: int) -> np.ndarray:
        # Without a condition, each sample draws a cluster at random.
        if condition is None:
            condition = np.random.default_rng([seed, 1]).integers(0, self.num_clusters, n)
        return as_labels("condition", condition, n, self.num_clusters)

    def get_config(self) -> dict[str, Any]:
        classifier = keras.saving.serialize_keras_object(self.classifier)
        return {**super().get_config(), "classifier": classifier, "num_clusters": self.num_clusters}
