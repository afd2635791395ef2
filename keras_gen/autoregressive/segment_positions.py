from typing import Any

from keras import ops

from keras_gen.autoregressive.segment_mask import segment_mask
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.ops.segment_positions")
def segment_positions(segments: Any) -> Any:
    """Computes the position of each token in its own segment: 0, 1, 2, ... anew for each, 0 for padding.

        position_i = number of tokens of the segment of i before i

    Args:
        segments: integers `(rows, length)`, 0 for padding; see `pack_sequences`.

    Returns:
        int32 tensor `(rows, length)`.

    Raises:
        ValueError: if `segments` are not rows of integers.

    Example:

    >>> keras_gen.ops.segment_positions([[1, 1, 1, 2, 2, 0]])     # [[0, 1, 2, 0, 1, 0]]

    Reference: Krell et al. 2021, arXiv:2107.02027.
    """
    seen = ops.sum(ops.cast(segment_mask(segments)[:, 0], "int32"), axis=-1)
    return ops.maximum(seen - 1, 0)
