"""Sequence packing: several short sequences per row, and the masks that separate them."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.checks import check, check_flag, check_integer, is_numpy, real_array, real_tensor
from keras_gen.export import keras_gen_export


def check_segments(segments: Any) -> None:
    """Raises `ValueError` unless segments are integers `(rows, length)`, below 2^31 where their values can be read."""
    is_rows = len(segments.shape) == 2 and "int" in keras.backend.standardize_dtype(segments.dtype)
    check(is_rows, "segments", "be integers (rows, length)", f"{segments.dtype} of shape {tuple(segments.shape)}")
    is_small = not is_numpy(segments) or bool((segments < 2**31).all())
    check(is_small, "segments", "be 32-bit integers", "larger integers")


def segments_tensor(segments: Any) -> Any:
    """Converts segments to a tensor, after checking them."""
    segments = real_array("segments", segments) if is_numpy(segments) else real_tensor("segments", segments)
    check_segments(segments)
    return ops.convert_to_tensor(segments)


@keras_gen_export("keras_gen.ops.pack_sequences")
def pack_sequences(sequences: Sequence[Any], length: int) -> dict[str, np.ndarray]:
    """Packs short sequences in rows by first-fit decreasing: the longest first, each in the first row with room.

    Most rows then have no or little padding, whereas padding each sequence to the longest one may waste half of the
    computation. `segments` holds segment ids: `k + 1` for sequence `k`, 0 for padding. It is the argument of
    `segment_mask`, `segment_positions` and `unpack_sequences`; `CodeTransformer.fit` takes the dict of both arrays.

    Args:
        sequences: sequences of integers, each of length 1 .. `length`.
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
    sequences = _check_sequences(sequences, length)
    rows = _first_fit(np.array([len(sequence) for sequence in sequences]), length)
    return _filled(rows, sequences, length)


def _filled(rows: list[list[int]], sequences: list[np.ndarray], length: int) -> dict[str, np.ndarray]:
    """Returns codes and segments of rows, each a list of indices of sequences."""
    codes, segments = (np.zeros((len(rows), length), "int32") for _ in range(2))
    for row, members in enumerate(rows):
        start = 0
        for index in members:
            span = slice(start, start + len(sequences[index]))
            codes[row, span], segments[row, span] = sequences[index], index + 1
            start = span.stop
    return {"codes": codes, "segments": segments}


def _check_sequences(sequences: Any, length: int) -> list[np.ndarray]:
    is_sized = isinstance(sequences, Sequence | np.ndarray) and not isinstance(sequences, str)
    check(is_sized, "sequences", "be a list of sequences", type(sequences).__name__)
    check(len(sequences) > 0, "sequences", "hold at least one sequence", len(sequences))
    return [_checked(sequence, index, length) for index, sequence in enumerate(sequences)]


def _checked(sequence: Any, index: int, length: int) -> np.ndarray:
    sequence = real_array(f"sequences[{index}]", sequence)
    is_ints = sequence.ndim == 1 and (sequence.dtype.kind in "iu" or len(sequence) == 0)
    check(is_ints, f"sequences[{index}]", "be a sequence of integers", f"{sequence.dtype} of shape {sequence.shape}")
    is_small = len(sequence) == 0 or np.abs(sequence).max() < 2**31
    check(is_small, f"sequences[{index}]", "hold 32-bit integers", "larger integers")
    check(0 < len(sequence) <= length, f"sequences[{index}]", f"have 1 .. {length} entries", f"{len(sequence)} entries")
    return sequence


def _first_fit(sizes: np.ndarray, length: int) -> list[list[int]]:
    """Returns the indices of the sequences in each row."""
    rows: list[list[int]] = []
    room = np.empty(len(sizes), "int64")  # remaining in each row
    for index in np.argsort(-sizes, kind="stable"):
        # There are never more rows than sequences placed so far.
        has_room = room[: len(rows)] >= sizes[index]
        row = int(has_room.argmax()) if has_room.any() else len(rows)
        if row == len(rows):
            rows.append([])
            room[row] = length
        rows[row].append(int(index))
        room[row] -= sizes[index]
    return rows


