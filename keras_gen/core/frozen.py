"""Frozen layers, which stay frozen in files, together with their sublayers."""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import keras

if TYPE_CHECKING:
    from keras import Layer as Mixin  # which comes later among the bases of each class
else:
    Mixin = object


def frozen_layers(layer: keras.Layer) -> list[int]:
    """Returns which of a layer and its sublayers are frozen, as indices; a shared sublayer counts once."""
    return [i for i, part in enumerate(layer._flatten_layers()) if not part.trainable]


def freeze_layers(layer: keras.Layer, frozen: Collection[int]) -> None:
    """Freezes those of a layer and its sublayers that `frozen_layers` found, and makes all others trainable."""
    # From the outside in: `trainable` reaches all sublayers.
    for i, part in enumerate(layer._flatten_layers()):
        if part.trainable == (i in frozen):
            part.trainable = i not in frozen


def pass_on_frozen(layer: keras.Layer) -> None:
    """Freezes the sublayers of a frozen layer."""
    if not layer.trainable:
        for part in layer._flatten_layers(include_self=False):
            # Not through the layer's own flag: TensorFlow skips assignments of the value that an attribute has already.
            part.trainable = False


class StaysFrozen(Mixin):
    """Mixin of layers and models that create sublayers, before `keras.Layer` or `keras.Model` among the bases.

    Keras's configuration of a layer contains `trainable`, but the flag is set before there are sublayers, which keep
    their own, true by default. It is therefore passed on when the layer is built, and the configuration for `build`
    lists the frozen sublayers.
    """

    trainable: bool

    def _post_build(self) -> None:
        super()._post_build()
        pass_on_frozen(self)

    def get_build_config(self) -> dict[str, Any] | None:
        config, frozen = super().get_build_config(), frozen_layers(self)
        return {**config, "frozen": frozen} if config and frozen else config

    def build_from_config(self, config: dict[str, Any]) -> None:
        shapes = {key: value for key, value in config.items() if key != "frozen"}
        super().build_from_config(shapes)
        if "frozen" in config:
            freeze_layers(self, config["frozen"])
