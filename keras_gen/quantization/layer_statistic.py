from collections.abc import Callable
from typing import Any

import keras
from keras import ops


class LayerStatistic(keras.metrics.Metric):
    """A number that a layer logs, computed from weights of the layer that it adds up itself.

    A metric's own variables would not do: on JAX, Keras hands them to a model's loss, but not to its layers. Weights it
    hands to layers, but not to metrics; so there the value is NaN within an epoch, and right at its end.

    Args:
        name: str.
        weights: returns the layer's weights, to be set to 0 at the start of each epoch.
        statistic: takes their values, returns the number.
    """

    def __init__(self, name: str, weights: Callable[[], list[keras.Variable]], statistic: Callable[[list[Any]], Any]):
        super().__init__(name=name)
        self.layer_weights = weights
        self.statistic = statistic

    def update_state(self, *args: Any, **kwargs: Any) -> None:
        """The layer does it."""

    def reset_state(self) -> None:
        for weight in self.layer_weights():
            weight.assign(ops.zeros(weight.shape))

    def result(self) -> Any:
        with keras.StatelessScope() as scope:
            outer = scope.original_scope
        weights = self.layer_weights()
        if outer is not None and any(outer.get_current_value(weight) is None for weight in weights):
            return ops.convert_to_tensor(float("nan"))
        return self.statistic([ops.convert_to_tensor(weight) for weight in weights])
