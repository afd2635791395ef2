from typing import Any

import keras

from keras_gen.core.checks import check
from keras_gen.export import keras_gen_export
from keras_gen.flows.bijector import Bijector, build_layer


@keras_gen_export("keras_gen.layers.Invert")
class Invert(Bijector):
    """A bijector with its directions exchanged, on the same weights.

        y = f^{-1}(x)

    `Invert(MaskedAutoregressive(...))` is an inverse autoregressive flow (IAF): sampling is the fast direction.

    Args:
        bijector: the bijector f, of which input and output have the same shape.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        x: `(batch, ...)`.
        condition: `(batch, ...)` or `None`. Goes to `bijector`. Defaults to `None`.
        inverse: bool. Defaults to `False`.
        training: bool. Defaults to `False`.

    Returns:
        y: a tensor like `x`.
        log_det: float32 `(batch,)`.

    Raises:
        ValueError: if `bijector` is no bijector, or changes the shape of `x`.

    Example:

    >>> inverse_autoregressive = keras_gen.layers.Invert(keras_gen.layers.MaskedAutoregressive([64]))

    Reference: Kingma et al. 2016, arXiv:1606.04934; Papamakarios et al. 2017, arXiv:1705.07057.
    """

    def __init__(self, bijector: Bijector, **kwargs: Any):
        super().__init__(**kwargs)
        check(isinstance(bijector, Bijector), "bijector", "be a bijector", bijector)
        self.bijector = bijector

    def build(self, x_shape: Any, condition_shape: Any = None) -> None:
        build_layer(self.bijector, x_shape, condition_shape)
        y_shape = self.bijector.output_shape(x_shape)
        check(tuple(y_shape) == tuple(x_shape), "bijector", "keep the shape of its input", f"{x_shape} -> {y_shape}")

    def forward_and_log_det(self, x: Any, condition: Any = None, training: bool = False) -> tuple[Any, Any]:
        return self.bijector(x, condition, inverse=True, training=training)

    def inverse_and_log_det(self, y: Any, condition: Any = None, training: bool = False) -> tuple[Any, Any]:
        return self.bijector(y, condition, training=training)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "bijector": keras.saving.serialize_keras_object(self.bijector)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Invert":
        return cls(**keras.saving.deserialize_keras_object(config))
