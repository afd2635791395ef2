import dataclasses
from typing import Any

import keras


@dataclasses.dataclass
class PlayerOptimizers:
    """The optimizers of a GAN's parts. Not a tuple: Keras would save what is in one, and the joined one is saved."""

    generator: keras.optimizers.Optimizer | None = None
    discriminator: keras.optimizers.Optimizer | None = None
    mapping: keras.optimizers.Optimizer | None = None

    @classmethod
    def get(cls, generator: Any, discriminator: Any, mapping: Any) -> "PlayerOptimizers":
        """Returns those that are meant by names, configurations or optimizers."""
        get = keras.optimizers.get
        return cls(get(generator), *(None if choice is None else get(choice) for choice in (discriminator, mapping)))

    def joined(self, discriminator: keras.Layer, mapping: keras.Layer | None) -> keras.optimizers.Optimizer:
        """Returns one optimizer that treats the weights of each part as its own optimizer does, if it has one."""
        own = [
            (part, choice) for part, choice in ((discriminator, self.discriminator), (mapping, self.mapping)) if choice
        ]
        if not own:
            return self.generator

        def choose(variable: keras.Variable) -> keras.optimizers.Optimizer:
            for part, optimizer in own:
                if any(variable is weight for weight in part.trainable_variables):
                    return optimizer
            return self.generator

        return keras.optimizers.MultiOptimizer(choose)

    def serialized(self) -> dict[str, Any]:
        """Returns the arguments of `compile` that give the same."""
        serialize = keras.saving.serialize_keras_object
        return {
            "optimizer": serialize(self.generator),
            "discriminator_optimizer": serialize(self.discriminator),
            "mapping_optimizer": serialize(self.mapping),
        }
