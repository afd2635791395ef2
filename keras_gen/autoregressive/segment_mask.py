from typing import Any

from keras import ops

from keras_gen.autoregressive.segments import check_segments
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.ops.segment_mask")
def segment_mask(segments: Any, causal: bool = True) -> Any:
    """Computes which tokens of a packed row see each other: those of one segment, and no padding.

        mask[b, 0, i, j] = segments[b, i] == segments[b, j] > 0   and   i >= j if `causal`

    All conditions are in one mask, of the shape that attention takes on every backend.

    Args:
        segments: integers `(rows, length)`, 0 for padding; see `pack_sequences`.
        causal: bool. Whether tokens see none behind them. Defaults to `True`.

    Returns:
        bool tensor `(rows, 1, length, length)`.

    Raises:
        ValueError: if `segments` are not rows of integers.

    Example:

    >>> y = keras.ops.dot_product_attention(q, k, v, mask=keras_gen.ops.segment_mask(segments))

    Reference: Krell et al. 2021, arXiv:2107.02027.
    """
    segments = ops.convert_to_tensor(segments)
    check_segments(segments)
    mask = ops.logical_and(segments[:, :, None] == segments[:, None, :], segments[:, :, None] > 0)
    if causal:
        places = ops.arange(segments.shape[1])
        mask = ops.logical_and(mask, places[:, None] >= places)
    return mask[:, None]
