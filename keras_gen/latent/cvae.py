from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.arrays import sum_per_sample
from keras_gen.core.checks import as_labels, check, check_integer, flat_labels
from keras_gen.export import keras_gen_export
from keras_gen.latent.divergences import gaussian_kl
from keras_gen.latent.gaussian import sample_gaussian
from keras_gen.latent.latent_model import GaussianLatentModel
from keras_gen.latent.likelihoods import Likelihood


@keras_gen_export("keras_gen.models.CVAE")
class CVAE(GaussianLatentModel):
    """Conditional variational autoencoder: each class has a Gaussian prior with a learned mean.

        p(z | y) = N(m_y, I),   loss = E_q[-log p(x | z)] + kl_weight KL(q(z | x) || p(z | y))

    With `kl_weight=1` the loss is minus a lower bound on `log p(x | y)`. Train with `fit(images, labels)`, then
    `sample(n, condition=labels)`.

    Args:
        encoder: as for `VAE`.
        decoder: as for `VAE`.
        num_classes: int >= 1. Labels are integers 0 .. num_classes - 1.
        likelihood: as for `VAE`. Defaults to `"bernoulli"`.
        kl_weight: as for `VAE`. Defaults to `1.0`.
        seed: as for `VAE`.
        **kwargs: `name`, `dtype`, `trainable`, as for any Keras model.

    Call arguments:
        x: data `(batch, ...)`; images are scaled to [-1, 1].

    Returns:
        The data unchanged; use `fit`, `sample`, `encode`, `decode`, `reconstruct` and `elbo`.

    Raises:
        ValueError: as `VAE` does, and if labels are missing or outside their range.

    Reference: https://kexue.fm/archives/5253 (the last section); Sohn et al. 2015, NeurIPS.
    """

    conditional = True

    def __init__(
        self,
        encoder: keras.Layer,
        decoder: keras.Layer,
        num_classes: int,
        likelihood: str | Likelihood = "bernoulli",
        kl_weight: Any = 1.0,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(encoder, decoder, likelihood, kl_weight, seed, **kwargs)
        self.num_classes = check_integer("num_classes", num_classes)

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        shape = (self.num_classes, *self.latent_shape)
        self.means = self.add_weight(name="means", shape=shape, initializer="zeros", autocast=False)

    def infer(self, x: Any, condition: Any, seed: Any, training: bool) -> tuple[Any, Any]:
        mean, log_var = self.moments(x, training)
        kl = gaussian_kl(mean - self._mean(condition), log_var, 0.0)
        return sample_gaussian(mean, log_var, seed), sum_per_sample(kl)

    def to_conditional_prior(self, latents: Any, condition: Any) -> Any:
        return latents + self._mean(condition)

    def prepare_condition(self, condition: Any, n: int, seed: int) -> np.ndarray:
        check(condition is not None, "condition", "be given: the model takes labels", None)
        return as_labels("condition", condition, n, self.num_classes)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_classes": self.num_classes}

    def _mean(self, labels: Any) -> Any:
        return ops.take(ops.cast(self.means, "float32"), ops.cast(flat_labels(labels), "int32"), axis=0)
