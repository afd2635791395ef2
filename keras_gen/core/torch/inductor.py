"""Compilation on PyTorch: of the graphs of traced networks, not of Keras's calls."""

import contextlib
import contextvars
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

_compiling = contextvars.ContextVar("compiling", default=False)


@contextlib.contextmanager
def compiling(wanted: bool) -> Iterator[None]:
    """Context in which the graphs of traced networks are compiled: the steps of a model with `jit_compile=True`."""
    token = _compiling.set(bool(wanted) or _compiling.get())
    try:
        yield
    finally:
        _compiling.reset(token)


def compiles_graphs() -> bool:
    """Returns whether graphs that are traced now are to be compiled."""
    return _compiling.get()


def compiled_graph(name: str, trace: Callable[[], Any], values: list[Any], flat: list[Any]) -> Callable[..., Any]:
    """Compiles a traced graph by Inductor, with its gradient, or returns it as it is, with a warning.

    Args:
        name: name of the network, for the warning.
        trace: returns a new graph, `graph(values, flat)`. Inductor changes the one that it is given.
        values: the values of the weights.
        flat: the inputs.

    Returns:
        A function like the graph, for values and inputs with the same shapes, strides, dtypes and devices.
    """
    graph = trace()
    arguments: list[Any] = [values, flat]
    try:
        from torch._inductor import compile as inductor

        # Random operations stay PyTorch's own: the same seed draws the same dropout, compiled or not.
        return inductor(graph, arguments, options={"fallback_random": True})
    except Exception as error:  # no C++ compiler, no Triton, no Inductor, an operation that it does not know
        warnings.warn(f"`{name}` runs as traced, not compiled: {_reason(error)}", stacklevel=2)
        return trace()


def warn_untraceable(name: str, error: Exception) -> None:
    """Warns that a network is called plainly although it should be compiled, or because this PyTorch cannot trace."""
    if compiles_graphs() or isinstance(error, ImportError):
        warnings.warn(f"`{name}` is called plainly, neither traced nor compiled: {_reason(error)}", stacklevel=2)


def _reason(error: Exception) -> str:
    """Returns the beginning of an error's message: Keras names the layer in one paragraph, the cause in the next."""
    paragraphs = re.sub("\x1b\\[[0-9]*m", "", str(error)).strip().split("\n\n")  # without bold type
    return " ".join([type(error).__name__ + ":", *paragraphs[:2]])
