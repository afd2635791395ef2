from typing import Any

from keras import ops

from keras_gen.autoregressive.segments import check_segments
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.ops.next_code_mask")
def next_code_mask(segments: Any) -> Any:
    """Computes where the next token of a packed row belongs to the same segment: where a loss of the next token counts.

        mask[b, i] = segments[b, i] == segments[b, i + 1] > 0,   False at the end of a row

    For networks of your own that see a token and tell the next. `CodeTransformer` needs none: it tells each first code
    from a start of its own.

    Args:
        segments: integers `(rows, length)`, 0 for padding; see `pack_sequences`.

    Returns:
        bool tensor `(rows, length)`.

    Raises:
        ValueError: if `segments` are not rows of integers.

    Example:

    >>> keras_gen.ops.next_code_mask([[1, 1, 1, 2, 2, 0]])     # [[True, True, False, True, False, False]]

    Reference: Krell et al. 2021, arXiv:2107.02027.
    """
    segments = ops.convert_to_tensor(segments)
    check_segments(segments)
    following = ops.concatenate([segments[:, 1:], ops.zeros_like(segments[:, :1])], axis=1)
    return ops.logical_and(segments == following, segments > 0)
