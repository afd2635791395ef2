from typing import Any

import keras
from keras import ops

from keras_gen.core.checks import check, check_finite, check_integer_or_none
from keras_gen.core.devices.blocks import by_chunks, cells_at_once, halved_until_it_fits, on_cpu
from keras_gen.core.devices.products import precise_product
from keras_gen.export import keras_gen_export

CELLS = 2**20  # distances in memory at a time on a CPU, 4 MB: what its caches hold


@keras_gen_export("keras_gen.ops.nearest_code")
def nearest_code(x: Any, codebook: Any, chunk_size: int | None = None) -> Any:
    """Computes the index of the nearest code, `argmin_k |x - e_k|^2`, for each vector.

    `|x|^2` does not depend on k, so one matrix product suffices: `argmax (x, 1) . (e_k, -|e_k|^2 / 2)`, in float32,
    after subtracting the mean of the codes from both, which reduces rounding errors. The result has no gradient.

    Args:
        x: float tensor `(n, dim)`.
        codebook: float tensor `(num_codes, dim)`.
        chunk_size: int >= 1 or `None`. Number of vectors processed at a time, which limits memory to
            `chunk_size x num_codes` distances for any `n`. Defaults to `None`, 4 MB of distances on a CPU, elsewhere
            1 GB and a share of what is free.

    Returns:
        int32 tensor `(n,)`; the lowest index in case of ties. The values of tensors are not checked: the index of a
        vector that is not finite is arbitrary, and all are if a code is not finite.

    Raises:
        ValueError: if the shapes do not match, the codebook is empty, `chunk_size` < 1, or an argument is not of real
            numbers, or a NumPy array that is not finite.

    Reference: van den Oord et al. 2017, arXiv:1711.00937, equation 1; https://kexue.fm/archives/6760.
    """
    check_finite("x", x)
    check_finite("codebook", codebook)
    x, codebook = (ops.stop_gradient(ops.cast(tensor, "float32")) for tensor in (x, codebook))
    _check_shapes(x, codebook)
    num_codes = codebook.shape[0]
    chunk_size = check_integer_or_none("chunk_size", chunk_size)
    chunk = chunk_size or max(1, cells_at_once(x, CELLS) // num_codes)
    center = ops.mean(codebook, axis=0)
    codebook = codebook - center
    half_norms = 0.5 * ops.sum(ops.square(codebook), axis=1, keepdims=True)
    columns = ops.transpose(ops.concatenate([codebook, -half_norms], axis=1))

    def nearest(rows: Any) -> Any:
        ones = ops.ones((ops.shape(rows)[0], 1), "float32")
        return _argmax(precise_product(ops.concatenate([rows - center, ones], axis=1), columns))

    n = ops.shape(x)[0]
    if isinstance(n, int):
        if n == 0:
            return ops.zeros((0,), "int32")
        return halved_until_it_fits(lambda size: by_chunks(nearest, [x], size), min(chunk, n))
    if keras.backend.backend() == "tensorflow":  # the batch size is unknown while tracing
        return by_chunks(nearest, [x], chunk)
    return nearest(x)  # exported for any batch size, by which no shape can be computed


def _argmax(scores: Any) -> Any:
    if not on_cpu(scores) and keras.backend.backend() != "tensorflow":  # whose GPU takes any of equal scores
        return ops.cast(ops.argmax(scores, axis=1), "int32")
    # On a CPU, two vectorized reductions; `ops.argmax` takes three times as long.
    num_codes = scores.shape[1]
    largest = ops.max(scores, axis=1, keepdims=True)
    indices = ops.where(scores == largest, ops.arange(num_codes, dtype="int32"), num_codes)
    return ops.minimum(ops.min(indices, axis=1), num_codes - 1)  # with NaN, no score equals the maximum


def _check_shapes(x: Any, codebook: Any) -> None:
    shape = tuple(codebook.shape)
    check(len(shape) == 2 and shape[0] > 0, "codebook", "have shape (num_codes >= 1, dim)", f"shape {shape}")
    is_batch = len(x.shape) == 2 and x.shape[1] == shape[1]
    check(is_batch, "x", f"have shape (n, {shape[1]}) to match the codes", f"shape {tuple(x.shape)}")
