"""Traced calls of a network on PyTorch: its operations without the work of Keras and Python between them."""

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import keras

from keras_gen.core.torch.kernels import transforming
from keras_gen.core.torch.switch import takes_fast_paths

PLAIN_CALLS = 8  # tracing takes as long as some 30 calls gain
KEPT = 16  # traced graphs of one network: each keeps the tensors that its operations made of constants


class Trace:
    """Traces a network on PyTorch after a few calls with the same signature, and runs the traced graph from then on.

    Keras spends 0.1 ms on each layer that it calls on PyTorch, as long as the operations of a small U-Net take in all.
    The traced graph holds these operations alone. Weights are its arguments: it sees their present values, also those
    of a `StatelessScope`, and gradients reach them. Values and gradients are those of the plain call.

    The network must run the same operations in each call: no branches. As in a compiled function, what is set on its
    layers after tracing, other than weights and their number, is not seen. The network is called normally wherever a
    trace would be incorrect: while its state changes, as random generators do, or losses are added in the call; where
    a gradient is not PyTorch's own; in int8; where modules have hooks; in other threads than the main one, where
    nothing is traced.

    Args:
        network: a built layer, of one dtype.
        call: its plain call, `call(inputs, training=...)`.
    """

    def __init__(self, network: keras.Layer, call: Callable[..., Any]):
        self.network, self.call = network, call
        self.layers: list[Any] = []
        self.owned: list[int] | None = None
        self.variables: list[Any] = []
        self.calls: Counter[str] = Counter()
        self.untraceable: set[str] = set()
        self.graphs: dict[str, Callable[..., Any]] = {}

    def __call__(self, inputs: list[Any], training: bool) -> Any:
        self._refresh_variables()
        values = [variable.value for variable in self.variables]
        # Within a layer of another dtype, weights have that one.
        own = "torch." + self.network.variable_dtype
        cast = any(value.is_floating_point() and str(value.dtype) != own for value in values)
        if cast or any(_observed(layer) for layer in self.layers):
            return self.call(inputs, training=training)
        key = self._key(values, inputs, training)
        graph = self.graphs.get(key)  # once: another thread may drop it
        if graph is not None:
            return graph(values, inputs)
        if key in self.untraceable or threading.current_thread() is not threading.main_thread():
            return self.call(inputs, training=training)
        self.calls[key] += 1
        if self.calls[key] < PLAIN_CALLS:
            return self._watched_call(key, inputs, training)
        del self.calls[key]
        if len(self.graphs) == KEPT:
            del self.graphs[next(iter(self.graphs))]
        self.graphs[key] = self._traced(values, inputs, training)
        return self.graphs[key](values, inputs)

    def _refresh_variables(self) -> None:
        """Reads the network's variables anew where layers have got others, by LoRA or quantization."""
        self.layers = self.layers or list(self.network._flatten_layers())
        owned = [id(v) for layer in self.layers for v in (*layer._trainable_variables, *layer._non_trainable_variables)]
        if owned != self.owned:
            self.owned, self.variables = owned, self.network.variables
            for known in (self.graphs, self.calls, self.untraceable):
                known.clear()

    def _key(self, values: list[Any], inputs: list[Any], training: bool) -> str:
        import torch

        marks = [(x.shape, x.stride(), x.dtype, x.device, x.requires_grad) for x in inputs]
        weights = [(x.requires_grad, x.is_contiguous()) for x in values]
        device = inputs[0].device.type
        autocast = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device)
        return str((training, torch.is_grad_enabled(), torch.is_inference_mode_enabled(), autocast, marks, weights))

    def _watched_call(self, key: str, inputs: list[Any], training: bool) -> Any:
        state = [(variable, variable.value.clone()) for variable in self.variables if not variable.trainable]
        output = self.call(inputs, training=training)
        same = all(value.equal(variable.value) for variable, value in state)
        if not same or self.network.losses or _has_own_gradient(output):
            self.untraceable.add(key)
        return output

    def _traced(self, values: list[Any], inputs: list[Any], training: bool) -> Callable[..., Any]:
        from torch.fx.experimental.proxy_tensor import make_fx

        def function(values: list[Any], inputs: list[Any]) -> Any:
            with keras.StatelessScope(state_mapping=list(zip(self.variables, values, strict=True))):
                return self.call(inputs, training=training)

        # Tensors are told apart by their identity: views, in case one is given twice.
        return make_fx(function)([x.view_as(x) for x in values], [x.view_as(x) for x in inputs])


def _observed(layer: Any) -> bool:
    """Returns whether a layer has hooks of PyTorch's, or the gradients of int8."""
    hooks = layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks
    return bool(hooks) or getattr(layer, "quantization_mode", None) is not None


def _has_own_gradient(output: Any) -> bool:
    """Returns whether a function with a gradient of its own has a part in a tensor."""
    from torch.autograd.function import BackwardCFunction

    nodes, seen = [output.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if isinstance(node, BackwardCFunction):
            return True
        if node is not None and node not in seen:
            seen.add(node)
            nodes += [following for following, _ in node.next_functions]
    return False


def traceable(inputs: list[Any]) -> bool:
    """Returns whether fast paths are taken, for plain tensors in no transformation, compilation or checkpoint."""
    if not takes_fast_paths():
        return False
    import torch

    plain = all(type(x) in (torch.Tensor, torch.nn.Parameter) and not x.is_meta for x in inputs)
    checkpointed = torch._C._autograd._top_saved_tensors_default_hooks(True) is not None
    return plain and not (torch.compiler.is_compiling() or checkpointed or transforming())
