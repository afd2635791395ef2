"""Quantizers against vector-quantize-pytorch, with the same codes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import vector_quantize_pytorch as peer
from keras import ops

from benchmarks.contest import OURS, Contender, Contest, share_unequal
from benchmarks.rows import ARGMAX, PRODUCT, VQ
from benchmarks.settings import Setting
from keras_gen.core.compiled import compiled
from keras_gen.layers import FiniteScalarQuantizer, VectorQuantizer
from keras_gen.ops import nearest_code

DIM, LEVELS = 64, (8, 5, 5, 5)
N, CODES = 16_384, 1_024
MANY, MANY_CODES = 262_144, 8_192
UNEQUAL = 1e-3


def vq_lookup(quick: bool, setting: Setting) -> Contest:
    """Maxima only: all products would be 64 MB of output, which ours never returns."""
    return _lookup(N, CODES, PRODUCT, lambda x, codes: ops.max(ops.matmul(x, ops.transpose(codes)), axis=1), setting)


def vq_lookup_large(quick: bool, setting: Setting) -> Contest:
    """Whose products are 8 GiB at once in the plain lookup, and in that of the peer."""
    n, codes = (512, 64) if quick else (MANY, MANY_CODES)
    contest = _lookup(n, codes, ARGMAX, _plain_lookup, setting)
    contest.same += (ARGMAX,)
    return contest


def vq_layer(quick: bool, setting: Setting) -> Contest:
    x, codebook = _data(N, CODES)
    layer = VectorQuantizer(CODES, initializer="zeros")
    layer.set_codebook(codebook)
    contenders = {OURS: Contender(_quantize(layer, x)), VQ: Contender(_peer(x, codebook, setting))}
    return Contest(_case(N, CODES), contenders, (VQ,), UNEQUAL, difference=_unequal_codes)


def fsq(quick: bool, setting: Setting) -> Contest:
    x = 2 * np.random.default_rng(0).standard_normal((N, len(LEVELS)), "float32")
    theirs, batch = setting.evaluated(peer.FSQ(list(LEVELS))), setting.tensor(x)[None]
    contenders = {
        OURS: Contender(_quantize(FiniteScalarQuantizer(LEVELS), x)),
        VQ: Contender(lambda: _first_two(theirs, batch)),
    }
    return Contest(f"{N:,} vectors, levels {LEVELS}", contenders, (VQ,), UNEQUAL, difference=_unequal_codes)


def _lookup(n: int, codes: int, plain: str, plain_lookup: Callable, setting: Setting) -> Contest:
    """The peer also gathers the codes and computes the loss, which cannot be switched off."""
    x, codebook = _data(n, codes)
    inputs = ops.convert_to_tensor(x), ops.convert_to_tensor(codebook)
    lookup, plain_lookup = compiled(None, nearest_code), compiled(None, plain_lookup)
    theirs = _peer(x, codebook, setting)
    contenders = {
        OURS: Contender(lambda: lookup(*inputs)),
        VQ: Contender(lambda: theirs()[1]),
        plain: Contender(lambda: plain_lookup(*inputs)),
    }
    counted = setting.counted(2 * n * codes * DIM)
    return Contest(_case(n, codes), contenders, (VQ,), UNEQUAL, difference=share_unequal, **counted)


def _plain_lookup(x: Any, codes: Any) -> Any:
    """Half of the squared distance, without what is the same for all codes."""
    return ops.argmax(ops.matmul(x, ops.transpose(codes)) - 0.5 * ops.sum(ops.square(codes), axis=-1), axis=-1)


def _case(n: int, codes: int) -> str:
    return f"{n:,} x {DIM} vectors, {codes:,} codes"


def _data(n: int, codes: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.standard_normal((n, DIM), "float32"), generator.standard_normal((codes, DIM), "float32")


def _peer(x: np.ndarray, codebook: np.ndarray, setting: Setting) -> Callable[[], tuple[torch.Tensor, torch.Tensor]]:
    quantizer = peer.VectorQuantize(DIM, codebook_size=len(codebook), kmeans_init=False)
    quantizer._codebook.embed.data.copy_(torch.tensor(codebook)[None])
    quantizer, batch = setting.evaluated(quantizer), setting.tensor(x)[None]
    return lambda: _first_two(quantizer, batch)


@torch.inference_mode()
def _first_two(quantizer: torch.nn.Module, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    quantized, indices = quantizer(batch)[:2]
    return quantized[0], indices[0]


def _quantize(layer: Any, x: np.ndarray) -> Callable[[], tuple[Any, Any]]:
    inputs = ops.convert_to_tensor(x)
    layer(inputs)
    quantize = compiled(layer, lambda x: layer.quantize(x)[:2])
    return lambda: quantize(inputs)


def _unequal_codes(ours: Any, theirs: Any) -> float:
    return share_unequal(ours[1], theirs[1])
