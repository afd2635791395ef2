"""InfoNCE: which of many vectors is the partner of this one?"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.checks import check, check_finite, check_integer_or_none, check_positive, is_numpy, same_shape
from keras_gen.core.configured import Configured
from keras_gen.core.devices.blocks import by_chunks
from keras_gen.core.devices.products import precise_product
from keras_gen.export import keras_gen_export

CELLS = 2**22  # scores in memory at a time, 16 MB
MASKED = -1e30  # not -inf, whose differences are NaN


@keras_gen_export("keras_gen.losses.InfoNCE")
class InfoNCE(Configured):
    """InfoNCE, the contrastive loss of pairs: the cross-entropy of finding each vector's partner among all partners.

        s_ij = a_i . b_j / temperature
        L = mean_i (log sum_j exp s_ij + log sum_j exp s_ji) / 2 - s_ii

    Both directions count alike: a finds its b, and b its a. For B pairs `log B - L` is a lower bound of the mutual
    information of a and b, in nats, on average over batches; if all scores are equal, L is log B.

    Scores are plain inner products. For cosine similarities give vectors of length 1, as of an encoder that ends in
    `keras.layers.UnitNormalization`; for a learned temperature multiply `a` by its inverse, and set `temperature` to 1.

    Scores are computed for some vectors at a time, once more for the gradient, and are never kept: memory grows with
    the number of pairs, not with its square. The loss can be differentiated once, not twice.

    Args:
        temperature: float > 0. For vectors of length 1, between 0.05 and 0.5 is usual.
        chunk_size: int >= 1 or `None`. Number of vectors that are compared with all others at a time. Defaults to
            `None`, 16 MB of scores.

    Call arguments:
        a: `(batch, features)`, a vector for each pair.
        b: `(batch, features)`, their partners.
        identity: int `(batch,)` or `None`, all different. Pairs of the same identity, such as two views each of the
            same picture, are not compared with each other. Defaults to `None`.
        present: bool `(batch,)` or `None`, all of them. A pair that is not there, such as a row that fills up a batch,
            is neither counted nor compared. Defaults to `None`.

    Returns:
        A float32 scalar, the mean over the pairs that are there; 0 if none is.

    Raises:
        ValueError: if `temperature` or `chunk_size` is not positive; when called, if there are no pairs, shapes do not
            match, or an argument is not of finite real numbers, of integers or of bools.

    Example:

    >>> loss = keras_gen.losses.InfoNCE(temperature=0.1)
    >>> loss(encoder(crops), encoder(other_crops))

    Reference: van den Oord et al. 2018, arXiv:1807.03748; symmetric in Radford et al. 2021, arXiv:2103.00020.
    """

    def __init__(self, temperature: float, chunk_size: int | None = None):
        self.temperature = check_positive("temperature", temperature)
        self.chunk_size = check_integer_or_none("chunk_size", chunk_size)

    def __call__(self, a: Any, b: Any, identity: Any = None, present: Any = None) -> Any:
        a, b = _vectors(a, b)
        a = a / self.temperature
        n = ops.shape(a)[0]
        index = ops.arange(n, dtype="int32")
        identity = index if identity is None else _entries("identity", identity, a.shape[0], "int")
        present = ops.ones((n,), "bool") if present is None else _entries("present", present, a.shape[0], "bool")
        weight = ops.cast(present, "float32")
        weight = weight / ops.maximum(ops.sum(weight), 1.0)
        log_sums = _weighted_log_sums(a, b, (index, identity, present), weight, self.chunk_size)
        return log_sums - ops.sum(weight * ops.sum(a * b, axis=-1))

    def get_config(self) -> dict[str, Any]:
        return {"temperature": self.temperature, "chunk_size": self.chunk_size}


def _weighted_log_sums(a: Any, b: Any, pairs: tuple[Any, Any, Any], weight: Any, chunk_size: int | None) -> Any:
    """Returns `sum_i weight_i (log sum_j exp s_ij + log sum_j exp s_ji) / 2`.

    Its gradient is computed along with it, from scores computed anew: automatic differentiation would keep them all.
    """
    x, y = ops.stop_gradient(a), ops.stop_gradient(b)
    of_x, of_y = _log_sums(x, y, pairs, chunk_size), _log_sums(y, x, pairs, chunk_size)
    slope_x = _slopes(x, of_x, y, of_y, pairs, weight, chunk_size)
    slope_y = _slopes(y, of_y, x, of_x, pairs, weight, chunk_size)
    value = ops.sum(weight * (of_x + of_y)) / 2
    return value + ops.sum((a - x) * slope_x) + ops.sum((b - y) * slope_y)  # the differences are 0, their slopes 1


def _log_sums(x: Any, y: Any, pairs: tuple[Any, Any, Any], chunk_size: int | None) -> Any:
    """Returns `log sum_j exp(x_i . y_j)` over the j that i is compared with: `(n,)`."""

    def of_rows(x: Any, *rows: Any) -> Any:
        return ops.logsumexp(_scores(x, y, _compared(rows, pairs)), axis=1)

    return _constant_by_chunks(of_rows, (x, *pairs), chunk_size)


def _slopes(
    x: Any, of_x: Any, y: Any, of_y: Any, pairs: tuple[Any, Any, Any], weight: Any, chunk_size: int | None
) -> Any:
    """Returns the gradient of the weighted log-sums with respect to `x`: `(n, features)`."""

    def of_rows(x: Any, of_x: Any, weight_x: Any, *rows: Any) -> Any:
        compared = _compared(rows, pairs)
        s = _scores(x, y, compared)
        # d log sum_j exp s_ij / d s_ij is a softmax over the row; the sums over columns contribute theirs.
        along_row, along_column = ops.exp(s - of_x[:, None]), ops.exp(s - of_y)
        slope = ops.where(compared, along_row * weight_x[:, None] + along_column * weight, 0.0)
        return precise_product(slope, y) / 2

    return _constant_by_chunks(of_rows, (x, of_x, weight, *pairs), chunk_size)


def _scores(x: Any, y: Any, compared: Any) -> Any:
    return ops.where(compared, precise_product(x, ops.transpose(y)), MASKED)


def _compared(rows: Sequence[Any], columns: Sequence[Any]) -> Any:
    """Returns which pairs are compared, given (index, identity, present) of both: bool `(rows, columns)`."""
    (index, identity, present), (other_index, other_identity, other_present) = rows, columns
    is_itself, is_other = index[:, None] == other_index, identity[:, None] != other_identity
    both_present = ops.logical_and(present[:, None], other_present)
    return ops.logical_and(both_present, ops.logical_or(is_itself, is_other))


def _constant_by_chunks(function: Callable[..., Any], rows: Sequence[Any], chunk_size: int | None) -> Any:
    # Otherwise TensorFlow would differentiate the loop, and keep what it computes for each chunk.
    return ops.stop_gradient(by_chunks(function, rows, chunk_size or CELLS // ops.shape(rows[0])[0]))


def _vectors(a: Any, b: Any) -> tuple[Any, Any]:
    """Checks two sets of embeddings, and returns them in float32."""
    for name, x in {"a": a, "b": b}.items():
        check_finite(name, x)
    a, b = (ops.cast(x, "float32") for x in (a, b))
    is_batch = len(a.shape) == 2 and 0 not in a.shape and a.shape[1] is not None
    check(is_batch, "a", "have shape (batch >= 1, features >= 1)", f"shape {tuple(a.shape)}")
    check(same_shape(a.shape, b.shape), "b", f"have the shape of a, {tuple(a.shape)}", f"shape {tuple(b.shape)}")
    return a, b


def _entries(name: str, values: Any, n: int | None, kind: str) -> Any:
    """Checks that there is one integer, or one bool, for each pair, and returns them as a tensor."""
    check_finite(name, values)
    if is_numpy(values) and np.asarray(values).dtype in ("int64", "uint64"):
        # Numbered anew, since only equality counts: JAX would cut off their upper halves.
        values = np.unique(values, return_inverse=True)[1].reshape(np.shape(values)).astype("int32")
    values = ops.convert_to_tensor(values)
    dtype = keras.backend.standardize_dtype(values.dtype)
    is_entries = kind in dtype and same_shape(values.shape, (n,))
    check(is_entries, name, f"be {kind} of shape ({n},)", f"{dtype} of shape {tuple(values.shape)}")
    return values
