"""Autoregressive decoding: with cached keys and values, and by a forward pass over all previous codes."""

from typing import Any

import numpy as np
from keras import ops

from benchmarks.contest import OURS, Contender, Contest
from keras_gen.autoregressive.sampling import next_code
from keras_gen.core.compiled import sequential_loop
from keras_gen.models import CodeTransformer

BATCH, CODES, WIDTH, BLOCKS, HEADS = 16, 512, 256, 6, 8


def cached_decoding(quick: bool) -> Contest:
    """Times the last eighth of the positions, and the full pass at its middle."""
    length = 64 if quick else 256
    start, middle = length * 7 // 8, length * 15 // 16
    model = CodeTransformer(CODES, length, WIDTH, BLOCKS, HEADS, seed=0)
    model.build((None, length))
    uniform = ops.convert_to_tensor(np.random.default_rng(0).random((BATCH, length), "float32"))

    def draw_codes(codes: Any, cache: Any, start: Any, stop: Any) -> Any:
        def step(i: Any, state: Any) -> Any:
            codes, cache = state
            logits, cache = model.next_logits(i, codes, cache, {})
            drawn = next_code(logits, ops.take(uniform, i, axis=1))
            return ops.where(ops.arange(length) == i, drawn[:, None], codes), cache

        return sequential_loop(start, stop, step, (codes, cache))

    cached = model.program("cached", draw_codes)
    first, begin, end = (ops.convert_to_tensor(position, "int32") for position in (0, start, length))
    fill = model.program("before", draw_codes)  # separate from `cached`, whose first run is measured
    before = fill(ops.zeros((BATCH, length), "int32"), model.empty_cache(BATCH, length), first, begin)
    one_pass = model.program("whole", lambda codes: model.logits(codes)[:, -1])
    prefix = ops.convert_to_tensor(ops.convert_to_numpy(before[0])[:, :middle])
    contenders = {
        OURS: Contender(lambda: ops.convert_to_numpy(cached(*before, begin, end)[0]), length - start),
        "pass over all before": Contender(lambda: ops.convert_to_numpy(one_pass(prefix))),
    }
    case = f"{BATCH} sequences, positions {start} to {length}, {BLOCKS} blocks of {WIDTH} channels"
    return Contest(case, contenders)
