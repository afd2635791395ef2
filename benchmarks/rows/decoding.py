"""Autoregressive decoding: with cached keys and values, by a forward pass over all previous codes, by transformers."""

from typing import Any

import numpy as np
import torch
from keras import ops
from transformers import GPT2Config, GPT2LMHeadModel

from benchmarks.contest import OURS, Contender, Contest
from benchmarks.settings import Setting
from keras_gen.autoregressive.sampling import next_code
from keras_gen.core.compiled import sequential_loop
from keras_gen.models import CodeTransformer

BATCH, CODES, WIDTH, BLOCKS, HEADS = 16, 512, 256, 6, 8


def cached_decoding(quick: bool, setting: Setting) -> Contest:
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
        OURS: Contender(lambda: cached(*before, begin, end)[0], length - start),
        "pass over all before": Contender(lambda: one_pass(prefix)),
    }
    case = f"{BATCH} sequences, positions {start} to {length}, {BLOCKS} blocks of {WIDTH} channels"
    return Contest(case, contenders)


def code_samples(quick: bool, setting: Setting) -> Contest:
    """Whole samples of a transformer; the peer is GPT-2 of the same sizes, with a code before the first one."""
    n, length, width, depth = (2, 16, 32, 2) if quick else (64, 256, 512, 8)
    model = setting.ours(CodeTransformer(1024, length, width, depth, HEADS, seed=0))
    model.build((None, length))
    sizes = {"n_positions": length + 1, "n_embd": width, "n_layer": depth, "n_head": HEADS}
    peer = setting.evaluated(GPT2LMHeadModel(GPT2Config(vocab_size=1024, bos_token_id=0, eos_token_id=None, **sizes)))
    first = setting.tensor(np.zeros((n, 1), "int64"))
    options: dict[str, Any] = {"do_sample": True, "top_k": 0, "max_new_tokens": length}
    if setting.compiles:
        peer.forward = setting.compiled(peer.forward)
        options["cache_implementation"] = "static"  # one shape, one compilation

    @torch.inference_mode()
    def theirs() -> torch.Tensor:
        return peer.generate(first, attention_mask=torch.ones_like(first), pad_token_id=0, **options)

    contenders = {
        OURS: Contender(lambda: model.sample(n, seed=0, batch_size=n, verbose=0), n * length),
        "transformers": Contender(theirs, n * length),
    }
    return Contest(f"{n} x {length} codes, {depth} blocks of {width} channels", contenders)
