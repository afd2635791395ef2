import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops
from programs import one_program
from scipy.special import log_softmax

from keras_gen.core.fixtures import made_alike, randomize_weights, to_numpy
from keras_gen.data import PackedSequences
from keras_gen.models import CodeTransformer
from keras_gen.ops import next_code_mask, pack_sequences, segment_mask, segment_positions, unpack_sequences

ROW = np.array([[1, 1, 1, 2, 2, 3, 3, 3, 3, 0]])
SEQUENCES = [[2, 0, 1, 1], [1], [0, 2], [1, 2, 2], [2, 2, 0, 1, 0], [0, 0, 1, 2]]


def test_positions_start_anew():
    positions = segment_positions(ROW)
    assert keras.backend.standardize_dtype(positions.dtype) == "int32"
    np.testing.assert_array_equal(to_numpy(positions), [[0, 1, 2, 0, 1, 0, 1, 2, 3, 0]])


def test_next_codes_are_of_the_same_segment():
    mask = next_code_mask(ROW)
    assert keras.backend.standardize_dtype(mask.dtype) == "bool"
    np.testing.assert_array_equal(to_numpy(mask), [[1, 1, 0, 1, 0, 1, 1, 1, 0, 0]])
    full = next_code_mask([[5, 5, 5], [0, 0, 7]])
    np.testing.assert_array_equal(to_numpy(full), [[1, 1, 0], [0, 0, 0]])


@pytest.mark.parametrize("causal", [True, False])
def test_tokens_see_their_own_segment(causal):
    segments = np.array([[1, 1, 2, 2, 2, 0], [4, 0, 0, 3, 3, 3]])
    expected = np.zeros((2, 1, 6, 6), bool)
    for row, i, j in np.ndindex(2, 6, 6):
        same = segments[row, i] == segments[row, j] and segments[row, i] > 0
        expected[row, 0, i, j] = same and (j <= i or not causal)
    mask = segment_mask(ops.convert_to_tensor(segments, "int32"), causal=causal)
    assert keras.backend.standardize_dtype(mask.dtype) == "bool"
    np.testing.assert_array_equal(to_numpy(mask), expected)


def test_the_longest_come_first():
    packed = pack_sequences([np.full(n, n) for n in (5, 3, 4, 2, 6)], 8)
    np.testing.assert_array_equal(packed["codes"], [[6] * 6 + [2] * 2, [5] * 5 + [3] * 3, [4] * 4 + [0] * 4])
    np.testing.assert_array_equal(packed["segments"], [[5] * 6 + [4] * 2, [1] * 5 + [2] * 3, [3] * 4 + [0] * 4])
    assert packed["codes"].dtype == packed["segments"].dtype == np.int32


def test_the_first_row_with_room_is_taken():
    """[5] | [4] leave 3 and 4 places: 3 goes to the first; then 4 to the second."""
    packed = pack_sequences([[1] * 5, [2] * 4, [3] * 3, [4] * 4], 8)
    np.testing.assert_array_equal(packed["segments"], [[1] * 5 + [3] * 3, [2] * 4 + [4] * 4])


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_unpacking_undoes_packing(data):
    length = data.draw(st.integers(1, 12))
    sequences = data.draw(st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=length), min_size=1, max_size=15))
    packed = pack_sequences(sequences, length)
    codes, segments = packed["codes"], packed["segments"]
    assert codes.shape == segments.shape == (len(codes), length)
    back = unpack_sequences(codes, segments)
    assert [list(sequence) for sequence in back] == sequences
    for number, sequence in enumerate(sequences):
        rows, places = np.nonzero(segments == number + 1)  # side by side in one row
        assert len(set(rows)) == 1
        np.testing.assert_array_equal(places, places[0] + np.arange(len(sequence)))
    assert (codes[segments == 0] == 0).all()
    assert (segments > 0).any(1).all()
    used = np.sort((segments > 0).sum(1))
    assert used[:2].sum() > length or len(used) == 1  # no two rows would fit in one


