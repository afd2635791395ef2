import functools

import keras
import numpy as np
import pytest
from enumeration import all_codes, check_frequencies, draws, probabilities
from keras import ops
from programs import one_program

from keras_gen.core.fixtures import made_alike, randomize_weights, save_and_load, to_numpy
from keras_gen.layers import RotaryEmbedding, RotaryEmbedding2D, TransformerBlock
from keras_gen.models import CodeTransformer
from keras_gen.ops import segment_mask

CODES = all_codes(3, (4,))
LABELS = np.arange(81) % 2
VECTORS = np.random.default_rng(0).normal(size=(81, 3)).astype("float32")
NOISE = np.random.default_rng(1).random((5, 4), dtype="float32")
OPTIONS = {
    "learned": {},
    "rotary": {"positions": "rotary"},
    "labels": {"num_classes": 2, "condition_dropout": 0.3},
    "vectors": {"positions": "rotary", "condition_dim": 3, "condition_dropout": 0.3},
}
CONDITIONS = {"labels": {"condition": 1}, "vectors": {"condition": VECTORS[0]}}


def transformer(name, shape=(4,), max_length=6, **options):
    """A model of 3 codes with random weights, far from the uniform distribution."""
    model = CodeTransformer(3, max_length, dim=8, depth=2, num_heads=2, seed=0, **OPTIONS[name], **options)
    model.build((None, *shape))
    randomize_weights(model, scale=0.7)
    return model


@functools.cache
def model_of(name):
    return transformer(name)


@functools.cache
def table_of(name):
    return probabilities(model_of(name), **CONDITIONS.get(name, {}))


