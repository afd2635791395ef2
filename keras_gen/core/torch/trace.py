"""Traced calls of a network on PyTorch: its operations without the overhead of Keras and Python."""

import math
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_gen.core.checks import check
from keras_gen.core.torch.cuda_graph import with_cuda_graph
from keras_gen.core.torch.inductor import compiled_graph, compiles_graphs, warn_untraceable
from keras_gen.core.torch.kernels import transforming
from keras_gen.core.torch.rounding import rounded_operations
from keras_gen.core.torch.switch import takes_fast_paths

PLAIN_CALLS = 8  # tracing takes as long as some 30 traced calls save
WATCHED_CALLS = 2  # at the second call a graph is compiled where that is wanted: the first one shows that it can be
LONGEST_CALL = 1.0  # seconds of a plain call, beside which Keras's overhead is small, and a trace large
KEPT = 16  # traced graphs per network: each keeps the tensors that its operations created from constants


class Trace:
    """Traces a network on PyTorch after a few calls with the same signature, and runs the traced graph from then on.

    Keras's overhead on PyTorch is 0.1 ms per layer call, in total as long as the operations of a small U-Net take.
    The traced graph contains these operations only. Weights are its arguments: it uses their current values, including
    those of a `StatelessScope`, and gradients reach them. Under `mixed_bfloat16` and `mixed_float16` their casts are
    part of it. Values and gradients equal those of the plain call.

    The network must run the same operations in each call: no branches. As in a compiled function, attributes of its
    layers set after tracing, other than weights and their number, have no effect. The network is called normally
    wherever a trace would be incorrect: if the call changes state, such as that of random generators, or adds losses;
    with custom gradients; in int8; with module hooks; and in threads other than the main one, where nothing is traced.
    It is also called normally where a call takes a second or more, as on a CPU that of a network of Stable Diffusion:
    there the trace would save some percent, and cost a gigabyte.

    Within `compiling(True)` graphs are compiled, unless an input wants a gradient: compiled code has no second
    derivative. Otherwise, without gradients and on a GPU, they become CUDA graphs.

    Args:
        network: a built layer, whose weights have one dtype.
        call: its plain call, `call(inputs, training=...)` with nested tensors.
    """

    def __init__(self, network: keras.Layer, call: Callable[..., Any]):
        self.network, self.call = network, call
        self.layers: list[Any] = []
        self.owned: list[int] | None = None
        self.variables: list[Any] = []
        self.calls: Counter[str] = Counter()
        self.shortest: dict[str, float] = {}  # seconds of a plain call
        self.untraceable: set[str] = set()
        self.graphs: dict[str, Callable[..., Any]] = {}

    def __call__(self, inputs: Any, training: bool) -> Any:
        self._refresh_variables()
        values = [variable.value for variable in self.variables]
        # Called within a layer of mixed dtype, the network would get weights that are cast already.
        dtype = "torch." + self.network.variable_dtype
        cast = any(value.is_floating_point() and str(value.dtype) != dtype for value in values)
        if cast or any(_observed(layer) for layer in self.layers):
            return self.call(inputs, training=training)
        key = self._key(values, inputs, training)
        graph = self.graphs.get(key)  # read once: another thread may delete it
        if graph is not None:
            return graph(values, keras.tree.flatten(inputs))
        self._check_devices(values, inputs)
        if key in self.untraceable or threading.current_thread() is not threading.main_thread():
            return self.call(inputs, training=training)
        self.calls[key] += 1
        if self.calls[key] < (WATCHED_CALLS if compiles_graphs() else PLAIN_CALLS):
            return self._watched_call(key, inputs, training)
        del self.calls[key]
        if self.shortest.pop(key) > LONGEST_CALL and not compiles_graphs():
            self.untraceable.add(key)
        else:
            self._keep_graph(key, values, inputs, training)
        return self(inputs, training)

    def _refresh_variables(self) -> None:
        """Updates the network's variables if layers have replaced theirs, by LoRA or quantization."""
        self.layers = self.layers or list(self.network._flatten_layers())
        owned = [id(v) for layer in self.layers for v in (*layer._trainable_variables, *layer._non_trainable_variables)]
        if owned != self.owned:
            self.owned, self.variables = owned, self.network.variables
            for cache in (self.graphs, self.calls, self.shortest, self.untraceable):
                cache.clear()

    def _check_devices(self, values: list[Any], inputs: Any) -> None:
        device = ops.convert_to_tensor(keras.tree.flatten(inputs)[0]).device  # to which Keras moves inputs
        devices = {value.device for value in values}
        rule = f"have its weights on {device}, where Keras puts its inputs"
        check(not devices or device in devices, "network", rule, f"weights on {', '.join(map(str, devices))}")

    def _key(self, values: list[Any], inputs: Any, training: bool) -> str:
        import torch

        named = keras.tree.flatten_with_path(inputs)
        marks = [(path, x.shape, x.stride(), x.dtype, x.device, x.requires_grad) for path, x in named]
        weights = [(x.requires_grad, x.is_contiguous()) for x in values]
        device = named[0][1].device.type
        autocast = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device)
        modes = training, compiles_graphs(), torch.is_grad_enabled(), torch.is_inference_mode_enabled(), autocast
        return str((modes, rounded_operations(), marks, weights, {x.device for x in values}))

    def _watched_call(self, key: str, inputs: Any, training: bool) -> Any:
        state = [(variable, variable.value.clone()) for variable in self.variables if not variable.trainable]
        began = time.perf_counter()
        output = self.call(inputs, training=training)
        self.shortest[key] = min(time.perf_counter() - began, self.shortest.get(key, math.inf))
        same = all(value.equal(variable.value) for variable, value in state)
        if not same or self.network.losses or any(map(_has_own_gradient, keras.tree.flatten(output))):
            self.untraceable.add(key)
        return output

    def _keep_graph(self, key: str, values: list[Any], inputs: Any, training: bool) -> None:
        flat = keras.tree.flatten(inputs)

        def trace() -> Callable[..., Any]:
            return self._traced(values, inputs, training)

        try:
            compiles = compiles_graphs() and not any(x.requires_grad for x in flat)
            make = compiled_graph if compiles else with_cuda_graph
            graph = make(self.network.name, trace, values, flat)
        except Exception as error:  # plain calls succeeded: the network branches on its data
            self.untraceable.add(key)
            warn_untraceable(self.network.name, error)
            return
        if len(self.graphs) == KEPT:
            del self.graphs[next(iter(self.graphs))]
        self.graphs[key] = graph

    def _traced(self, values: list[Any], inputs: Any, training: bool) -> Callable[..., Any]:
        import torch
        from torch.fx.experimental.proxy_tensor import make_fx

        def function(values: list[Any], flat: list[Any]) -> Any:
            with keras.StatelessScope(state_mapping=list(zip(self.variables, values, strict=True))):
                return self.call(keras.tree.pack_sequence_as(inputs, flat), training=training)

        # Tracing runs the operations, and dropout without a seed draws from PyTorch's generator, whose draws must not
        # depend on when a network is traced. Tensors are distinguished by identity: views, in case one is passed twice.
        with torch.random.fork_rng():
            flat = keras.tree.flatten(inputs)
            return _fold_copies(make_fx(function)([x.view_as(x) for x in values], [x.view_as(x) for x in flat]))


