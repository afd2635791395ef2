"""An autoencoder as a function from data to reconstructions."""

from collections.abc import Callable, Sequence
from typing import Any

import keras


class Reconstruction(keras.layers.Layer):
    """Layer that applies a function, and holds the layers whose weights it reads, for use in a functional model."""

    def __init__(self, function: Callable[[Any], Any], parts: Sequence[keras.Layer], **kwargs: Any):
        super().__init__(**kwargs)
        self.function = function
        self.parts = list(parts)
        self.built = True

    def call(self, x: Any) -> Any:
        return self.function(x)