def softmax(logits):
    p = np.exp(logits.astype("float64") - logits.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def logits_of(model, codes, condition=None):
    condition = None if condition is None else ops.convert_to_tensor(condition)
    return to_numpy(model.logits(ops.convert_to_tensor(codes), condition))


# Densities


@pytest.mark.parametrize("name", OPTIONS)
def test_probabilities_sum_to_one(name):
    assert table_of(name).sum() == pytest.approx(1, abs=1e-5)
    assert table_of(name).max() > 0.02  # of 81


@pytest.mark.parametrize("name", OPTIONS)
def test_log_prob_is_the_chain_rule(name):
    """Each factor from the logits of the codes before, alone."""
    model, expected = model_of(name), np.zeros(81)
    conditions = {"labels": LABELS.astype("int32"), "vectors": VECTORS}.get(name)
    for i in range(4):
        p = softmax(logits_of(model, CODES[:, : i + 1], conditions)[:, i])
        expected += np.log(p[np.arange(81), CODES[:, i]])
    given = {} if conditions is None else {"condition": conditions}
    log_p = model.log_prob(CODES, batch_size=81, verbose=0, **given)
    assert log_p.dtype == np.float32
    np.testing.assert_allclose(log_p, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(model.bits_per_dim(CODES, **given), -expected / np.log(16), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["learned", "rotary"])
def test_a_logit_depends_on_all_codes_before_and_no_other(name, rng):
    model = model_of(name)
    codes = np.repeat(rng.integers(0, 3, (1, 6)), 7, axis=0).astype("int32")
    codes[np.arange(6), np.arange(6)] += 1  # row j has another code j, the last row has none
    # One by one: in a batch, equal rows may be rounded differently.
    logits = np.concatenate([logits_of(model, row[None]) for row in codes % 3])
    moved = (logits[:6] != logits[6:]).any(-1)
    np.testing.assert_array_equal(moved, np.triu(np.ones((6, 6), bool), 1))


@pytest.mark.parametrize("name", OPTIONS)
def test_cached_decoding_is_the_whole_computation(name):
    model = model_of(name)
    conditions = {"labels": LABELS.astype("int32"), "vectors": VECTORS}.get(name)
    whole = logits_of(model, CODES, conditions)
    inputs = {} if conditions is None else {"condition": ops.convert_to_tensor(conditions)}
    cache, codes = model.empty_cache(81, 4), ops.convert_to_tensor(CODES)
    for i in range(4):
        logits, cache = model.next_logits(ops.convert_to_tensor(i, "int32"), codes, cache, inputs)
        np.testing.assert_allclose(to_numpy(logits), whole[:, i], rtol=1e-5, atol=1e-5)


def test_maps_are_taken_row_by_row():
    flat, square = model_of("learned"), transformer("learned", (2, 2))
    log_p = square.log_prob(CODES.reshape(81, 2, 2), verbose=0)
    np.testing.assert_allclose(log_p, flat.log_prob(CODES, verbose=0), rtol=1e-5)
    samples = square.sample(5, noise=NOISE.reshape(5, 2, 2), verbose=0)
    np.testing.assert_array_equal(samples.reshape(5, 4), flat.sample(5, noise=NOISE, verbose=0))


def test_conditions_matter():
    labels, vectors = model_of("labels"), model_of("vectors")
    log_p = [labels.log_prob(CODES, label, verbose=0) for label in (0, 1)]
    assert np.abs(log_p[0] - log_p[1]).max() > 0.1
    mixed = labels.log_prob(CODES, LABELS, batch_size=20, verbose=0)
    np.testing.assert_allclose(mixed, np.where(LABELS == 1, log_p[1], log_p[0]), rtol=1e-5, atol=1e-5)
    one = vectors.log_prob(CODES[5:6], VECTORS[5], verbose=0)
    each = vectors.log_prob(CODES, VECTORS, verbose=0)
    np.testing.assert_allclose(one, each[5:6], rtol=1e-5)
    assert np.abs(vectors.log_prob(CODES, VECTORS[0], verbose=0) - each).max() > 0.1


@pytest.mark.parametrize("name", ["labels", "vectors"])
def test_a_share_of_conditions_is_hidden_in_training(name):
    model = transformer(name)
    same = ops.convert_to_tensor(np.ones(2000, "int32") if name == "labels" else np.tile(VECTORS[:1], (2000, 1)))
    pair = np.array([1, 2], "int32") if name == "labels" else (VECTORS[:1] * [[1], [0]]).astype("float32")
    shown, hidden = to_numpy(model.condition_layer(ops.convert_to_tensor(pair)))
    embedded = to_numpy(model.embed(same, training=True))
    is_hidden = np.isclose(embedded, hidden.reshape(1, -1)).all(1)
    is_shown = np.isclose(embedded, shown.reshape(1, -1)).all(1)
    assert (is_hidden ^ is_shown).all()
    assert is_hidden.mean() == pytest.approx(0.3, abs=0.05)
    np.testing.assert_allclose(to_numpy(model.embed(same)), np.tile(shown.reshape(1, -1), (2000, 1)), rtol=1e-5)


# Layers


def rotated(x, positions, base):
    """Rotary positions as complex numbers: a pair of channels times exp(i position f)."""
    pairs = x[..., ::2] + 1j * x[..., 1::2]
    f = base ** (-np.arange(pairs.shape[-1]) / pairs.shape[-1])
    pairs = pairs * np.exp(1j * positions[..., None, None] * f)
    return np.stack([pairs.real, pairs.imag], axis=-1).reshape(x.shape)


HEADS = np.random.default_rng(3).normal(size=(2, 6, 3, 8)).astype("float32")


def test_rotary_positions_are_turns():
    positions = np.random.default_rng(4).integers(0, 50, (2, 6))
    y = to_numpy(RotaryEmbedding(100.0)(HEADS, ops.convert_to_tensor(positions, "int32")))
    np.testing.assert_allclose(y, rotated(HEADS, positions, 100.0), rtol=1e-4, atol=1e-5)
    y = to_numpy(RotaryEmbedding()(HEADS))
    np.testing.assert_allclose(y, rotated(HEADS, np.arange(6)[None], 1e4), rtol=1e-5, atol=1e-5)


def test_rotary_products_depend_on_the_difference_alone():
    layer, shift = RotaryEmbedding(100.0), ops.convert_to_tensor(np.arange(6)[None] + [[7], [300]], "int32")
    q, k = HEADS, HEADS[::-1, ::-1].copy()
    products = [
        np.einsum("bihd,bjhd->bhij", to_numpy(layer(q, p)), to_numpy(layer(k, p)))
        for p in (ops.convert_to_tensor(np.tile(np.arange(6), (2, 1)), "int32"), shift)
    ]
    np.testing.assert_allclose(*products, atol=1e-3)
    assert np.abs(products[0] - np.einsum("bihd,bjhd->bhij", q, k)).max() > 0.1
    # As a shift of one of them would show.
    moved = np.einsum("bihd,bjhd->bhij", to_numpy(layer(q)), to_numpy(layer(k, shift)))
    assert np.abs(products[0] - moved).max() > 0.1


def test_a_grid_of_one_row_is_a_sequence():
    """In two dimensions the first half of the channels is for the row, which is 0."""
    y = to_numpy(RotaryEmbedding2D(1, 6)(HEADS))
    np.testing.assert_array_equal(y[..., :4], HEADS[..., :4])
    np.testing.assert_allclose(y[..., 4:], to_numpy(RotaryEmbedding()(HEADS[..., 4:])), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("positions", [None, RotaryEmbedding])
def test_a_block_is_causal_by_default(positions, rng):
    block, x = TransformerBlock(2, positions=positions and positions()), rng.normal(size=(2, 6, 8)).astype("float32")
    block(x)
    randomize_weights(block, scale=0.7)
    x = ops.convert_to_tensor(x)
    plain = one_program(block, block)
    masked = one_program(block, lambda x, mask, positions: block(x, attention_mask=mask, token_positions=positions))
    y = to_numpy(plain(x))
    ones, positions = np.ones((2, 6), "int32"), ops.convert_to_tensor(np.tile(np.arange(6), (2, 1)), "int32")
    given = masked(x, segment_mask(ones), positions)
    np.testing.assert_allclose(to_numpy(given), y, rtol=1e-5, atol=1e-5)
    for n in (1, 4):
        np.testing.assert_allclose(to_numpy(plain(x[:, :n])), y[:, :n], rtol=1e-5, atol=1e-5)
    both_ways = to_numpy(masked(x, segment_mask(ones, causal=False), positions))
    assert np.abs(both_ways - y)[:, :-1].max(-1).min() > 1e-3
    np.testing.assert_allclose(both_ways[:, -1], y[:, -1], rtol=1e-5, atol=1e-5)
    cache, extend = block.empty_cache(2, 6), one_program(block, block.extend)
    for i in range(6):
        one, cache = extend(x[:, i : i + 1], cache, ops.convert_to_tensor(i, "int32"))
        np.testing.assert_allclose(to_numpy(one)[:, 0], y[:, i], rtol=1e-5, atol=1e-5)


def test_a_block_reads_positions_by_its_layer_alone(rng):
    x = rng.normal(size=(1, 6, 8)).astype("float32")
    blind, rotary = TransformerBlock(2), TransformerBlock(2, positions=RotaryEmbedding())
    order = [2, 0, 4, 1, 3, 5]
    for block in (blind, rotary):
        block(x)
        randomize_weights(block, scale=2.0)
        last, swapped = (to_numpy(block(x[:, places]))[:, -1] for places in (range(6), order))
        assert np.allclose(last, swapped, atol=1e-5) == (block is blind)


# Samples


@pytest.mark.parametrize("name", OPTIONS)
def test_samples_follow_the_probabilities(name):
    model, table = model_of(name), table_of(name)
    condition = CONDITIONS.get(name, {})
    samples = model.sample(4000, seed=0, batch_size=4000, verbose=0, **condition)
    assert (samples.shape, samples.dtype) == ((4000, 4), np.int32)
    check_frequencies(table, samples)
    log_p = model.log_prob(samples[:81], batch_size=81, verbose=0, **condition)
    np.testing.assert_allclose(log_p, np.log(table[tuple(samples[:81].T)]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", OPTIONS)
def test_noise_is_put_through_the_inverse_distribution(name):
    noise = np.random.default_rng(2).random((40, 4), dtype="float32")
    samples = model_of(name).sample(40, noise=noise, verbose=0, **CONDITIONS.get(name, {}))
    np.testing.assert_array_equal(samples, draws(table_of(name), noise))


def drawn_by_hand(model, noise, condition, null, guidance=1.0, temperature=1.0, top_k=3, top_p=1.0):
    """Guidance, temperature, top_k, then top_p, of the logits of the whole network."""
    codes = np.zeros(noise.shape, "int32")
    for i in range(noise.shape[1]):
        with_it, without = (logits_of(model, codes, c)[:, i].astype("float64") for c in (condition, null))
        for row, logits in enumerate((without + guidance * (with_it - without)) / temperature):
            p = np.exp(logits - logits.max())
            likely = np.argsort(-p)[:top_k]
            before = np.cumsum([0, *p[likely]])[:-1] / p[likely].sum()
            cumulative = np.cumsum(np.where(np.isin([0, 1, 2], likely[before < top_p]), p, 0))
            codes[row, i] = (cumulative <= noise[row, i] * cumulative[-1]).sum()
    return codes


@pytest.mark.parametrize("name", ["labels", "vectors"])
@pytest.mark.parametrize(
    "options",
    [
        {"guidance": 3.0},
        {"guidance": -0.5, "temperature": 0.5},
        {"temperature": 2.0, "top_k": 2},
        {"top_p": 0.6},
        {"guidance": 2.0, "temperature": 1.5, "top_k": 2, "top_p": 0.8},
    ],
)
def test_options_act_on_the_logits(name, options):
    model, noise = model_of(name), np.random.default_rng(2).random((40, 4), dtype="float32")
    condition = LABELS[:40].astype("int32") if name == "labels" else VECTORS[:40]
    null = np.full(40, 2, "int32") if name == "labels" else 0 * VECTORS[:40]
    samples = model.sample(40, condition, noise=noise, verbose=0, **options)
    np.testing.assert_array_equal(samples, drawn_by_hand(model, noise, condition, null, **options))
    assert (samples != model.sample(40, condition, noise=noise, verbose=0)).any()


@pytest.mark.parametrize("name", ["labels", "vectors"])
def test_guidance_of_1_and_0(name):
    model, noise = model_of(name), np.random.default_rng(2).random((40, 4), dtype="float32")
    condition = CONDITIONS[name]
    plain = model.sample(40, noise=noise, verbose=0, **condition)
    np.testing.assert_array_equal(model.sample(40, guidance=1.0, noise=noise, verbose=0, **condition), plain)
    without = model.sample(40, guidance=0.0, noise=noise, batch_size=16, verbose=0, **condition)
    null = np.full(81, 2, "int32") if name == "labels" else np.zeros((81, 3), "float32")
    log_p = to_numpy(model.log_density(ops.convert_to_tensor(CODES), ops.convert_to_tensor(null)))
    np.testing.assert_array_equal(without, draws(np.exp(log_p.astype("float64")).reshape(3, 3, 3, 3), noise))
    assert (without != plain).any()


# From the weights of `randomize_weights` and this noise, on any backend.
RECORDED = {
    "learned": ["1122", "0022", "0020", "1200", "2100"],
    "rotary": ["0122", "0022", "0021", "0201", "1100"],
    "labels": ["1112", "1112", "1111", "1111", "1110"],
    "vectors": ["2222", "0022", "0222", "0212", "2200"],
}


@pytest.mark.parametrize("name", OPTIONS)
def test_recorded_samples(name):
    samples = model_of(name).sample(5, noise=NOISE, verbose=0, **CONDITIONS.get(name, {}))
    assert ["".join(map(str, sample)) for sample in samples] == RECORDED[name]


def test_a_sample_depends_on_seed_and_place_alone():
    model = model_of("labels")
    samples = model.sample(9, LABELS[:9], seed=3, verbose=0)
    for n in (9, 5):
        again = model.sample(n, LABELS[:n], seed=3, batch_size=4, verbose=0)
        np.testing.assert_array_equal(again, samples[:n])
    assert (model.sample(5, LABELS[:5], seed=4, batch_size=4, verbose=0) != samples[:5]).any()


def test_a_loop_is_compiled_once():
    model = transformer("labels")
    for seed, temperature, label, guidance in ((0, 1.0, 0, 2.0), (1, 0.5, 1, 3.0)):
        model.sample(5, label, seed=seed, temperature=temperature, guidance=guidance, verbose=0)
    assert len(model.programs.by_key) == 1
    model.sample(5, 1, seed=0, top_k=2, verbose=0)
    assert len(model.programs.by_key) == 2


def test_a_step_is_a_pass_of_one_token(monkeypatch):
    """The keys and values of the codes before are kept: blocks are only ever asked for one token."""
    model, widths = transformer("rotary"), []
    extend = TransformerBlock.extend
    monkeypatch.setattr(TransformerBlock, "extend", lambda s, x, *a: widths.append(x.shape[1]) or extend(s, x, *a))
    monkeypatch.setattr(TransformerBlock, "call", None)
    model.sample(3, seed=0, verbose=0)
    assert set(widths) == {1}


# Training, files and precision


def test_training_learns_a_rule():
    codes = (np.arange(60)[:, None] + np.arange(4)) % 3
    model = made_alike(lambda: CodeTransformer(3, 4, 8, 1, 2, dropout=0.1, num_classes=3, seed=0))
    model.compile(keras.optimizers.Adam(2e-2))
    history = model.fit(codes, codes[:, 0], epochs=15, batch_size=20, verbose=0).history
    assert history["loss"][-1] < 0.4 * history["loss"][0]
    np.testing.assert_array_equal(model.sample(3, [0, 1, 2], top_k=1, verbose=0), codes[:3])
    log_p = model.log_prob(codes, codes[:, 0], verbose=0)
    logs = model.evaluate(codes, codes[:, 0], verbose=0, return_dict=True)
    assert logs == pytest.approx(
        {"loss": -log_p.mean(), "nll": -log_p.mean(), "bits_per_dim": -log_p.mean() / np.log(16)}, rel=1e-4
    )


@pytest.mark.parametrize("name", OPTIONS)
def test_files_keep_the_model(name):
    condition = CONDITIONS.get(name, {})
    loaded = save_and_load(model_of(name))
    np.testing.assert_allclose(
        loaded.log_prob(CODES, verbose=0, **condition), np.log(table_of(name)).ravel(), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("name", ["rotary", "labels"])
def test_half_precision(name):
    model, condition = transformer(name, dtype="mixed_bfloat16"), CONDITIONS.get(name, {})
    log_p = model.log_prob(CODES, verbose=0, **condition)
    assert log_p.dtype == np.float32
    np.testing.assert_allclose(log_p, np.log(table_of(name)).ravel(), rtol=0.15, atol=0.15)
    samples = model.sample(4, seed=0, verbose=0, **condition)
    assert ((samples >= 0) & (samples < 3)).all()
    model.compile(keras.optimizers.Adam(1e-2))
    y = LABELS if name == "labels" else None
    assert np.isfinite(model.fit(CODES, y, verbose=0).history["loss"]).all()


# Refusals


@pytest.mark.parametrize(
    ("name", "use", "match"),
    [
        ("learned", lambda m: m.log_prob(CODES * 1.0), "`x` must be integers. Received: x=dtype float64"),
        ("learned", lambda m: m.log_prob(CODES + 1), r"`x` must be codes in 0 .. 2. Received: x=values in \[1, 3\]"),
        ("learned", lambda m: m.log_prob(CODES - 1), "`x` must be codes in 0 .. 2"),
        ("learned", lambda m: m.log_prob(CODES[:, :3]), r"`x` must have shape \(n, 4\)"),
        ("learned", lambda m: m.fit(CODES * 1.0), "`x` must be integers"),
        ("learned", lambda m: m.fit(CODES, validation_data=(CODES + 1,)), "`x` must be codes in 0 .. 2"),
        ("learned", lambda m: m.fit(CODES, LABELS), "`y` must be None: the model takes no condition"),
        ("learned", lambda m: m.log_prob(CODES, 1), "`condition` must be None: the model takes no condition"),
        ("learned", lambda m: m.sample(2, 1), "`condition` must be None: the model takes no condition"),
        ("learned", lambda m: m.sample(2, guidance=2.0), "`guidance` must be None for a model that was not trained"),
        ("labels", lambda m: m.sample(2, 1, guidance="high"), "`guidance` must be a finite number"),
        ("labels", lambda m: m.fit(CODES), "`y` must be given: the model takes a condition"),
        ("labels", lambda m: m.fit(CODES, LABELS[:5]), r"`y` must .*shape \(81,\)"),
        ("labels", lambda m: m.fit(CODES, LABELS + 1), "`y` must be labels in 0 .. 1"),
        ("labels", lambda m: m.log_prob(CODES), "`condition` must be given: the model takes a condition"),
        ("labels", lambda m: m.sample(2), "`condition` must be given"),
        ("labels", lambda m: m.sample(2, 2), "`condition` must be labels in 0 .. 1"),
        ("labels", lambda m: m.sample(2, -1), "`condition` must be labels in 0 .. 1"),
        ("labels", lambda m: m.sample(2, 0.5), "`condition` must be integer labels"),
        ("labels", lambda m: m.sample(2, [0, 1, 1]), r"`condition` must .*shape \(2,\)"),
        ("vectors", lambda m: m.sample(2, VECTORS[:3]), r"`condition` must have shape \(2, 3\)"),
        ("vectors", lambda m: m.sample(2, VECTORS[0, :2]), r"`condition` must have shape \(2, 3\)"),
        ("vectors", lambda m: m.sample(2, VECTORS[0] * np.nan), "`condition` must be finite"),
        ("learned", lambda m: m.sample(2, temperature=0), "`temperature` must be > 0"),
        ("learned", lambda m: m.sample(2, top_k=4), "`top_k` must be at most the number of codes, 3"),
        ("learned", lambda m: m.sample(2, top_p=0), r"`top_p` must be in \(0, 1\]"),
        ("learned", lambda m: m.sample(2, noise=np.zeros((2, 3))), r"`noise` must have shape \(2, 4\)"),
        ("learned", lambda m: m.sample(2, noise=np.ones((2, 4))), r"`noise` must be in \[0, 1\)"),
    ],
)
def test_bad_input(name, use, match):
    with pytest.raises(ValueError, match=match):
        use(model_of(name))


@pytest.mark.parametrize(
    ("name", "batch", "match"),
    [
        ("learned", (CODES * 1.0,), "`x` must be integers"),
        ("learned", (CODES[:, :3],), r"`x` must have shape \(n, 4\)"),
        ("learned", (CODES, LABELS), "`y` must be None"),
        ("labels", (CODES,), "`y` must be given: the model takes a condition"),
        ("vectors", (CODES, VECTORS[:, :2]), "`y` must have shape"),
    ],
)
def test_bad_batches_of_a_dataset_are_refused(name, batch, match):
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return batch

    model = transformer(name)
    model.compile("adam")
    with pytest.raises(ValueError, match=match):
        model.fit(Batches(), verbose=0)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: CodeTransformer(1, 4), "`num_codes` must be an integer >= 2"),
        (lambda: CodeTransformer(3, 0), "`max_length` must be an integer >= 1"),
        (lambda: CodeTransformer(3, 4, dim=0), "`dim` must be an integer >= 1"),
        (lambda: CodeTransformer(3, 4, depth=0), "`depth` must be an integer >= 1"),
        (lambda: CodeTransformer(3, 4, 8, 1, num_heads=3), "`num_heads` must divide dim, 8. Received: num_heads=3"),
        (lambda: CodeTransformer(3, 4, 6, 1, 2, "rotary"), "`dim` must give heads of even size for rotary positions"),
        (lambda: CodeTransformer(3, 4, 8, 1, 2, "sines"), "`positions` must be one of 'learned', 'rotary'"),
        (lambda: CodeTransformer(3, 4, 8, dropout=1.0), r"`dropout` must be in \[0, 1\)"),
        (lambda: CodeTransformer(3, 4, num_classes=0), "`num_classes` must be an integer >= 1"),
        (lambda: CodeTransformer(3, 4, condition_dim=0), "`condition_dim` must be an integer >= 1"),
        (lambda: CodeTransformer(3, 4, num_classes=2, condition_dim=3), "`condition_dim` must be None where num_cl"),
        (lambda: CodeTransformer(3, 4, condition_dropout=0.1), "`condition_dropout` must be 0 for a model without"),
        (lambda: CodeTransformer(3, 4, num_classes=2, condition_dropout=1), r"`condition_dropout` must be in \[0, 1"),
        (lambda: CodeTransformer(3, 4, 8, 1).sample(1), "`model` must be built"),
        (
            lambda: CodeTransformer(3, 3, 8, 1).log_prob(CODES),
            "`x` must have at most max_length=3 codes. Received: x=4",
        ),
        (lambda: CodeTransformer(3, 3, 8, 1).fit(CODES), "`x` must have at most max_length=3 codes"),
        (lambda: TransformerBlock(0), "`num_heads` must be an integer >= 1"),
        (lambda: TransformerBlock(3)(HEADS[:, :, 0]), "`num_heads` must divide 8 channels"),
        (lambda: TransformerBlock(expansion=0), "`expansion` must be an integer >= 1"),
        (lambda: TransformerBlock(positions="rotary"), "`positions` must be a layer or None"),
        (lambda: TransformerBlock(dropout=1), r"`dropout` must be in \[0, 1\)"),
        (lambda: TransformerBlock(2)(HEADS), r"`x` must have shape \(batch, tokens, channels\)"),
        (lambda: RotaryEmbedding(1.0), "`base` must be > 1"),
        (lambda: RotaryEmbedding()(HEADS[..., :3]), r"`x` must have shape \(batch, tokens, heads, an even number\)"),
        (lambda: RotaryEmbedding()(HEADS[0]), "`x` must have shape"),
    ],
)
def test_bad_construction(make, match):
    with pytest.raises(ValueError, match=match):
        make()
