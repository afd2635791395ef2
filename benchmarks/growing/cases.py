"""Workloads of growing size: functions from a size to the timed call. Imported after the backend is set."""

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from keras_gen.core.compiled import compiled
from keras_gen.models import DDPM, CodeTransformer, UNet
from keras_gen.ops import k_occurrence, nearest_code
from keras_gen.samplers import DDIMSampler

DIM, VECTORS, IMAGES, SEQUENCES = 64, 4096, 4, 16


def points(n: int) -> Callable[[], Any]:
    x = _normal(n, DIM)
    return lambda: k_occurrence(x, 5)


def codes(n: int) -> Callable[[], Any]:
    inputs = [ops.convert_to_tensor(_normal(rows, DIM)) for rows in (VECTORS, n)]
    lookup = compiled(None, nearest_code)
    return lambda: ops.convert_to_numpy(lookup(*inputs))


def steps(n: int) -> Callable[[], Any]:
    model = DDPM(UNet((16, 16, 1), widths=(16, 32), blocks_per_level=1), seed=0)
    return lambda: model.sample(IMAGES, DDIMSampler(n), seed=0, verbose=0)


def positions(n: int) -> Callable[[], Any]:
    model = CodeTransformer(512, n, 256, 6, 8, seed=0)
    model.build((None, n))
    return lambda: model.sample(SEQUENCES, seed=0, verbose=0)


def batch(n: int) -> Callable[[], Any]:
    return _network(n, 32)


def size(n: int) -> Callable[[], Any]:
    return _network(IMAGES, n)


def _network(images: int, width: int) -> Callable[[], Any]:
    network = UNet((width, width, 1), widths=(32, 64, 64))
    inputs = ops.convert_to_tensor(_normal(images, width, width, 1)), ops.zeros((images,), "int32")
    step = compiled(network, lambda x, t: network([x, t], training=False))
    return lambda: ops.convert_to_numpy(step(*inputs))


def _normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).standard_normal(shape, "float32")
