from typing import Any

import keras
from keras import ops

from keras_gen.core.checks import check, is_number
from keras_gen.export import keras_gen_export
from keras_gen.latent.von_mises_fisher import AngleTable, unit_vectors


@keras_gen_export("keras_gen.layers.VonMisesFisherSampling")
class VonMisesFisherSampling(keras.layers.Layer):
    """Samples on the unit sphere around a direction: `z = cos(a) mu + sin(a) nu`, of density ~ `exp(kappa mu . z)`.

    `nu` is uniform among the directions across mu; the angle a comes from its inverse distribution function, tabulated
    once. The divergence from the uniform distribution depends on kappa and the dimension alone: it is the attribute
    `kl`, in nats, once the layer is built. Draws in training and in inference alike.

    Args:
        kappa: float >= 0. The concentration; 0 is uniform. Defaults to `20.0`.
        seed: int or `None`. Defaults to `None`, a seed from Keras's global one.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        x: float tensor `(batch, dim)`, `dim >= 2`, not zero: `mu = x / |x|`.

    Returns:
        A tensor like `x`, of unit length along the last axis.

    Raises:
        ValueError: if `kappa` is negative or `x` does not have shape `(batch, dim >= 2)`.

    Reference: https://kexue.fm/archives/8404; Davidson et al. 2018, arXiv:1804.00891.
    """

    def __init__(self, kappa: float = 20.0, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        check(is_number(kappa) and kappa >= 0, "kappa", "be >= 0", repr(kappa))
        self.kappa = float(kappa)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, x_shape: tuple[int | None, ...]) -> None:
        check(len(x_shape) == 2 and x_shape[-1] >= 2, "x", "have shape (batch, dim >= 2)", f"shape {tuple(x_shape)}")
        self.table = AngleTable(x_shape[-1], self.kappa)
        self.kl = self.table.kl

    def call(self, x: Any) -> Any:
        return ops.cast(self.table.draw(unit_vectors(x), self.seed_generator), self.compute_dtype)

    def compute_output_shape(self, x_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return x_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "kappa": self.kappa, "seed": self.seed}
