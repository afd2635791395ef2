"""CUDA graphs of traced networks: all of their operations in one launch, without compilation."""

import dataclasses
import threading
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import keras

PLAIN_CALLS = 8  # with weights at the same addresses: capturing takes as long as a few of them
KEPT = 4  # in the process: each keeps the memory of a whole call


class CudaGraph:
    """A traced graph that becomes a CUDA graph once it has been called a few times with the same weights.

    The host takes 5 to 10 microseconds to launch an operation, whatever its size, so that a GPU waits for it during the
    calls of a small network. A CUDA graph launches all operations at once. It reads and writes fixed addresses: inputs
    are copied there and outputs from there. Weights are read in place, so that assignments take effect. While they are
    elsewhere, such as in a `StatelessScope`, and on other streams, the operations are launched one by one.

    If capturing fails, or the first replay has other outputs, there is a warning, and operations are always launched
    one by one.

    Args:
        name: name of the network, for the warning.
        graph: `graph(values, flat)` with the values of the weights and the inputs: a function of these alone.
    """

    def __init__(self, name: str, graph: Callable[..., Any]):
        self.name, self.graph = name, graph
        self.place: Any = None
        self.calls = 0
        self.recording: Recording | None = None
        self.fails = False
        self.lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return CudaGraph, (self.name, self.graph)  # a copy captures its own

    def __call__(self, values: list[Any], flat: list[Any]) -> Any:
        if self.fails or _is_capturing():
            return self.graph(values, flat)
        with self.lock:
            place = _stream(), [value.data_ptr() for value in values]
            if place != self.place:
                self.place = place
                self.release()
            recording = self.recording  # read once: another thread may release it
            if recording is not None:
                return recording(flat)
            self.calls += 1
            output = self.graph(values, flat)
            if self.calls == PLAIN_CALLS:
                self._capture(values, flat, output)
            return output

    def release(self) -> None:
        """Frees the memory of the CUDA graph; after some calls there is a new one."""
        self.recording, self.calls = None, 0

    def _capture(self, values: list[Any], flat: list[Any], output: Any) -> None:
        try:
            recording = Recording.of(lambda inputs: self.graph(values, inputs), flat)
            if not _agree(recording(flat), output):
                raise ValueError("its outputs differ from those of single operations")
        except Exception as error:  # an operation that waits for the host, too little memory
            self.fails = True
            reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            warnings.warn(f"`{self.name}` runs as traced, not as a CUDA graph: {reason}", stacklevel=2)
            return
        self.recording = recording
        _keep(self)


@dataclasses.dataclass(frozen=True)
class Recording:
    """A CUDA graph and the memory that it reads and writes."""

    replay: Callable[[], None]
    inputs: list[Any]
    outputs: Any

    @classmethod
    def of(cls, function: Callable[[list[Any]], Any], flat: list[Any]) -> "Recording":
        """Captures `function(inputs)` for inputs like those in `flat`."""
        inputs = [x.clone() for x in flat]
        replay, outputs = _captured(lambda: function(inputs))
        return cls(replay, inputs, outputs)

    def __call__(self, flat: list[Any]) -> Any:
        for own, x in zip(self.inputs, flat, strict=True):
            own.copy_(x)
        self.replay()
        return keras.tree.map_structure(lambda x: x.clone(), self.outputs)


def with_cuda_graph(name: str, trace: Callable[[], Any], values: list[Any], flat: list[Any]) -> Callable[..., Any]:
    """Traces a network, and returns its graph as a `CudaGraph` where that is possible.

    It is possible on one GPU, without gradients and without random numbers.

    Args:
        name: name of the network.
        trace: returns a module of `torch.fx`, `graph(values, flat)`.
        values: the values of the weights, like those of every later call.
        flat: the inputs, likewise.
    """
    import torch

    graph = trace()
    tensors = [*values, *flat]
    has_gradient = torch.is_grad_enabled() and any(x.requires_grad for x in tensors)
    drawing = torch.Tag.nondeterministic_seeded
    draws = any(drawing in getattr(node.target, "tags", ()) for node in graph.graph.nodes)
    # Autocast keeps the weights that it casts, here in memory that the next replay writes to.
    possible = _on_gpu(tensors) and not (has_gradient or draws or torch.is_autocast_enabled("cuda"))
    return CudaGraph(name, graph) if possible else graph


_kept: list[weakref.ref[CudaGraph]] = []
_kept_lock = threading.Lock()


def _keep(graph: CudaGraph) -> None:
    """Counts a captured graph, and releases the oldest if there are too many."""
    with _kept_lock:
        held = [known for known in (ref() for ref in _kept) if known is not None and known is not graph]
        held = [known for known in held if known.recording is not None]
        for oldest in held[: max(0, len(held) + 1 - KEPT)]:
            oldest.release()
        _kept[:] = map(weakref.ref, [*held, graph][-KEPT:])


def _agree(outputs: Any, expected: Any) -> bool:
    """Returns whether outputs are the expected ones up to rounding, also of half precision, or of other kernels."""
    import torch

    def agrees(x: Any, y: Any) -> bool:
        x, y = torch.nan_to_num(x.double()), torch.nan_to_num(y.double())
        return bool((x - y).norm() <= 0.01 * y.norm())

    return all(map(agrees, keras.tree.flatten(outputs), keras.tree.flatten(expected)))


def _on_gpu(tensors: list[Any]) -> bool:
    """Returns whether tensors are all on the current GPU."""
    import torch

    if not torch.cuda.is_available():
        return False
    return {x.device for x in tensors} == {torch.device("cuda", torch.cuda.current_device())}


def _is_capturing() -> bool:
    """Returns whether a caller captures a CUDA graph of its own."""
    import torch

    return torch.cuda.is_current_stream_capturing()


def _stream() -> Any:
    import torch

    return torch.cuda.current_stream()


def _captured(function: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
    """Captures a function on the current GPU; returns what replays it, and its outputs, which each replay writes."""
    import torch

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        function()  # libraries prepare themselves at their first call on a stream other than the default one
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        outputs = function()
    return graph.replay, outputs
