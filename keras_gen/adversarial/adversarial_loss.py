"""What the two players of a GAN want."""

import abc
from typing import Any


class AdversarialLoss(abc.ABC):
    """Base class: the loss of each player, as a function of the discriminator's outputs.

    To write another: define `discriminator` and `generator`, and `get_config` for the arguments of its own. `real` and
    `fake` are float32 `(batch,)`: `D(x)` of data, the higher the more likely to be data, and `D(G(z))` of samples.
    """

    @abc.abstractmethod
    def discriminator(self, real: Any, fake: Any) -> Any:
        """Returns the loss of the discriminator, float32 `(batch,)`."""

    @abc.abstractmethod
    def generator(self, real: Any, fake: Any) -> Any:
        """Returns the loss of the generator, float32 `(batch,)`."""

    def get_config(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "AdversarialLoss":
        return cls(**config)