@pytest.mark.one_backend
def test_each_epoch_packs_anew_by_seed():
    """Each epoch holds every sequence once, in as few rows, in another order; seed and epoch determine it."""
    sequences = [[i] * (1 + i % 5) for i in range(60)]
    fewest = pack_sequences(sequences, 8)["codes"]

    def epochs(seed):
        data, found = PackedSequences(sequences, 8, batch_size=7, seed=seed), []
        for _ in range(3):
            batches = [data[i][0] for i in range(len(data))]
            found.append({name: np.concatenate([batch[name] for batch in batches]) for name in ("codes", "segments")})
            assert {len(batch["codes"]) for batch in batches[:-1]} == {7}
            assert data.padding == pytest.approx(np.mean(found[-1]["segments"] == 0))
            data.on_epoch_end()
        return found

    first, again, other = epochs(3), epochs(3), epochs(4)
    for packed in (*first, *other):
        assert [part.tolist() for part in unpack_sequences(packed["codes"], packed["segments"])] == sequences
        assert packed["codes"].shape == fewest.shape
    neighbors = [{frozenset(row[row > 0]) for row in packed["segments"]} for packed in (*first, *other)]
    assert len(set(map(frozenset, neighbors))) == 6
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a["segments"], b["segments"])


def test_a_packed_step_is_a_padded_step():
    """Loss and gradients, as the steps of SGD, of the same sequences: packed, and with a row for each.

    With `remat` in one of the two, which reads the masks and positions of packed rows from outside.
    """
    packed, padded = PackedSequences(SEQUENCES, 9), [pack_sequences([sequence], 9) for sequence in SEQUENCES]
    padded = {name: np.concatenate([row[name] for row in padded]) for name in ("codes", "segments")}
    results = []
    for rows in (packed, padded):
        model = transformer("rotary", remat=rows is packed)
        before = [to_numpy(weight) for weight in model.weights]
        loss = model.fit(rows, verbose=0).history["loss"]
        results.append([np.array(loss), *(to_numpy(w) - old for w, old in zip(model.weights, before, strict=True))])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    assert max(np.abs(step).max() for step in results[0][1:]) > 1e-2


def test_what_is_computed_of_codes_is_unpacked_too():
    packed = pack_sequences(SEQUENCES, 6)
    values = np.stack([packed["codes"], -packed["segments"]], axis=-1)
    for number, part in enumerate(unpack_sequences(ops.convert_to_tensor(values), packed["segments"])):
        np.testing.assert_array_equal(part, [[code, -number - 1] for code in SEQUENCES[number]])


# Networks


def transformer(positions="learned", **options):
    options.setdefault("optimizer", keras.optimizers.SGD(0.5))
    optimizer = options.pop("optimizer")
    model = CodeTransformer(3, 5, dim=8, depth=2, num_heads=2, positions=positions, seed=0, **options)
    model.compile(optimizer)
    model.build((None, 5))
    randomize_weights(model, scale=1.5)
    return model


def separate_log_prob(model):
    """One sequence at a time, without packing; NumPy from the logits on."""
    log_p, logits = [], one_program(model, model.logits)
    for sequence in SEQUENCES:
        codes = np.array([sequence], "int32")
        each = log_softmax(to_numpy(logits(ops.convert_to_tensor(codes)))[0].astype("float64"), axis=-1)
        log_p.append(each[np.arange(len(sequence)), sequence].sum())
    return np.array(log_p)


@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_packing_changes_no_probability(positions):
    model = transformer(positions)
    separate = separate_log_prob(model)
    for length, batch_size in ((6, 256), (9, 2)):
        packed = pack_sequences(SEQUENCES, length)
        log_p = model.log_prob(packed, batch_size=batch_size, verbose=0)
        assert (log_p.shape, log_p.dtype) == ((6,), np.float32)
        np.testing.assert_allclose(log_p, separate, rtol=1e-5, atol=1e-5)
    full = model.log_prob(np.array([SEQUENCES[4]]), verbose=0)  # of max_length codes: no packing needed
    np.testing.assert_allclose(full, separate[4:5], rtol=1e-5)


def test_the_loss_is_in_nats_for_each_code():
    model, packed = transformer(), pack_sequences(SEQUENCES, 8)
    expected = -separate_log_prob(model).sum() / sum(map(len, SEQUENCES))
    logs = model.evaluate(packed, batch_size=8, verbose=0, return_dict=True)
    assert logs == pytest.approx({"loss": expected, "nll": expected, "bits_per_dim": expected / np.log(2)}, rel=1e-5)
    logs = model.evaluate(packed, batch_size=1, verbose=0, return_dict=True)  # rows hold 8, 7 and 4 codes
    assert logs["nll"] == pytest.approx(expected, rel=1e-5)
    empty = {name: ops.convert_to_tensor(np.zeros((2, 8), "int32")) for name in packed}
    assert float(to_numpy(model.compute_loss(empty, training=False))) == 0


