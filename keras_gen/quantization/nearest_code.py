from typing import Any

from keras import ops

from keras_gen.core.checks import check, check_integer
from keras_gen.core.torch.kernels import map_chunks, product
from keras_gen.export import keras_gen_export

CELLS = 2**20  # distances held at a time, 4 MB


@keras_gen_export("keras_gen.ops.nearest_code")
def nearest_code(x: Any, codebook: Any, chunk_size: int | None = None) -> Any:
    """Finds `argmin_k |x - e_k|^2` for each vector.

    `|x|^2` does not depend on k, so one matrix product is all the work: `argmax (x, 1) . (e_k, -|e_k|^2 / 2)`, in
    float32, after the mean of the codes is taken from both, which loses fewer digits. No gradient passes.

    Args:
        x: float tensor `(n, dim)`.
        codebook: float tensor `(num_codes, dim)`.
        chunk_size: int >= 1 or `None`. How many vectors are worked on at a time, so that memory is that of
            `chunk_size x num_codes` distances, whatever `n`. Defaults to `None`, as many as take 4 MB.

    Returns:
        int32 tensor `(n,)`; of equally near codes, the lowest index. For a vector that is not finite, any.

    Raises:
        ValueError: if the shapes do not fit, the codebook is empty, or `chunk_size` < 1.

    Reference: van den Oord et al. 2017, arXiv:1711.00937, equation 1; https://kexue.fm/archives/6760.
    """
    x, codebook = (ops.stop_gradient(ops.cast(tensor, "float32")) for tensor in (x, codebook))
    num_codes, dim = _check_shapes(x, codebook)
    chunk = max(1, CELLS // num_codes) if chunk_size is None else check_integer("chunk_size", chunk_size)
    center = ops.mean(codebook, axis=0)
    codebook = codebook - center
    half_norms = 0.5 * ops.sum(ops.square(codebook), axis=1, keepdims=True)
    columns = ops.transpose(ops.concatenate([codebook, -half_norms], axis=1))

    def nearest(rows: Any) -> Any:
        ones = ops.ones((ops.shape(rows)[0], 1), "float32")
        return _argmax(product(ops.concatenate([rows - center, ones], axis=1), columns))

    n = ops.shape(x)[0]
    if isinstance(n, int):
        if n == 0:
            return ops.zeros((0,), "int32")
        if n <= chunk:
            return nearest(x)
    else:
        chunk = ops.maximum(ops.minimum(n, chunk), 1)  # TensorFlow, where the batch size is not known while tracing
    padded = ops.concatenate([x, ops.zeros(((-n) % chunk, dim), "float32")])
    indices = map_chunks(nearest, ops.reshape(padded, (-1, chunk, dim)))
    return ops.reshape(indices, (-1,))[:n]


def _argmax(scores: Any) -> Any:
    # Two reductions, which all processors do on many numbers at a time; `ops.argmax` takes three times as long.
    num_codes = scores.shape[1]
    largest = ops.max(scores, axis=1, keepdims=True)
    indices = ops.where(scores == largest, ops.arange(num_codes, dtype="int32"), num_codes)
    return ops.minimum(ops.min(indices, axis=1), num_codes - 1)  # where one is NaN, none is the largest


def _check_shapes(x: Any, codebook: Any) -> tuple[int, int]:
    shape = tuple(codebook.shape)
    check(len(shape) == 2 and shape[0] > 0, "codebook", "have shape (num_codes >= 1, dim)", f"shape {shape}")
    fits = len(x.shape) == 2 and x.shape[1] == shape[1]
    check(fits, "x", f"have shape (n, {shape[1]}), as the codes", f"shape {tuple(x.shape)}")
    return shape
