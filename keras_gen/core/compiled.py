"""Compilation of functions that read a model's weights, batches of equal size, and compiled loops."""

import collections
import dataclasses
import itertools
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.checks import check_verbose
from keras_gen.core.replicas import sharing
from keras_gen.core.torch.inductor import compiling

MAX_PROGRAMS = 16  # kept by each model
PROGRAMS_LOCK = threading.Lock()
BAR_UPDATES = 20  # of a progress bar in a compiled loop, which stops for each of them


def compiled(
    model: keras.Layer | None, function: Callable[..., Any], extra_layers: Sequence[keras.Layer] = ()
) -> Callable[..., Any]:
    """Compiles `function` by `jax.jit` or `tf.function`; on torch, disables gradients, and compiles traced networks.

    The weights of `model` are arguments of the compiled function, so it always uses their current values. Otherwise
    the function must be pure: assignments are lost on JAX. It is recompiled for each new shape of an argument.

    Args:
        model: the model or layer whose variables `function` reads, or `None`.
        function: takes and returns (nested structures of) tensors.
        extra_layers: further layers whose variables it reads. Defaults to `()`.

    Returns:
        A function with the same arguments.
    """
    match keras.backend.backend():
        case "jax":
            import jax

            variables = variables_of(model, *extra_layers)

            @jax.jit
            def stateless(values: list[Any], *args: Any) -> Any:
                with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
                    return function(*args)

            return lambda *args: stateless([variable.value for variable in variables], *args)
        case "tensorflow":
            import tensorflow as tf

            # Loops and branches are those of `keras.ops`: AutoGraph has nothing to convert, and fails at `match`.
            traced = tf.function(function, jit_compile=getattr(model, "jit_compile", False), autograph=False)
            # Through `get_concrete_function`: a plain call warns of too many traces, here one per shape.
            return lambda *args: traced.get_concrete_function(*args)(*args)
        case "torch":
            import torch

            return compiling(getattr(model, "jit_compile", False))(torch.no_grad()(function))
        case _:
            return function


def variables_of(*layers: keras.Layer | None) -> list[keras.Variable]:
    """Returns the variables of layers, in order, `None` for no layer."""
    return [variable for layer in layers for variable in getattr(layer, "variables", [])]


