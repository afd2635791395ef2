"""Calls of a network on PyTorch without the work of Keras and Python between its operations."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_gen.core.transformation import transforming

PLAIN_CALLS = 8  # a recording takes as long as some 30 calls gain
NEVER = -(2**62)


class Replay:
    """Calls a network on PyTorch, after some calls with like inputs by replaying the operations of one of them.

    Keras spends 0.1 ms on each layer that it calls on PyTorch, as long as the operations of a small U-Net take in all.
    The recording holds these alone. Weights are its arguments: it sees their present values, also those of a
    `StatelessScope`, and gradients reach them. Numbers and gradients are those of the call.

    The network must do the same operations in each call: no branches. One that changes its state, as random generators
    do, is called as ever, and so is one whose modules have hooks of PyTorch's.

    Args:
        network: a built layer, of one dtype.
        call: its call as it is without this, `call(inputs, training=...)`.
    """

    def __init__(self, network: keras.Layer, call: Callable[..., Any]):
        self.network, self.call = network, call
        self.variables = network.variables
        self.modules: list[Any] = []
        self.calls: Counter[str] = Counter()
        self.programs: dict[str, Callable[..., Any]] = {}

    def __call__(self, inputs: list[Any], training: bool) -> Any:
        import torch

        self.modules = self.modules or list(self.network._flatten_layers())
        if any(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks for module in self.modules):
            return self.call(inputs, training=training)
        values = [variable.value for variable in self.variables]
        # That a weight learns, or no longer does, is the mark of a changed network, too.
        marks = [(x.shape, x.dtype, x.device, x.requires_grad) for x in inputs], [x.requires_grad for x in values]
        modes = (
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.is_autocast_enabled(inputs[0].device.type),
        )
        key = str((training, modes, marks))
        if key in self.programs:
            return self.programs[key](values, inputs)
        self.calls[key] += 1
        if self.calls[key] < PLAIN_CALLS:
            return self._call(key, inputs, training)
        if len(self.variables) != len(self.network.variables):
            self.variables = self.network.variables
            return self(inputs, training)
        self.programs[key] = self._record(inputs, training)
        return self(inputs, training)

    def _call(self, key: str, inputs: list[Any], training: bool) -> Any:
        if self.calls[key] < 0:
            return self.call(inputs, training=training)
        state = [(variable, variable.value.clone()) for variable in self.network.variables if not variable.trainable]
        output = self.call(inputs, training=training)
        if not all(value.equal(variable.value) for variable, value in state):
            self.calls[key] = NEVER
        return output

    def _record(self, inputs: list[Any], training: bool) -> Callable[..., Any]:
        from torch.fx.experimental.proxy_tensor import make_fx

        def function(values: list[Any], inputs: list[Any]) -> Any:
            with keras.StatelessScope(state_mapping=list(zip(self.variables, values, strict=True))):
                return self.call(inputs, training=training)

        return make_fx(function)([variable.value for variable in self.variables], inputs)


def replayable(inputs: list[Any]) -> bool:
    """Returns whether these are PyTorch's plain tensors, in no transformation or compilation of a function."""
    if keras.backend.backend() != "torch":
        return False
    import torch

    plain = all(ops.is_tensor(x) and type(x) in (torch.Tensor, torch.nn.Parameter) and not x.is_meta for x in inputs)
    return plain and not torch.compiler.is_compiling() and not transforming()
