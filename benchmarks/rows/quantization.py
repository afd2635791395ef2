"""Quantizers against vector-quantize-pytorch, with the same codes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import vector_quantize_pytorch as peer
from keras import ops

from benchmarks.contest import OURS, Contender, Contest, share_unequal
from benchmarks.rows import PRODUCT, VQ
from keras_gen.core.compiled import compiled
from keras_gen.layers import FiniteScalarQuantizer, VectorQuantizer
from keras_gen.ops import nearest_code

N, DIM, CODES, LEVELS = 16384, 64, 1024, (8, 5, 5, 5)
UNEQUAL = 1e-3


def vq_lookup(quick: bool) -> Contest:
    """The peer also gathers the codes and computes the loss, which cannot be switched off."""
    x, codebook = _data()
    inputs = ops.convert_to_tensor(x), ops.convert_to_tensor(codebook)
    lookup = compiled(None, nearest_code)
    # maxima only: all products would be 64 MB of output, which ours never returns
    product = compiled(None, lambda x, codebook: ops.max(ops.matmul(x, ops.transpose(codebook)), axis=1))
    theirs = _peer(x, codebook)
    contenders = {
        OURS: Contender(lambda: ops.convert_to_numpy(lookup(*inputs))),
        VQ: Contender(lambda: theirs()[1]),
        PRODUCT: Contender(lambda: ops.convert_to_numpy(product(*inputs))),
    }
    return Contest(_case(), contenders, (VQ,), UNEQUAL, difference=share_unequal)


def vq_layer(quick: bool) -> Contest:
    x, codebook = _data()
    layer = VectorQuantizer(CODES, initializer="zeros")
    layer.set_codebook(codebook)
    contenders = {OURS: Contender(_quantize(layer, x)), VQ: Contender(_peer(x, codebook))}
    return Contest(_case(), contenders, (VQ,), UNEQUAL, difference=_unequal_codes)


def fsq(quick: bool) -> Contest:
    x = 2 * np.random.default_rng(0).standard_normal((N, len(LEVELS)), "float32")
    theirs, batch = peer.FSQ(list(LEVELS)).eval(), torch.tensor(x)[None]
    contenders = {
        OURS: Contender(_quantize(FiniteScalarQuantizer(LEVELS), x)),
        VQ: Contender(lambda: _first_two(theirs, batch)),
    }
    return Contest(f"{N:,} vectors, levels {LEVELS}", contenders, (VQ,), UNEQUAL, difference=_unequal_codes)


def _case() -> str:
    return f"{N:,} x {DIM} vectors, {CODES:,} codes"


def _data() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.standard_normal((N, DIM), "float32"), generator.standard_normal((CODES, DIM), "float32")


def _peer(x: np.ndarray, codebook: np.ndarray) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
    quantizer = peer.VectorQuantize(DIM, codebook_size=CODES, kmeans_init=False).eval()
    quantizer._codebook.embed.data.copy_(torch.tensor(codebook)[None])
    batch = torch.tensor(x)[None]
    return lambda: _first_two(quantizer, batch)


@torch.inference_mode()
def _first_two(quantizer: torch.nn.Module, batch: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    quantized, indices = quantizer(batch)[:2]
    return quantized[0].numpy(), indices[0].numpy()


def _quantize(layer: Any, x: np.ndarray) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
    inputs = ops.convert_to_tensor(x)
    layer(inputs)
    quantize = compiled(layer, lambda x: layer.quantize(x)[:2])
    return lambda: tuple(ops.convert_to_numpy(output) for output in quantize(inputs))


def _unequal_codes(ours: Any, theirs: Any) -> float:
    return share_unequal(ours[1], theirs[1])
