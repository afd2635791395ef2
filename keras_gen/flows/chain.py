from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_gen.core.checks import check
from keras_gen.export import keras_gen_export
from keras_gen.flows.bijector import Bijector, build_layer


@keras_gen_export("keras_gen.layers.Chain")
class Chain(Bijector):
    """Bijectors one after the other.

        y = f_n(... f_2(f_1(x))),   log_det = sum of all log_dets

    Args:
        bijectors: sequence of bijectors, at least one; the first is the nearest to the data.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        x: `(batch, ...)`.
        condition: `(batch, ...)` or `None`. Goes to each of them. Defaults to `None`.
        inverse: bool. Defaults to `False`.
        training: bool. Defaults to `False`.

    Returns:
        y: `(batch, ...)`.
        log_det: float32 `(batch,)`.

    Raises:
        ValueError: if `bijectors` is empty or holds something else.

    Example:

    >>> coupling = keras_gen.layers.AdditiveCoupling
    >>> chain = keras_gen.layers.Chain([coupling(units=[64], flip=flip) for flip in (False, True)])
    >>> y, log_det = chain(x)

    Reference: https://kexue.fm/archives/5776.
    """

    def __init__(self, bijectors: Sequence[Bijector], **kwargs: Any):
        super().__init__(**kwargs)
        self.bijectors = check_bijectors("bijectors", bijectors)

    def build(self, x_shape: Any, condition_shape: Any = None) -> None:
        for bijector in self.bijectors:
            build_layer(bijector, x_shape, condition_shape)
            x_shape = bijector.output_shape(x_shape)

    def forward_and_log_det(self, x: Any, condition: Any = None, training: bool = False) -> tuple[Any, Any]:
        return self._run(self.bijectors, x, condition, inverse=False, training=training)

    def inverse_and_log_det(self, y: Any, condition: Any = None, training: bool = False) -> tuple[Any, Any]:
        return self._run(self.bijectors[::-1], y, condition, inverse=True, training=training)

    def _run(
        self, bijectors: Sequence[Bijector], x: Any, condition: Any, inverse: bool, training: bool
    ) -> tuple[Any, Any]:
        log_dets = []
        for bijector in bijectors:
            x, log_det = bijector(x, condition, inverse=inverse, training=training)
            log_dets.append(log_det)
        return x, sum(log_dets)

    def check_data(self, name: str, x: np.ndarray) -> None:
        self.bijectors[0].check_data(name, x)

    def output_shape(self, x_shape: Any) -> tuple[int | None, ...]:
        for bijector in self.bijectors:
            x_shape = bijector.output_shape(x_shape)
        return x_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "bijectors": [keras.saving.serialize_keras_object(b) for b in self.bijectors]}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Chain":
        return cls(**keras.saving.deserialize_keras_object(config))


def check_bijectors(name: str, bijectors: Any) -> list[Bijector]:
    """Returns the bijectors as a list; refuses anything else."""
    check(isinstance(bijectors, list | tuple) and len(bijectors) > 0, name, "be a list of bijectors", bijectors)
    for bijector in bijectors:
        check(isinstance(bijector, Bijector), name, "hold bijectors alone", bijector)
    return list(bijectors)