@keras_gen_export("keras_gen.data.PackedSequences")
class PackedSequences(keras.utils.PyDataset):
    """Batches of packed rows for `fit`, packed on demand, and differently in each epoch.

    Rows are filled by first-fit decreasing, as by `pack_sequences`, which fixes the lengths that share a row and the
    number of rows. The places of sequences of equal length and the order of the rows are drawn anew for each epoch.
    `segments` holds `k + 1` for sequence `k` of the list.

    Args:
        sequences: sequences of integers, each of length 1 .. `length`.
        length: int >= 1. Length of a row.
        batch_size: int >= 1. Rows of a batch; the last one of an epoch may have fewer. Defaults to `32`.
        seed: int >= 0. With the number of the epoch, it determines the order. Defaults to `0`.

    Raises:
        ValueError: if an argument is outside its range, or a sequence is empty, longer than a row, or does not hold
            integers.

    Example:

    >>> model = keras_gen.models.CodeTransformer(64, max_length=30, positions="rotary")
    >>> model.compile(keras.optimizers.Adam(1e-3))
    >>> model.fit(keras_gen.data.PackedSequences(sequences, length=128, batch_size=8), epochs=20)

    Reference: Krell et al. 2021, arXiv:2107.02027.
    """

    def __init__(self, sequences: Sequence[Any], length: int, batch_size: int = 32, seed: int = 0):
        super().__init__()
        self.length = check_integer("length", length)
        self.batch_size = check_integer("batch_size", batch_size)
        self.seed = check_integer("seed", seed, at_least=0)
        self.sequences = _check_sequences(sequences, self.length)
        self.sizes = np.array([len(sequence) for sequence in self.sequences])
        # Of places in the order by length, which are the same in each epoch, whichever sequences they hold.
        self.rows_of_places = _first_fit(-np.sort(-self.sizes), self.length)
        self.epoch = 0
        self.rows = self._drawn_rows()

    @property
    def padding(self) -> float:
        """The fraction of all places in rows that is padding."""
        return float(1 - self.sizes.sum() / (len(self.rows) * self.length))

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def __getitem__(self, index: int) -> tuple[dict[str, np.ndarray]]:
        rows = self.rows[index * self.batch_size : (index + 1) * self.batch_size]
        return (_filled(rows, self.sequences, self.length),)

    def on_epoch_end(self) -> None:
        self.epoch += 1
        self.rows = self._drawn_rows()

    def _drawn_rows(self) -> list[list[int]]:
        """Returns the sequences of each row: those of equal length shuffled, then the rows."""
        generator = np.random.default_rng([self.seed, self.epoch])
        shuffled = generator.permutation(len(self.sequences))
        by_length = shuffled[np.argsort(-self.sizes[shuffled], kind="stable")]
        rows = [by_length[places].tolist() for places in self.rows_of_places]
        return [rows[row] for row in generator.permutation(len(rows))]


@keras_gen_export("keras_gen.ops.unpack_sequences")
def unpack_sequences(values: Any, segments: Any) -> list[np.ndarray]:
    """Splits packed rows into their sequences, in the order of the input of `pack_sequences`.

    If each row numbers its segments from 1, the first segments of all rows come first, then the second, and so on.

    Args:
        values: `(rows, length, ...)`, the packed codes, or values computed from each.
        segments: integers `(rows, length)`, as returned by `pack_sequences`.

    Returns:
        list of arrays `(length of the sequence, ...)`.

    Raises:
        ValueError: if `values` and `segments` have different shapes, or `segments` are not rows of integers.

    Example:

    >>> keras_gen.ops.unpack_sequences(packed["codes"], packed["segments"])

    Reference: Krell et al. 2021, arXiv:2107.02027.
    """
    values, segments = real_array("values", values), real_array("segments", segments)
    check_segments(segments)
    is_aligned = segments.ndim == 2 and values.shape[:2] == segments.shape
    check(is_aligned, "values", f"have leading axes {segments.shape}, the shape of segments", f"shape {values.shape}")
    # By segment, then by row: rows not made by `pack_sequences` may each number their segments from 1.
    owner = (segments.astype("int64") * len(segments) + np.arange(len(segments))[:, None]).reshape(-1)
    order = np.argsort(owner, kind="stable")  # stable: keeps the order within a segment
    order = order[segments.reshape(-1)[order] > 0]
    if len(order) == 0:
        return []
    values = values.reshape(-1, *values.shape[2:])[order]
    return np.split(values, np.flatnonzero(np.diff(owner[order])) + 1)


@keras_gen_export("keras_gen.ops.segment_positions")
def segment_positions(segments: Any) -> Any:
    """Computes the position of each token in its own segment: 0, 1, 2, ..., and 0 for padding.

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
    """Computes the attention mask of packed rows: tokens attend to their own segment only, never to padding.

        mask[b, 0, i, j] = segments[b, i] == segments[b, j] > 0   and   i >= j if `causal`

    A single mask combines all conditions, in the shape that attention accepts on every backend.

    Args:
        segments: integers `(rows, length)`, 0 for padding; see `pack_sequences`.
        causal: bool. Whether to mask future tokens. Defaults to `True`.

    Returns:
        bool tensor `(rows, 1, length, length)`.

    Raises:
        ValueError: if `segments` are not rows of integers.

    Example:

    >>> y = keras.ops.dot_product_attention(q, k, v, mask=keras_gen.ops.segment_mask(segments))

    Reference: Krell et al. 2021, arXiv:2107.02027.
    """
    check_flag("causal", causal)
    segments = segments_tensor(segments)
    mask = ops.logical_and(segments[:, :, None] == segments[:, None, :], segments[:, :, None] > 0)
    if causal:
        positions = ops.arange(ops.shape(segments)[1], dtype="int32")  # unknown to TensorFlow after a change of length
        mask = ops.logical_and(mask, positions[:, None] >= positions)
    return mask[:, None]


@keras_gen_export("keras_gen.ops.next_code_mask")
def next_code_mask(segments: Any) -> Any:
    """Computes the loss mask of next-token prediction on packed rows: where the next token is of the same segment.

        mask[b, i] = segments[b, i] == segments[b, i + 1] > 0,   False at the end of a row

    For custom networks that predict the next token. `CodeTransformer` does not need it: it predicts the first code of
    each segment from a start token.

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
    segments = segments_tensor(segments)
    following = ops.concatenate([segments[:, 1:], ops.zeros_like(segments[:, :1])], axis=1)
    return ops.logical_and(segments == following, segments > 0)
