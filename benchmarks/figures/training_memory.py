"""Memory of a training step: against length, of attention; against depth, of a stack of transformer blocks.

    KERAS_BACKEND=torch python benchmarks/figures/training_memory.py
    KERAS_BACKEND=jax python benchmarks/figures/training_memory.py

Counts the bytes of all tensors that are alive at once in a forward and a backward pass, without inputs and weights: on
PyTorch as the operations create and free them, on JAX as the compiler plans. So the figures are those of any machine,
and of one run. The stack is measured on PyTorch only: for a CPU, JAX's compiler may undo a recomputation.

Attention is `tiled_attention`, whose backward pass computes the scores again, beside that which keeps them. Blocks are
plain, `remat=True`, and `remat=True` in segments of sqrt(depth) blocks that are recomputed as a whole. Writes a picture
to `--output`, and prints the slopes on logarithmic axes.
"""

import argparse
import pathlib
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "examples"))
from shared import save_panels

from keras_gen.layers import TransformerBlock
from keras_gen.networks.blocks.recomputing import recomputed
from keras_gen.ops import tiled_attention

LENGTHS, TILE, DIM = (256, 512, 1024, 2048, 4096, 8192), 128, 32
SQUARES, TOKENS = (1, 4, 9, 16, 36, 64, 144), (8, 64, 64)


def dense_attention(q: Any, k: Any, v: Any) -> Any:
    scores = ops.einsum("bihd,bjhd->bhij", q, k) / q.shape[-1] ** 0.5
    return ops.einsum("bhij,bjhd->bihd", ops.softmax(scores), v)


def peak_bytes(function: Callable[..., Any], *shapes: tuple[int, ...]) -> int:
    """Returns the bytes that the gradient of the sum of `function` with respect to its arguments needs."""
    if keras.backend.backend() == "jax":
        import jax

        arguments = [jax.ShapeDtypeStruct(shape, "float32") for shape in shapes]
        step = jax.jit(jax.grad(lambda *x: ops.sum(function(*x)), tuple(range(len(shapes)))))
        return step.lower(*arguments).compile().memory_analysis().temp_size_in_bytes
    arguments = [ops.convert_to_tensor(np.random.default_rng(0).normal(size=s).astype("float32")) for s in shapes]
    with _live_bytes() as memory:
        function(*(x.requires_grad_() for x in arguments)).sum().backward()
    return memory.peak


def _live_bytes() -> Any:
    from torch import Tensor
    from torch.utils._python_dispatch import TorchDispatchMode

    class LiveBytes(TorchDispatchMode):
        """Counts the storages that operations of PyTorch create, until they are freed."""

        def __init__(self) -> None:
            super().__init__()
            self.now = self.peak = 0
            self.seen: weakref.WeakSet[Any] = weakref.WeakSet()

        def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            outputs = operation(*args, **(kwargs or {}))
            for output in outputs if isinstance(outputs, tuple | list) else [outputs]:
                if isinstance(output, Tensor):
                    self._count(output.untyped_storage())
            return outputs

        def _count(self, storage: Any) -> None:
            if storage not in self.seen:
                self.seen.add(storage)
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._free, storage.nbytes())

        def _free(self, size: int) -> None:
            self.now -= size

    return LiveBytes()


def stack(depth: int, remat: bool, segment: int = 1) -> Callable[[Any], Any]:
    """Returns a block applied `depth` times; if `segment` is above 1, so many of them are recomputed as a whole.

    Its weights are shared: the memory of their gradients, which no recomputation saves, then does not grow.
    """
    block = TransformerBlock(4, remat=remat, seed=0)
    block.build(TOKENS)

    def part(x: Any) -> Any:
        for _ in range(segment):
            x = block(x)
        return x

    def call(x: Any) -> Any:
        for _ in range(depth // segment):
            x = recomputed(part, segment > 1)(x)
        return x

    return call


def curves() -> Iterator[tuple[str, str, Sequence[int], list[int]]]:
    """Yields panel, name, sizes and bytes of each curve."""
    for name, attention in (
        ("tiles, scores computed again", lambda *x: tiled_attention(*x, tile=TILE)),
        ("the same, causal", lambda *x: tiled_attention(*x, tile=TILE, is_causal=True)),
        ("all scores kept", dense_attention),
    ):
        yield "tokens", name, LENGTHS, [peak_bytes(attention, *3 * [(1, n, 1, DIM)]) for n in LENGTHS]
    if keras.backend.backend() == "torch":
        for name, make in (
            ("plain", lambda depth: stack(depth, False)),
            ("remat", lambda depth: stack(depth, True)),
            ("remat in segments", lambda depth: stack(depth, True, round(depth**0.5))),
        ):
            yield "blocks", name, SQUARES, [peak_bytes(make(depth), TOKENS) for depth in SQUARES]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs/training_memory"))
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {}
    for panel, name, sizes, values in curves():
        slope = np.polyfit(np.log(sizes[-3:]), np.log(values[-3:]), 1)[0]
        mebibytes = ", ".join(f"{value / 2**20:.3g}" for value in values)
        print(f"{panel} {sizes}, {name}: {mebibytes} MiB, slope {slope:.2f}", flush=True)
        found.setdefault(panel, []).append((f"{name}: slope {slope:.2f}", sizes, values))

    def draw(panel: str) -> Callable[[Any], None]:
        def on(axes: Any) -> None:
            for label, sizes, values in found[panel]:
                axes.loglog(sizes, np.divide(values, 2**20), "o-", label=label, markersize=3)
            axes.set(
                xlabel=panel,
                ylabel="MiB of a training step",
                title={"tokens": "attention", "blocks": "transformer"}[panel],
            )
            axes.set_xticks(sizes, map(str, sizes))
            axes.minorticks_off()
            axes.legend()

        return on

    save_panels(arguments.output / f"{keras.backend.backend()}.png", [draw(panel) for panel in found])


if __name__ == "__main__":
    main()
