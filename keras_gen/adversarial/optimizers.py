"""Optimizers of the players of a GAN, and the moving average of the generator's weights."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


@dataclasses.dataclass
class PlayerOptimizers:
    """Optimizers of the parts of a GAN. Not a tuple: Keras would save its elements, besides the joint optimizer."""

    generator: keras.optimizers.Optimizer | None = None
    discriminator: keras.optimizers.Optimizer | None = None
    mapping: keras.optimizers.Optimizer | None = None

    @classmethod
    def get(cls, generator: Any, discriminator: Any, mapping: Any) -> "PlayerOptimizers":
        """Creates the optimizers from names, configurations or optimizers."""
        get = keras.optimizers.get
        return cls(get(generator), *(None if choice is None else get(choice) for choice in (discriminator, mapping)))

    def joined(self, discriminator: keras.Layer, mapping: keras.Layer | None) -> keras.optimizers.Optimizer:
        """Returns one optimizer that applies the optimizer of each part, if it has one, to the weights of that part."""
        parts = ((discriminator, self.discriminator), (mapping, self.mapping))
        own = [(part, choice) for part, choice in parts if part is not None and choice]
        if not own:
            return self.generator

        def choose(variable: keras.Variable) -> keras.optimizers.Optimizer:
            for part, optimizer in own:
                if any(variable is weight for weight in part.trainable_variables):
                    return optimizer
            return self.generator

        return keras.optimizers.MultiOptimizer(choose)

    def serialized(self) -> dict[str, Any]:
        """Returns the arguments of `compile` that recreate these optimizers."""
        serialize = keras.saving.serialize_keras_object
        return {
            "optimizer": serialize(self.generator),
            "discriminator_optimizer": serialize(self.discriminator),
            "mapping_optimizer": serialize(self.mapping),
        }


class WeightAverage(keras.layers.Layer):
    """Copies of layers, with an exponential moving average (EMA) of their weights.

        average <- average + (1 - m) (weight - average),   m = min(momentum, (1 + n) / (10 + n)) in update n

    Updates are the steps of training, by `steps_per_update`, which a model sets where its optimizer accumulates
    gradients.

    Non-trainable weights, such as running statistics, are copied.

    Args:
        originals: built layers or models with one input each, which can be recreated from their configuration.
        momentum: float in (0, 1).
        **kwargs: `name`, `dtype`, as for any Keras layer.
    """

    def __init__(self, originals: Sequence[keras.Layer], momentum: float, **kwargs: Any):
        super().__init__(trainable=False, **kwargs)
        self.momentum = momentum
        self.layers = [_copy(layer) for layer in originals]
        for layer in self.layers:
            layer.trainable = False
        self.steps_per_update = 1
        self.updates = self.add_weight(shape=(), initializer="zeros", dtype="float32", name="updates")
        self.built = True

    def update(self, originals: Sequence[keras.Layer]) -> None:
        """Moves the averages towards the current weights of the originals."""
        steps = self.updates + 0
        n = ops.floor(steps / self.steps_per_update)
        is_update = steps - n * self.steps_per_update == 0
        move = ops.where(is_update, 1 - ops.minimum(self.momentum, (1 + n) / (10 + n)), 0.0)
        for layer, original in zip(self.layers, originals, strict=True):
            for mine, weight in zip(layer.weights, original.weights, strict=True):
                value = ops.stop_gradient(ops.convert_to_tensor(weight))
                follows = mine + ops.cast(move, mine.dtype) * (value - mine)
                mine.assign(follows if weight.trainable else ops.copy(value))
        self.updates.assign(steps + 1)


def _copy(layer: keras.Layer) -> keras.Layer:
    twin = type(layer).from_config(layer.get_config())
    if not twin.built:
        twin.build_from_config(layer.get_build_config())
    twin.set_weights(layer.get_weights())
    return twin
