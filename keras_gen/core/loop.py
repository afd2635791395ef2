"""A loop inside a compiled function, and the function run in parts so that it can report."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
from keras import ops

PARTS = 20


def sequential_loop(start: Any, stop: Any, body: Callable[[Any, Any], Any], state: Any) -> Any:
    """Computes `state = body(i, state)` for `i = start .. stop - 1`, as `keras.ops.fori_loop` does.

    TensorFlow's loop starts up to ten iterations side by side, in which its fused convolutions (oneDNN, TensorFlow
    2.21) crash the process. Each of our steps needs the one before, so there is nothing to gain from that.
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
    program: Callable[..., Any], state: Any, steps: int, stops: Iterable[int], bar: keras.utils.Progbar
) -> Iterator[tuple[int, Any]]:
    """Runs `state = program(state, start, stop)` from step 0 to `steps`, and yields `(stop, state)` at each of `stops`.

    A silent bar costs nothing: then it runs through from stop to stop.
    """
    stops = set(stops)
    parts = set(range(0, steps, max(1, steps // PARTS))) if bar.verbose else set()
    for start, stop in itertools.pairwise(sorted(stops | parts | {0, steps})):
        state = program(state, ops.convert_to_tensor(start, "int32"), ops.convert_to_tensor(stop, "int32"))
        if bar.verbose:
            ops.convert_to_numpy(keras.tree.flatten(state)[0])  # waits: the bar shows what is done, not what is queued
            bar.add(stop - start)
        if stop in stops:
            yield stop, state


def progress_bar(target: int, verbose: str | int) -> keras.utils.Progbar:
    """Returns a bar of `target` steps; `verbose` is `"auto"` or 1 (shown), or 0 (silent), as in `predict`."""
    return keras.utils.Progbar(target, verbose=1 if verbose == "auto" else int(verbose))