class CompiledFunctions:
    """The compiled functions of a model that were used last, by key and by the variables that they read.

    Whatever replaces variables, such as `quantize("int8")` or `enable_lora`, thus leads to another program. Not a dict:
    Keras would track and save the contents of a dict.
    """

    def __init__(self) -> None:
        self.by_key: collections.OrderedDict[Any, Callable[..., Any]] = collections.OrderedDict()

    def get(self, key: Any, function: Callable[..., Any], *layers: keras.Layer) -> Callable[..., Any]:
        """Returns `function`, which reads the weights of `layers`, compiled once for each key."""
        variables = variables_of(*layers)
        # By identity: the entry holds the variables, so that none of these numbers is given to a new one.
        key = key, tuple(map(id, variables))
        with PROGRAMS_LOCK:
            if key not in self.by_key:
                self.by_key[key] = Program(compiled(layers[0], function, layers[1:]), variables)
                if len(self.by_key) > MAX_PROGRAMS:
                    self.by_key.popitem(last=False)
            self.by_key.move_to_end(key)
            return self.by_key[key]


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled function and the variables that it reads."""

    run: Callable[..., Any]
    variables: list[keras.Variable]

    def __call__(self, *args: Any) -> Any:
        return self.run(*args)


def as_tensor(array: np.ndarray | np.generic, float_dtype: Any = "float32") -> Any:
    """Converts an argument of a compiled function: floats to `float_dtype`, int64 to int32, seeds unchanged."""
    if array.dtype.kind == "f":
        return ops.convert_to_tensor(array, str(float_dtype))
    return ops.convert_to_tensor(array, "int32" if array.dtype == "int64" else None)


def shapes_of(arrays: Any) -> tuple[Any, ...]:
    """Returns the shapes without the batch and the dtypes of nested arrays: a key of a program that takes them."""
    return tuple((path, array.shape[1:], array.dtype.name) for path, array in keras.tree.flatten_with_path(arrays))


def even_batches(n: int, batch_size: int) -> Iterator[np.ndarray]:
    """Yields index arrays of equal length <= `batch_size` that together cover 0 .. n - 1.

    The last batch is padded with index n - 1; keep the first n results. Where each length costs a compilation, it is
    `batch_size` or a power of two, so that any n is served by few programs and at most twice the work.
    """
    batches = -(-n // batch_size)
    size = -(-n // batches)
    if keras.backend.backend() != "torch":
        size = min(batch_size, 1 << (size - 1).bit_length())
    for start in range(0, n, size):
        yield np.minimum(np.arange(start, start + size), n - 1)


def sequential_loop(start: Any, stop: Any, body: Callable[[Any, Any], Any], state: Any) -> Any:
    """Computes `state = body(i, state)` for `i = start .. stop - 1`, as `keras.ops.fori_loop` does.

    TensorFlow's loop runs up to ten iterations in parallel, in which its fused convolutions (oneDNN, TensorFlow 2.21)
    crash the process. Each step here depends on the previous one, so parallel iterations would gain nothing.
    """
    if keras.backend.backend() != "tensorflow":
        return ops.fori_loop(start, stop, body, state)
    import tensorflow as tf

    _, state = tf.while_loop(
        lambda i, _: i < stop, lambda i, state: (i + 1, body(i, state)), (start, state), parallel_iterations=1
    )
    return state


def sequential_while(unfinished: Callable[..., Any], body: Callable[..., Any], state: Any) -> Any:
    """Computes `state = body(*state)` while `unfinished(*state)`, as `keras.ops.while_loop` does; see above."""
    if keras.backend.backend() != "tensorflow":
        return ops.while_loop(unfinished, body, state)
    import tensorflow as tf

    return tf.while_loop(unfinished, body, state, parallel_iterations=1)


def run_in_parts(
    program: Callable[..., Any],
    inputs: dict[str, Any],
    state: Any,
    steps: int,
    stops: Iterable[int],
    bar: keras.utils.Progbar,
    part: Callable[[int, int], dict[str, Any]] | None = None,
) -> Iterator[tuple[int, Any]]:
    """Runs `state = program(inputs, state, first, last)` from step 0 to `steps`; yields `(stop, state)` at each stop.

    Without progress output the loop is split at the stops only. `part(first, last)` returns further inputs for the
    steps between two stops; with it, the loop is split at the stops only.
    """
    stops = set(stops)
    shown = bar.verbose and part is None
    ends = set(range(0, steps, max(1, steps // BAR_UPDATES))) if shown else set()
    for first, last in itertools.pairwise(sorted(stops | ends | {0, steps})):
        own = inputs if part is None else {**inputs, **part(first, last)}
        state = program(own, state, ops.convert_to_tensor(first, "int32"), ops.convert_to_tensor(last, "int32"))
        if bar.verbose:
            # Waits: the bar counts finished steps, not queued ones.
            ops.convert_to_numpy(keras.tree.flatten(sharing.unspread(state))[0])
        bar.add(last - first)
        if last in stops:
            yield last, state


def progress_bar(target: int, verbose: str | int) -> keras.utils.Progbar:
    """Returns a progress bar of `target` steps; `verbose` is 0 (silent), 1 (a bar), 2 (a line at the end) or `"auto"`.

    `"auto"` is 1 in a terminal or a notebook, and 2 where the output is a file or a pipe, which would keep each update.
    """
    check_verbose(verbose)
    if verbose == "auto":
        verbose = 1 if sys.stdout.isatty() or "ipykernel" in sys.modules else 2
    return keras.utils.Progbar(target, verbose=int(verbose))
