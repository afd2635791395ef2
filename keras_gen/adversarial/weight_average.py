from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


class WeightAverage(keras.layers.Layer):
    """Copies of layers whose weights follow the originals'.

        average <- average + (1 - m) (weight - average),   m = min(momentum, (1 + n) / (10 + n)) in update n

    What is not trained, such as running statistics, is copied.

    Args:
        originals: built layers or models with one input each, which can be copied by their configuration.
        momentum: float in (0, 1).
        **kwargs: `name`, `dtype`, as for any Keras layer.
    """

    def __init__(self, originals: Sequence[keras.Layer], momentum: float, **kwargs: Any):
        super().__init__(trainable=False, **kwargs)
        self.momentum = momentum
        self.layers = [_copy(layer) for layer in originals]
        for layer in self.layers:
            layer.trainable = False
        self.updates = self.add_weight(shape=(), initializer="zeros", dtype="float32", name="updates")
        self.built = True

    def update(self, originals: Sequence[keras.Layer]) -> None:
        """Moves the averages towards the present weights of the originals."""
        n = self.updates + 0
        move = 1 - ops.minimum(self.momentum, (1 + n) / (10 + n))
        for layer, original in zip(self.layers, originals, strict=True):
            for mine, weight in zip(layer.weights, original.weights, strict=True):
                value = ops.stop_gradient(ops.convert_to_tensor(weight))
                follows = mine + ops.cast(move, mine.dtype) * (value - mine)
                mine.assign(follows if weight.trainable else ops.copy(value))
        self.updates.assign(n + 1)


def _copy(layer: keras.Layer) -> keras.Layer:
    twin = type(layer).from_config(layer.get_config())
    if not twin.built:
        twin.build_from_config(layer.get_build_config())
    twin.set_weights(layer.get_weights())
    return twin
