"""Traced calls of flows on PyTorch: the operations of all bijectors at once, without Keras between them."""

import functools
from collections.abc import Callable
from typing import Any

import keras

from keras_gen.core.torch.trace import Trace, traceable
from keras_gen.flows.continuous_flow import ContinuousFlow
from keras_gen.flows.masked_autoregressive import MaskedAutoregressive

LOOPS = (ContinuousFlow, MaskedAutoregressive)  # with steps that depend on data, or as many as dimensions
UNKNOWN = (keras.layers.Lambda, keras.layers.TorchModuleWrapper)  # they call functions that may branch


class TracedFunction:
    """A function of tensors that calls the layers of a flow, traced on PyTorch if these repeat their operations.

    Flows with layers of a user's own, which may branch, are called normally, and so are those with loops.

    Args:
        flow: the flow.
        function: `function(inputs, training)` of a list of tensors returns a tensor. A method: in a copy of the flow
            it is that of the copy.
    """

    def __init__(self, flow: keras.Model, function: Callable[..., Any]):
        self.flow, self.function = flow, function
        self.trace = Trace(flow, function)

    def __call__(self, *tensors: Any, training: bool = False) -> Any:
        inputs = [x for x in tensors if x is not None]
        if traceable(inputs) and self.flow.built and self._repeats_its_operations:
            return self.trace(inputs, training)
        return self.function(inputs, training=training)

    @functools.cached_property
    def _repeats_its_operations(self) -> bool:
        """Whether all layers of the flow, which is built, run the same operations in each call."""
        return all(map(_repeats_its_operations, self.flow._flatten_layers()))


def _repeats_its_operations(layer: keras.Layer) -> bool:
    is_known = type(layer).__module__.partition(".")[0] in ("keras", "keras_gen")
    # With `remat`, autograd calls the layer again.
    return is_known and not isinstance(layer, LOOPS + UNKNOWN) and not getattr(layer, "remat", False)
