"""What quantizers made of quantizers share."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_gen.core.checks import check
from keras_gen.quantization.quantizer import Quantizer


class CompositeQuantizer(Quantizer):
    """Base class of quantizers that hold others; the index of each is an entry along the last axis.

    Args:
        quantizers: list of quantizers with one index for each position.
        **kwargs: as for any Keras layer.
    """

    def __init__(self, quantizers: Sequence[Quantizer], **kwargs: Any):
        super().__init__(**kwargs)
        parts = isinstance(quantizers, list | tuple) and len(quantizers) > 0
        check(
            parts and all(isinstance(part, Quantizer) for part in quantizers),
            "quantizers",
            "be a list of quantizers",
            quantizers,
        )
        single = all(getattr(part, "num_heads", 1) == 1 and len(part.code_sizes) == 1 for part in quantizers)
        check(single, "quantizers", "have one head and one codebook each", quantizers)
        distinct = len({id(part) for part in quantizers}) == len(quantizers)
        check(distinct, "quantizers", "be different layers", quantizers)
        self.quantizers = list(quantizers)
        for part in self.quantizers:
            part.logged = False
        self.loss_names = tuple(dict.fromkeys(name for part in quantizers for name in part.loss_names))

    @property
    def code_sizes(self) -> tuple[int, ...]:
        return tuple(part.code_sizes[0] for part in self.quantizers)

    def build_parts(self, x_shape: tuple[int | None, ...]) -> None:
        """Builds the quantizers for vectors of `x_shape`."""
        for part in self.quantizers:
            if not part.built:
                part.build(x_shape)
        self.built = True

    def count(self, indices: Any, weights: Any) -> None:
        for i, part in enumerate(self.quantizers):
            part.count(indices[..., i], weights[..., i])

    def counters(self) -> list[keras.Variable]:
        return [part.seen for part in self.quantizers]

    def summed(self, losses: list[dict[str, Any]]) -> dict[str, Any]:
        """Returns the sum over the quantizers of each named loss."""
        return {name: sum(part[name] for part in losses if name in part) for name in self.loss_names}

    def get_config(self) -> dict[str, Any]:
        parts = [keras.saving.serialize_keras_object(part) for part in self.quantizers]
        return {**super().get_config(), "quantizers": parts}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "CompositeQuantizer":
        return cls(**keras.saving.deserialize_keras_object(config))
