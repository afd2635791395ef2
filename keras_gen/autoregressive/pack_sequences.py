from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_gen.core.checks import check, check_integer
from keras_gen.export import keras_gen_export


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
