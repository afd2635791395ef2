import dataclasses
from typing import Any

import keras


@dataclasses.dataclass
class PlayerOptimizers:
    """The optimizers of the two players. Not a tuple: Keras would save what is in one, and the joined one is saved."""

    generator: keras.optimizers.Optimizer | None = None
    discriminator: keras.optimizers.Optimizer | None = None

    @classmethod
    def get(cls, generator: Any, discriminator: Any) -> "PlayerOptimizers":
        """Returns those that are meant by names, configurations or optimizers."""
        own = None if discriminator is None else keras.optimizers.get(discriminator)
        return cls(keras.optimizers.get(generator), own)

    def joined(self, discriminator: keras.Layer) -> keras.optimizers.Optimizer:
        """Returns one optimizer that treats the weights of `discriminator` as its own optimizer does, if it has one."""
        if self.discriminator is None:
            return self.generator

        def choose(variable: keras.Variable) -> keras.optimizers.Optimizer:
            its_own = any(variable is weight for weight in discriminator.trainable_variables)
            return self.discriminator if its_own else self.generator

        return keras.optimizers.MultiOptimizer(choose)

    def serialized(self) -> dict[str, Any]:
        """Returns the arguments of `compile` that give the same."""
        serialize = keras.saving.serialize_keras_object
        return {"optimizer": serialize(self.generator), "discriminator_optimizer": serialize(self.discriminator)}
