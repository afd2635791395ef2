"""Compiled, seeded functions and loops over batches: what `sample`, `log_prob` and their kind are built on."""

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from keras_gen.core import jax_weights
from keras_gen.core.checks import check_integer
from keras_gen.core.compiled import CompiledFunctions, as_tensor, even_batches, progress_bar, run_in_parts, shapes_of
from keras_gen.core.random import check_seeds, next_seed, step_seeds
from keras_gen.core.replicas import sharing
from keras_gen.core.stateless import in_random_state

if TYPE_CHECKING:
    from keras import Model as Mixin  # which comes later among the bases of each class
else:
    Mixin = object

SEQUENCES = list | tuple | range | np.ndarray
DRAW_LOCK = threading.Lock()


class RunsBatches(Mixin):
    """Mixin of models that compute with batches of arrays, in programs that are compiled once for each shape."""

    seed_generator: keras.random.SeedGenerator
    programs: CompiledFunctions

    def draw_seed(self, seed: int | None) -> int:
        """Returns `seed`, or for `None` the next seed from the model's own generator, another one in each thread."""
        jax_weights.fetch(self)
        if seed is None:
            with DRAW_LOCK:
                return next_seed(self.seed_generator)
        return check_integer("seed", seed, at_least=0)

    def draw_seeds(self, seed: Any, n: int) -> int | tuple[int, ...]:
        """Returns the seed of `n` samples as `draw_seed` does, or a tuple if `seed` holds one for each of them."""
        return check_seeds(seed, n) if isinstance(seed, SEQUENCES) else self.draw_seed(seed)

    def program(
        self, key: Any, function: Callable[..., Any], extra_layers: Sequence[keras.Layer] = ()
    ) -> Callable[..., Any]:
        """Compiles `function`, which reads the weights of the model and of `extra_layers`, once for each `key`.

        Keys include the shapes: TensorFlow would otherwise trace a single, slower function for all shapes. The last
        16 programs are kept.

        Raises:
            RuntimeError: if another thread trains the model, on JAX.
        """
        jax_weights.fetch(self)
        return self.programs.get(key, function, self, *extra_layers)

    def run_steps(
        self,
        name: Any,
        loop: Callable[[dict[str, Any], Any, Any, Any], Any],
        arrays: dict[str, Any],
        start: Callable[[dict[str, Any]], Any],
        *,
        steps: int,
        batch_size: int,
        verbose: str | int,
        shared: dict[str, Any] | None = None,
        seed: int | tuple[int, ...] | None = None,
        draws: int = 1,
        stops: Sequence[int] | None = None,
        part: Callable[[int, int], dict[str, Any]] | None = None,
        read: Callable[[Any], Any] = lambda state: state,
        extra_layers: Sequence[keras.Layer] = (),
    ) -> Iterator[tuple[np.ndarray, int, Any]]:
        """Runs a compiled, seeded loop of steps for batches of the arrays' rows, with a progress bar.

        Args:
            name: distinguishes loops over the same arrays.
            loop: `loop(inputs, state, first, last)` performs the steps first .. last - 1 and returns the new state.
            arrays: each `(n, ...)`, or a dict of such arrays; `inputs` contains the rows of one batch under the same
                names, without entries for `None`.
            start: returns the initial state from the inputs of a batch.
            steps: int >= 1.
            batch_size: int >= 1.
            verbose: `"auto"`, 0 or 1: whether to show progress.
            shared: further inputs, nested tensors that are the same for all batches. Defaults to `None`.
            seed: int, tuple or `None`. If given, `inputs["seeds"]` contains the rows for `StepSeed`,
                `(steps, draws, 2)`, different for each batch; for a tuple of `n` seeds `(steps, draws, batch, 2)`, in
                which a row has those of a batch of one. Defaults to `None`, for a loop without random draws.
            draws: int >= 1. Number of draws per step. Defaults to `1`.
            stops: the steps after which to yield the state. Defaults to `None`, the last step.
            part: `part(first, last)` returns further inputs for the steps between two stops. Defaults to `None`.
            read: function of a state that returns what to yield of it, nested tensors with one row per sample. Defaults
                to the state itself.
            extra_layers: further layers whose weights the loop reads. Defaults to `()`.

        Yields:
            The row indices of a batch, a stop, and what `read` returns after that step, as NumPy arrays. The last batch
            is padded with row n - 1. Several processes, or devices of a strategy, share the batches; all are yielded.
        """
        check_integer("batch_size", batch_size)
        given = {key: array for key, array in arrays.items() if array is not None}
        leaves = keras.tree.flatten(given)
        batches = list(even_batches(len(leaves[0]), batch_size))
        by_row = isinstance(seed, tuple)
        shared = shared or {}

        def inputs_of(number: int) -> dict[str, Any]:
            rows = batches[number]
            own = keras.tree.map_structure(lambda array: sharing.placed(as_tensor(array[rows])), given)
            if seed is not None:
                own["seeds"] = as_tensor(self._step_seeds((steps, draws), seed, number, rows))
            return own

        key = (name, steps, len(batches[0]), shapes_of(given), by_row, sharing.devices())
        program = self.program(key, sharing.on_devices(loop), extra_layers)
        rounds = sharing.rounds(len(batches), leaves)
        bar = progress_bar(len(rounds) * steps, verbose)
        for numbers, together in rounds:
            own = [inputs_of(number) for number in numbers]
            start_state = sharing.spread([start({**shared, **each}) for each in own])
            inputs = {**shared, **sharing.spread(own)}
            for stop, state in run_in_parts(program, inputs, start_state, steps, stops or (steps,), bar, part):
                results = [read(each) for each in sharing.unspread(state)]
                for other, result in zip(together, sharing.of_each_process(results), strict=True):
                    yield batches[other], stop, result

    def in_batches(
        self,
        name: Any,
        function: Callable[..., Any],
        *arrays: Any,
        batch_size: int = 256,
        verbose: str | int = 0,
        seed: int | None = None,
        extra_layers: Sequence[keras.Layer] = (),
    ) -> np.ndarray:
        """Computes `function(*rows)` for batches of the arrays' rows, and concatenates the results.

        Args:
            name: distinguishes functions of the same shapes.
            function: takes one tensor per array, or a dict of them, returns one tensor. It may draw from the model's
                generators.
            *arrays: each `(n, ...)`, or a dict of such arrays.
            batch_size: int >= 1. Defaults to `256`.
            verbose: `"auto"`, 0 or 1: whether to show progress. Defaults to `0`.
            seed: int or `None`. Seeds all generators of the model, differently for each batch; their own states do not
                change. Defaults to `None`, for a function without random draws.

        Returns:
            array `(n, ...)`.
        """
        check_integer("batch_size", batch_size)
        leaves = keras.tree.flatten(arrays)
        n = len(leaves[0])
        batches = list(even_batches(n, batch_size))
        states = [] if seed is None else self._random_states()
        # Seeds are arguments: what other threads draw, and the state that they draw from, is left alone.
        run = self.program(
            (name, len(batches[0]), shapes_of(arrays), len(states), sharing.devices()),
            sharing.on_devices(in_random_state(self, states, function)),
            extra_layers,
        )

        def inputs_of(number: int) -> tuple[Any, ...]:
            drawn = step_seeds(len(states), seed or 0, number, self.seed_generator.state.dtype)
            rows = batches[number]
            own = keras.tree.map_structure(lambda array: sharing.placed(as_tensor(array[rows], array.dtype)), arrays)
            return list(map(ops.convert_to_tensor, drawn)), *own

        rounds = sharing.rounds(len(batches), leaves)
        bar = progress_bar(len(rounds), verbose)
        parts = []
        for numbers, _ in rounds:
            inputs = sharing.spread([inputs_of(number) for number in numbers])
            parts += sharing.of_each_process(sharing.unspread(run(*inputs)))
            bar.add(1)
        return np.concatenate(parts)[:n]

    def _step_seeds(
        self, shape: tuple[int, int], seed: int | tuple[int, ...], number: int, rows: np.ndarray
    ) -> np.ndarray:
        """Returns the seeds of all draws of a batch, `(*shape, 2)`, or those of each row, `(*shape, batch, 2)`."""
        dtype = self.seed_generator.state.dtype
        if isinstance(seed, tuple):
            of_rows = [step_seeds(math.prod(shape), seed[row], 0, dtype).reshape(*shape, 2) for row in rows]
            return np.stack(of_rows, axis=2)
        return step_seeds(math.prod(shape), seed, number, dtype).reshape(*shape, 2)