@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_padding_counts_nowhere(positions):
    first = pack_sequences(SEQUENCES, 9)
    padding = first["segments"] == 0
    assert padding.sum() > 3
    second = {**first, "codes": np.where(padding, 2, first["codes"])}
    wider = {name: np.pad(array, ((0, 1), (0, 3))) for name, array in first.items()}  # with a row of padding
    results, log_ps = [], []
    model = transformer(positions)  # one model, whose steps are compiled once for each shape
    before = [to_numpy(weight).copy() for weight in model.weights]
    for packed in (first, second, wider):
        model.set_weights(before)
        log_ps.append(model.log_prob(packed, verbose=0))
        loss = model.fit(packed, batch_size=8, verbose=0).history["loss"]
        results.append([np.array(loss), *map(to_numpy, model.weights)])
    for log_p in log_ps[1:]:
        np.testing.assert_allclose(log_p, log_ps[0], rtol=1e-5, atol=1e-6)
    assert max(np.abs(a - b).max() for a, b in zip(results[0][1:], before, strict=True)) > 1e-2
    for result in results:
        assert all(np.isfinite(array).all() for array in result)
        for a, b in zip(result, results[0], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_bits_are_those_of_each_code():
    model = transformer()
    lengths = np.array([len(sequence) for sequence in SEQUENCES])
    expected = -model.log_prob(PACKED, verbose=0) / lengths / np.log(2)
    np.testing.assert_allclose(model.bits_per_dim(PACKED), expected, rtol=1e-5)


def test_rows_without_sequences_unpack_to_nothing():
    assert unpack_sequences(np.zeros((2, 3)), np.zeros((2, 3), int)) == []


def test_rows_may_count_their_segments_anew():
    parts = unpack_sequences([[1, 2, 3], [4, 5, 6]], [[1, 1, 2], [1, 2, 2]])
    assert [part.tolist() for part in parts] == [[1, 2], [4], [3], [5, 6]]


def test_packed_batches_of_a_dataset_are_checked():
    rows = {name: ops.convert_to_tensor(array) for name, array in PACKED.items()}
    conditional = CodeTransformer(3, 5, 8, 1, 2, num_classes=2, seed=0)
    with pytest.raises(ValueError, match="`x` must not be packed rows for a model with a condition"):
        conditional.compute_loss(rows)
    with pytest.raises(ValueError, match="`y` must be None for packed rows"):
        transformer().compute_loss(rows, ops.zeros(len(PACKED["codes"])))


def test_packed_rows_train():
    sequences = [[i % 3, (i + 1) % 3, (i + 2) % 3, i % 3][: 1 + i % 4] for i in range(60)]
    packed = pack_sequences(sequences, 6)
    model = made_alike(lambda: CodeTransformer(3, 4, 8, 1, 2, "rotary", dropout=0.1, seed=0))
    model.compile(keras.optimizers.Adam(2e-2))
    history = model.fit(packed, epochs=20, batch_size=16, validation_data=(packed,), verbose=0).history
    assert set(history) == {prefix + name for prefix in ("", "val_") for name in ("loss", "nll", "bits_per_dim")}
    # Only the first code is free: log 3 / 2.5 nats for each code.
    assert history["val_loss"][-1] < 0.75 * history["val_loss"][0]
    assert history["val_nll"][-1] == pytest.approx(np.log(3) / 2.5, rel=0.3)
    assert model.data_shape == (4,)
    assert model.sample(2, seed=0, verbose=0).shape == (2, 4)


PACKED = pack_sequences(SEQUENCES, 6)


def padding(rows):
    return {name: np.zeros((rows, 6), "int32") for name in ("codes", "segments")}


@pytest.mark.parametrize(
    ("use", "match"),
    [
        (lambda: pack_sequences([], 4), "`sequences` must hold at least one sequence"),
        (lambda: pack_sequences([[1], []], 4), r"`sequences\[1\]` must have 1 .. 4 entries. Received: .*=0 entries"),
        (lambda: pack_sequences([[1] * 5], 4), r"`sequences\[0\]` must have 1 .. 4 entries. Received: .*=5 entries"),
        (lambda: pack_sequences([[2**31]], 4), r"`sequences\[0\]` must hold 32-bit integers"),
        (lambda: pack_sequences([[1.0]], 4), r"`sequences\[0\]` must be a sequence of integers. Received: .*float64"),
        (lambda: pack_sequences([[[1]]], 4), r"`sequences\[0\]` must be a sequence of integers"),
        (lambda: pack_sequences([[1]], 0), "`length` must be an integer >= 1"),
        (lambda: PackedSequences([[1], [1] * 5], 4), r"`sequences\[1\]` must have 1 .. 4 entries. .*=5 entries"),
        (lambda: PackedSequences([], 4), "`sequences` must hold at least one sequence"),
        (lambda: PackedSequences([[1]], 4, batch_size=0), "`batch_size` must be an integer >= 1"),
        (lambda: PackedSequences([[1]], 4, seed=-1), "`seed` must be an integer >= 0"),
        (lambda: unpack_sequences(PACKED["codes"], PACKED["segments"][:, :4]), "`values` must have leading axes"),
        (lambda: unpack_sequences(PACKED["codes"][0], PACKED["segments"][0]), "`segments` must be integers"),
        (lambda: unpack_sequences(PACKED["codes"], np.nan * PACKED["segments"]), "`segments` must be integers"),
        (lambda: unpack_sequences([[1], [2, 3]], PACKED["segments"]), "`values` must be a regular array of numbers"),
        (lambda: segment_mask(ROW, causal="False"), "`causal` must be True or False"),
        (lambda: segment_mask(ROW[0]), r"`segments` must be integers \(rows, length\). Received: segments="),
        (lambda: segment_mask(ROW.astype("float32")), "`segments` must be integers"),
        (lambda: segment_positions(ROW * 1.0), "`segments` must be integers"),
        (lambda: next_code_mask(ROW[0]), "`segments` must be integers"),
        (lambda: next_code_mask(ROW.astype("int64") << 32), "`segments` must be 32-bit integers"),
        (lambda: segment_mask([[2**32 + 1, 0]]), "`segments` must be 32-bit integers"),
        (lambda: unpack_sequences(ROW, ROW.astype("int64") << 32), "`segments` must be 32-bit integers"),
    ],
)
def test_bad_input(use, match):
    with pytest.raises(ValueError, match=match):
        use()


@pytest.mark.parametrize("use", [lambda m, x, y: m.fit(x, y, verbose=0), lambda m, x, y: m.log_prob(x, y, verbose=0)])
@pytest.mark.parametrize(
    ("x", "y", "match"),
    [
        ({**PACKED, "codes": PACKED["codes"] + 1}, None, r"`codes` must be codes in 0 .. 2"),
        ({**PACKED, "codes": PACKED["codes"] * 1.0}, None, "`x` must hold integers"),
        ({**PACKED, "segments": PACKED["segments"] * 1.0}, None, "`x` must hold integers"),
        ({**PACKED, "segments": PACKED["segments"][:, :5]}, None, "`segments` must have the codes' shape"),
        ({"codes": PACKED["codes"]}, None, "`x` must hold 'codes' and 'segments', as returned by"),
        ({name: array[0] for name, array in PACKED.items()}, None, "`x` must hold integers"),
        (pack_sequences([[0] * 6], 6), None, "`x` must have sequences of at most max_length=5 codes. Received: x=6"),
        (padding(1), None, "`segments` must hold at least one sequence"),
        (padding(0), None, "`segments` must hold at least one sequence"),
        ({"codes": ROW[:1] * 0, "segments": 2 - ROW[:1] % 2}, None, "`segments` must be contiguous"),
        (PACKED, np.zeros(len(PACKED["codes"]), int), "`y` must be None for packed rows"),
    ],
)
def test_bad_packed_rows(use, x, y, match):
    with pytest.raises(ValueError, match=match):
        use(transformer(), x, y)


def test_packed_rows_take_no_condition_and_no_weights():
    model = CodeTransformer(3, 5, 8, 1, 2, num_classes=2, seed=0)
    model.compile("adam")
    with pytest.raises(ValueError, match="`x` must not be packed rows for a model with a condition"):
        model.fit(PACKED, verbose=0)
    rows = {name: ops.convert_to_tensor(array) for name, array in PACKED.items()}
    with pytest.raises(ValueError, match="`sample_weight` must be None for packed rows"):
        transformer().compute_loss(rows, sample_weight=ops.ones(len(PACKED["codes"])))
