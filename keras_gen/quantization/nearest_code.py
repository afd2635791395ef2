from typing import Any

from keras import ops

from keras_gen.core.checks import check, check_integer
from keras_gen.export import keras_gen_export

CELLS = 2**21  # distances held at a time, 8 MB


@keras_gen_export("keras_gen.ops.nearest_code")
def nearest_code(x: Any, codebook: Any, chunk_size: int | None = None) -> Any:
    """Finds `argmin_k |x - e_k|^2` for each vector.

    `|x|^2` does not depend on k, so the product `x . e_k` is all the work: `argmin |e_k|^2 - 2 x . e_k`, in float32,
    after the mean of the codes is taken from both, which loses fewer digits. No gradient passes.

    Args:
        x: float tensor `(n, dim)`.
        codebook: float tensor `(num_codes, dim)`.
        chunk_size: int >= 1 or `None`. How many vectors are worked on at a time, so that memory is that of
            `chunk_size x num_codes` distances, whatever `n`. Defaults to `None`, as many as take 8 MB.

    Returns:
        int32 tensor `(n,)`; of equally near codes, the lowest index.

    Raises:
        ValueError: if the shapes do not fit, the codebook is empty, or `chunk_size` < 1.

    Reference: van den Oord et al. 2017, arXiv:1711.00937, equation 1; https://kexue.fm/archives/6760.
    """
    x, codebook = (ops.stop_gradient(ops.cast(tensor, "float32")) for tensor in (x, codebook))
    num_codes, dim = _check_shapes(x, codebook)
    chunk = max(1, CELLS // num_codes) if chunk_size is None else check_integer("chunk_size", chunk_size)
    center = ops.mean(codebook, axis=0)
    codebook = codebook - center
    half_norms = 0.5 * ops.sum(ops.square(codebook), axis=1)
    transposed = ops.transpose(codebook)

    def nearest(rows: Any) -> Any:
        return ops.cast(ops.argmin(half_norms - ops.matmul(rows - center, transposed), axis=1), "int32")

    n = ops.shape(x)[0]
    if isinstance(n, int):
        if n <= chunk:
            return nearest(x)
    else:
        chunk = ops.maximum(ops.minimum(n, chunk), 1)  # TensorFlow, where the batch size is not known while tracing
    padded = ops.concatenate([x, ops.zeros(((-n) % chunk, dim))])
    indices = ops.map(nearest, ops.reshape(padded, (-1, chunk, dim)))
    return ops.reshape(indices, (-1,))[:n]


def _check_shapes(x: Any, codebook: Any) -> tuple[int, int]:
    shape = tuple(codebook.shape)
    check(len(shape) == 2 and shape[0] > 0, "codebook", "have shape (num_codes >= 1, dim)", f"shape {shape}")
    fits = len(x.shape) == 2 and x.shape[1] == shape[1]
    check(fits, "x", f"have shape (n, {shape[1]}), as the codes", f"shape {tuple(x.shape)}")
    return shape
