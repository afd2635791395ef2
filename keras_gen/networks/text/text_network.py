"""Base class of the networks that encode token ids."""

from typing import Any

import keras
import numpy as np

from keras_gen.core.checks import check, check_integer, check_integer_or_none, is_array
from keras_gen.core.frozen import freeze_layers, frozen_layers, pass_on_frozen
from keras_gen.networks.blocks.layouts import ATTENTION, MLP, SplitWeights


class TextNetwork(SplitWeights, keras.Model):
    """Base class of text encoders, called as `encoder(ids)`, which returns a dict of tensors; one of them is "tokens".

    Ids outside of the vocabulary are refused where they are in a NumPy array: JAX would replace them silently.

    To implement an encoder: make its layers in the constructor, then call `finish`; build them in `build`.

    Args:
        vocabulary_size: int >= 1. Ids are 0 .. vocabulary_size - 1.
        max_length: int >= 1, or `None` for any length.
        **kwargs: `name`, `dtype`, `trainable`.
    """

    splits = (ATTENTION, MLP)

    trainable: bool

    def __init__(self, vocabulary_size: int, max_length: int | None, **kwargs: Any):
        super().__init__(**kwargs)
        self.vocabulary_size = check_integer("vocabulary_size", vocabulary_size)
        self.max_length = check_integer_or_none("max_length", max_length)

    def finish(self) -> None:
        """Builds the network, whose shapes do not depend on data."""
        self.build((None, None))
        pass_on_frozen(self)  # Keras sets the flag before there are sublayers

    def __call__(self, ids: Any, *args: Any, **kwargs: Any) -> Any:
        self._check_ids(ids)
        return super().__call__(ids, *args, **kwargs)

    def _check_ids(self, ids: Any) -> None:
        check(is_array(ids), "ids", "be an array or a tensor", type(ids).__name__)
        dtype = keras.backend.standardize_dtype(ids.dtype)
        check("int" in dtype, "ids", "be integers", f"dtype {dtype}")
        check(len(ids.shape) == 2, "ids", "have shape (batch, tokens)", f"shape {tuple(ids.shape)}")
        length = ids.shape[1]
        if self.max_length is not None and isinstance(length, int):
            check(
                length <= self.max_length, "ids", f"have at most {self.max_length} tokens", f"shape {tuple(ids.shape)}"
            )
        if isinstance(ids, np.ndarray):
            outside = np.unique(ids[(ids < 0) | (ids >= self.vocabulary_size)])
            check(outside.size == 0, "ids", f"be in 0 .. {self.vocabulary_size - 1}", outside[:5])

    def get_config(self) -> dict[str, Any]:
        frozen = frozen_layers(self)
        return {**super().get_config(), **({"frozen": frozen} if frozen else {})}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "TextNetwork":
        # Not by the configuration for `build`, as the network is built when it is made.
        arguments = {key: value for key, value in config.items() if key != "frozen"}
        network = cls(**arguments)
        if "frozen" in config:
            freeze_layers(network, config["frozen"])
        return network