def _fold_copies(graph: Any) -> Any:
    """Copies the constants of a traced graph once: each call would copy them to the GPU, and wait for the host."""
    import torch

    copies = torch.ops.aten.lift_fresh_copy.default, torch.ops.aten._to_copy.default
    for node in list(graph.graph.nodes):
        is_copied = node.target in copies and node.args[0].op == "get_attr"
        if is_copied and not any(map(_writes, node.users)):
            name = f"constant_{node.name}"
            graph.register_buffer(name, node.target(getattr(graph, node.args[0].target), **node.kwargs))
            with graph.graph.inserting_before(node):
                node.replace_all_uses_with(graph.graph.get_attr(name))
            graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def _writes(node: Any) -> bool:
    """Returns whether a node of a graph changes one of its arguments in place."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable


def _observed(layer: Any) -> bool:
    """Returns whether a layer has PyTorch hooks, or the custom gradients of int8."""
    hooks = layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks
    return bool(hooks) or getattr(layer, "quantization_mode", None) is not None


def _has_own_gradient(output: Any) -> bool:
    """Returns whether the graph of a tensor contains a function with a custom gradient."""
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


def traceable(inputs: Any) -> bool:
    """Returns whether fast paths apply: to plain tensors outside of transforms, compilation, traces and checkpoints."""
    if not takes_fast_paths():
        return False
    import torch

    tensors = keras.tree.flatten(inputs)
    plain = all(type(x) in (torch.Tensor, torch.nn.Parameter) and not x.is_meta for x in tensors)
    checkpointed = torch._C._autograd._top_saved_tensors_default_hooks(True) is not None
    compiling = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return plain and not (compiling or checkpointed or transforming())


def traced_step(layer: keras.Layer, step: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a step of a loop, `step(i, inputs, state)`, which reads the weights of `layer`, traced on PyTorch.

    Args:
        layer: a built layer, whose weights have one dtype.
        step: takes the index of the step and nested tensors, and returns the new state.
    """
    trace = Trace(layer, lambda arguments, training: step(*arguments))

    def run(i: Any, inputs: Any, state: Any) -> Any:
        if not traceable((inputs, state)):
            return step(i, inputs, state)
        return trace([ops.convert_to_tensor(i, "int32"), inputs, state], False)

    return run
