"""Packing: several short sequences in one row, and the masks that keep them apart."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.checks import check, check_integer
from keras_gen.export import keras_gen_export


def check_segments(segments: Any) -> None:
    """Refuses what is not a batch of rows of integers."""
    integers = "int" in keras.backend.standardize_dtype(segments.dtype)
    valid = len(segments.shape) == 2 and integers
    check(valid, "segments", "be integers (rows, length)", f"{segments.dtype} of shape {tuple(segments.shape)}")


@keras_gen_export("keras_gen.ops.pack_sequences")
def pack_sequences(sequences: Sequence[Any], length: int) -> dict[str, np.ndarray]:
    """Puts short sequences side by side in rows, the longest first, each in the first row that has room.

    Filled so, most rows have no or little padding, where padding each sequence to the longest one may waste half of the
    work. `segments` says what belongs together: entry `k + 1` is sequence `k`, 0 is padding. It is what `segment_mask`,
    `segment_positions` and `unpack_sequences` take, and `CodeTransformer.fit` takes both arrays as they are.

    Args:
        sequences: sequences of integers, each of 1 .. length of them.
        length: int >= 1. Length of a row.

    Returns:
        dict of `"codes"` and `"segments"`, int32 arrays `(rows, length)`.

    Raises:
        ValueError: if a sequence is empty, longer than a row, or does not hold integers.

    Example:

    >>> packed = keras_gen.ops.pack_sequences([[5, 6, 7], [8], [9, 9]], 4)
    >>> packed["codes"]                       # [[5, 6, 7, 8], [9, 9, 0, 0]]
    >>> packed["segments"]                    # [[1, 1, 1, 2], [3, 3, 0, 0]]

    Reference: Johnson 1973, "Near-optimal bin packing algorithms" (first-fit decreasing); Krell et al. 2021,
    arXiv:2107.02027.
    """
    length = check_integer("length", length)
    check(len(sequences) > 0, "sequences", "hold at least one sequence", len(sequences))
    sequences = [_checked(sequence, number, length) for number, sequence in enumerate(sequences)]
    rows = _first_fit(np.array([len(sequence) for sequence in sequences]), length)
    codes, segments = (np.zeros((len(rows), length), "int32") for _ in range(2))
    for row, members in enumerate(rows):
        start = 0
        for number in members:
            place = slice(start, start + len(sequences[number]))
            codes[row, place], segments[row, place] = sequences[number], number + 1
            start = place.stop
    return {"codes": codes, "segments": segments}


def _checked(sequence: Any, number: int, length: int) -> np.ndarray:
    sequence = np.asarray(sequence)
    valid = sequence.ndim == 1 and (sequence.dtype.kind in "iu" or len(sequence) == 0)
    check(valid, f"sequences[{number}]", "be a sequence of integers", f"{sequence.dtype} of shape {sequence.shape}")
    small = len(sequence) == 0 or np.abs(sequence).max() < 2**31
    check(small, f"sequences[{number}]", "hold integers of 32 bits", "larger ones")
    check(
        0 < len(sequence) <= length, f"sequences[{number}]", f"have 1 .. {length} entries", f"{len(sequence)} entries"
    )
    return sequence


def _first_fit(sizes: np.ndarray, length: int) -> list[list[int]]:
    """Returns the numbers of the sequences in each row."""
    rows: list[list[int]] = []
    room = np.empty(len(sizes), "int64")  # of each row
    for number in np.argsort(-sizes, kind="stable"):
        # A sequence never needs more rows than there are sequences before it.
        fits = room[: len(rows)] >= sizes[number]
        row = int(fits.argmax()) if fits.any() else len(rows)
        if row == len(rows):
            rows.append([])
            room[row] = length
        rows[row].append(int(number))
        room[row] -= sizes[number]
    return rows


@keras_gen_export("keras_gen.ops.unpack_sequences")
def unpack_sequences(values: Any, segments: Any) -> list[np.ndarray]:
    """Takes packed rows apart, in the order in which `pack_sequences` was given the sequences.

    Where each row counts its segments from 1, the first ones of all rows come first, then the second ones, and so on.

    Args:
        values: `(rows, length, ...)`, the packed codes, or what was computed of each.
        segments: integers `(rows, length)`, as `pack_sequences` gave them.

    Returns:
        list of arrays `(length of the sequence, ...)`.

    Raises:
        ValueError: if `values` and `segments` have different shapes.

    Example:

    >>> keras_gen.ops.unpack_sequences(packed["codes"], packed["segments"])

    Reference: Krell et al. 2021, arXiv:2107.02027.
    """
    values, segments = (np.asarray(ops.convert_to_numpy(array)) for array in (values, segments))
    fits = segments.ndim == 2 and values.shape[:2] == segments.shape
    check(fits, "values", f"have shape {segments.shape} or more, as segments", f"shape {values.shape}")
    # By segment, then by row: rows of others than `pack_sequences` may count their segments anew.
    owner = (segments.astype("int64") * len(segments) + np.arange(len(segments))[:, None]).reshape(-1)
    order = np.argsort(owner, kind="stable")  # stable: within a segment, the order of the row
    order = order[segments.reshape(-1)[order] > 0]
    if len(order) == 0:
        return []
    values = values.reshape(-1, *values.shape[2:])[order]
    return np.split(values, np.flatnonzero(np.diff(owner[order])) + 1)


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
