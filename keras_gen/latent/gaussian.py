"""The reparameterization trick for Gaussian latents."""

from typing import Any

import keras
from keras import ops

from keras_gen.core.arrays import sum_per_sample
from keras_gen.core.checks import check, check_nonnegative
from keras_gen.core.random import check_seed, seed_generator
from keras_gen.export import keras_gen_export
from keras_gen.latent.divergences import gaussian_kl


def sample_gaussian(mean: Any, log_var: Any, seed: Any) -> Any:
    """Returns `mean + exp(log_var / 2) eps`, `eps ~ N(0, I)`, in float32."""
    eps = keras.random.normal(ops.shape(mean), dtype="float32", seed=seed)
    return ops.cast(mean, "float32") + ops.exp(0.5 * ops.cast(log_var, "float32")) * eps


@keras_gen_export("keras_gen.layers.GaussianSampling")
class GaussianSampling(keras.layers.Layer):
    """Reparameterization trick: samples `z = mean + exp(log_var / 2) eps`, `eps ~ N(0, I)`, differentiably.

    Samples in both training and inference, since sampling is its purpose. Noise and exponential are float32 under any
    dtype policy.

    Args:
        kl_weight: float >= 0. If positive, the layer adds `kl_weight` times the batch mean of
            `KL(N(mean, exp(log_var)) || N(0, I))`, in nats per sample, to the model's loss. Defaults to `0.0`.
        seed: int or `None`. Defaults to `None`, a seed from Keras's global generator.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        inputs: list of `mean` and `log_var`, both `(batch, ...)` of the same shape.

    Returns:
        z, a tensor like `mean`.

    Raises:
        ValueError: if `kl_weight` is negative, or the inputs are not two tensors of the same shape.

    Example:

    >>> z = keras_gen.layers.GaussianSampling(kl_weight=1.0)([mean, log_var])

    Reference: https://kexue.fm/archives/5253, https://kexue.fm/archives/6705; Kingma and Welling 2013, arXiv:1312.6114.
    """

    def __init__(self, kl_weight: float = 0.0, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.kl_weight = check_nonnegative("kl_weight", kl_weight)
        self.seed = check_seed(seed)
        self.seed_generator = seed_generator(self.seed)

    def build(self, input_shapes: Any) -> None:
        is_pair = (
            isinstance(input_shapes, list | tuple)
            and len(input_shapes) == 2
            and isinstance(input_shapes[0], list | tuple)
        )
        is_same_shape = is_pair and tuple(input_shapes[0]) == tuple(input_shapes[1])
        check(is_same_shape, "inputs", "be a mean and a log_var of the same shape", f"shapes {input_shapes}")

    def call(self, inputs: Any) -> Any:
        mean, log_var = (ops.cast(part, "float32") for part in inputs)
        if self.kl_weight:
            kl = sum_per_sample(gaussian_kl(mean, log_var, 0.0))
            # Of the dtype of the loss that Keras adds it to.
            self.add_loss(ops.cast(self.kl_weight * ops.mean(kl), keras.config.floatx()))
        return ops.cast(sample_gaussian(mean, log_var, self.seed_generator), self.compute_dtype)

    def compute_output_spec(self, inputs: Any) -> keras.KerasTensor:
        return keras.KerasTensor(inputs[0].shape, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "kl_weight": self.kl_weight, "seed": self.seed}
