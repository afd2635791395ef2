"""Time of a code by its position, with kept keys and values and by a pass over all codes before it.

    KERAS_BACKEND=jax python benchmarks/cached_decoding.py

A transformer of 6 blocks and 256 channels draws `--length` codes, 16 sequences together. Prints milliseconds for each
code, for each eighth of the positions, the median of `--repeats` runs.
"""

import argparse
import time
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.autoregressive.next_code import next_code
from keras_gen.core.loop import sequential_loop
from keras_gen.models import CodeTransformer

BATCH, CODES = 16, 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    length = arguments.length
    model = CodeTransformer(CODES, length, 256, 6, 8, seed=0)
    model.build((None, length))
    uniform = ops.convert_to_tensor(np.random.default_rng(0).random((BATCH, length), dtype="float32"))

    def run(uniform: Any, codes: Any, cache: Any, start: Any, stop: Any) -> Any:
        def step(i: Any, state: Any) -> Any:
            codes, cache = state
            logits, cache = model.next_logits(i, codes, cache, {})
            drawn = next_code(logits, ops.take(uniform, i, axis=1))
            return ops.where(ops.arange(length) == i, drawn[:, None], codes), cache

        return sequential_loop(start, stop, step, (codes, cache))

    cached = model.program("cached", run)
    eighths = np.linspace(0, length, 9).round().astype("int32")
    times = np.empty((arguments.repeats + 1, 8))
    for repeat in range(arguments.repeats + 1):  # the first one compiles
        codes, cache = ops.zeros((BATCH, length), "int32"), model.empty_cache(BATCH, length)
        for part in range(8):
            bounds = [ops.convert_to_tensor(bound, "int32") for bound in eighths[part : part + 2]]
            begin = time.perf_counter()
            codes, cache = cached(uniform, codes, cache, *bounds)
            ops.convert_to_numpy(codes)
            times[repeat, part] = (time.perf_counter() - begin) / (eighths[part + 1] - eighths[part])
    rows = {"kept keys and values": 1e3 * np.median(times[1:], axis=0)}

    whole = np.empty((arguments.repeats + 1, 8))
    for part in range(8):
        middle = int(eighths[part : part + 2].mean())
        one_pass = model.program(("whole", middle), lambda codes: model.logits(codes)[:, -1])
        prefix = ops.convert_to_tensor(ops.convert_to_numpy(codes)[:, :middle])
        for repeat in range(arguments.repeats + 1):
            begin = time.perf_counter()
            ops.convert_to_numpy(one_pass(prefix))
            whole[repeat, part] = time.perf_counter() - begin
    rows["a pass over all before"] = 1e3 * np.median(whole[1:], axis=0)
    print(f"{keras.backend.backend()}, milliseconds for a code of {BATCH} sequences, by eighths of {length} positions")
    for name, row in rows.items():
        print(f"{name}: {' '.join(f'{value:.2f}' for value in row)}")


if __name__ == "__main__":
    main()
