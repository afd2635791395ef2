import functools

import keras
import numpy as np
import pytest
from enumeration import all_codes, check_frequencies, draws, probabilities
from keras import ops

from keras_gen.core.fixtures import made_alike, randomize_weights, save_and_load, to_numpy
from keras_gen.layers import GatedPixelBlock, MaskedConv2D
from keras_gen.models import PixelCNN

# name -> (shape of the data, arguments); 3 codes in 4 places
OPTIONS = {
    "map": ((2, 2), {}),
    "channel": ((2, 2, 1), {"blocks": 3}),
    "channels": ((1, 2, 2), {}),
    "labels": ((2, 1, 2), {"num_classes": 2, "condition_dropout": 0.3}),
    "vectors": ((2, 2), {"condition_dim": 3, "condition_dropout": 0.3}),
}
VECTOR = np.array([0.5, -1, 2], "float32")
CONDITIONS = {"labels": {"condition": 1}, "vectors": {"condition": VECTOR}}
NOISE = np.random.default_rng(1).random((5, 4), dtype="float32")


def pixel_cnn(name, **options):
    """A model with random weights, far from the uniform distribution."""
    shape, own = OPTIONS[name]
    return randomized(PixelCNN(3, **{"filters": 4, "blocks": 2, "seed": 0, **own, **options}), shape)


def randomized(model, shape):
    model.build((None, *shape))
    randomize_weights(model, scale=1.0)
    return model


@functools.cache
def model_of(name):
    return pixel_cnn(name)


@functools.cache
def table_of(name):
    return probabilities(model_of(name), **CONDITIONS.get(name, {}))


def codes_of(name):
    return all_codes(3, OPTIONS[name][0])


def logits_of(model, x):
    """Logits of all places, flat: (batch, places, codes)."""
    logits = to_numpy(model.logits_of(model.features(ops.convert_to_tensor(x))))
    return logits.reshape(len(x), model.length, model.num_codes)


# Densities


@pytest.mark.parametrize("name", OPTIONS)
def test_probabilities_sum_to_one(name):
    assert table_of(name).sum() == pytest.approx(1, abs=1e-5)
    assert table_of(name).max() > 0.03  # of 81


def test_log_prob_is_the_chain_rule():
    for name in ("map", "channels"):
        model, x = model_of(name), codes_of(name)
        logits = logits_of(model, x).astype("float64")
        log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        expected = np.take_along_axis(log_p, x.reshape(81, 4, 1), axis=-1).sum((1, 2))
        log_p = model.log_prob(x, batch_size=81, verbose=0)
        assert log_p.dtype == np.float32
        np.testing.assert_allclose(log_p, expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(model.bits_per_dim(x), -expected / np.log(16), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("shape", "blocks"), [((3, 4), 4), ((3, 4, 2), 4), ((4, 3, 1), 3), ((2, 5), 5)])
def test_a_logit_depends_on_all_places_before_and_no_other(shape, blocks, rng):
    """No blind spot: pixels on the upper right are seen, too."""
    model = randomized(PixelCNN(3, 8, blocks, seed=0), shape)
    n = model.length
    x = np.repeat(rng.integers(0, 3, (1, n)), n + 1, axis=0)
    x[np.arange(n), np.arange(n)] += 1  # row j has another code at place j, the last row has none
    # One by one: in a batch, equal rows may be rounded differently.
    logits = np.concatenate([logits_of(model, row.reshape(1, *shape)) for row in (x % 3).astype("int32")])
    moved = (logits[:n] != logits[n:]).any(-1)
    np.testing.assert_array_equal(moved, np.triu(np.ones((n, n), bool), 1))


def test_conditions_matter():
    for name, others in (("labels", [0, 1]), ("vectors", [VECTOR, VECTOR + 1])):
        model, x = model_of(name), codes_of(name)
        log_p = [model.log_prob(x, other, batch_size=81, verbose=0) for other in others]
        assert np.abs(log_p[0] - log_p[1]).max() > 0.1
        mixed = model.log_prob(x, np.array(others)[np.arange(81) % 2], batch_size=81, verbose=0)
        np.testing.assert_allclose(mixed, np.stack(log_p)[np.arange(81) % 2, np.arange(81)], rtol=1e-5, atol=1e-5)


# Layers


def responses(function, x):
    """Returns which outputs (axis 1) move with which inputs (axis 0), of one image, both flat."""
    n, moved = x.size, False
    for bump in (1.0, -0.7):  # one of them may be lost in rounding
        bumped = (x.reshape(1, n) + np.concatenate([bump * np.eye(n), np.zeros((1, n))])).astype("float32")
        y = to_numpy(function(ops.convert_to_tensor(bumped.reshape(n + 1, *x.shape)))).reshape(n + 1, -1)
        moved = moved | (y[:n] != y[n:])
    return moved


def reach(shape, outputs, sees):
    """`sees(row, column, part of the output, row, column, part of the input)` of all places, as `responses` has it."""
    table = np.zeros((*shape, *shape[:2], outputs), bool)
    for r2, c2, i, r, c, o in np.ndindex(*table.shape):
        table[r2, c2, i, r, c, o] = sees(r, c, 2 * o // outputs, r2, c2, 2 * i // shape[2])
    return table.reshape(np.prod(shape), -1)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("kernel_size", [3, (1, 3), (3, 5), 1])
def test_a_masked_convolution_sees_what_comes_before(kernel_size, strict, rng):
    """Two groups; in each kernel, what is above or on the left, and groups up to (below, if strict) the own."""
    layer = MaskedConv2D(6, kernel_size, strict, groups=2)
    layer.build((None, 4, 5, 4))
    randomize_weights(layer)
    high, wide = (size // 2 for size in layer.kernel_size)

    def sees(r, c, group, r2, c2, group2):
        inside = abs(r2 - r) <= high and abs(c2 - c) <= wide
        own = group2 < group or (group2 == group and not strict)
        return inside and (r2 < r or (r2 == r and (c2 < c or (c2 == c and own))))

    moved = responses(layer, np.zeros((4, 5, 4), "float32"))
    np.testing.assert_array_equal(moved, reach((4, 5, 4), 6, sees))


def test_a_masked_convolution_is_a_convolution(rng):
    x = rng.normal(size=(2, 4, 5, 3)).astype("float32")
    layer = MaskedConv2D(2, 3)
    layer(x)
    randomize_weights(layer, scale=1.0)
    kernel, padded = to_numpy(layer.kernel).copy(), np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    kernel[2], kernel[1, 2] = 0, 0
    expected = to_numpy(layer.bias) + np.zeros((2, 4, 5, 2))
    for i, j in np.ndindex(3, 3):
        expected = expected + padded[:, i : i + 4, j : j + 5] @ kernel[i, j]
    np.testing.assert_allclose(to_numpy(layer(x)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("kernel_size", [3, 5])
def test_a_gated_block_sees_rows_above_and_pixels_on_the_left(kernel_size, strict, rng):
    """Two groups, each of two channels."""
    block, half = GatedPixelBlock(4, kernel_size, strict, groups=2), kernel_size // 2
    vertical, horizontal = rng.normal(size=(2, 4, 5, 4)).astype("float32")
    block([vertical[None], horizontal[None]])
    randomize_weights(block, scale=0.6)
    lowest = 1 if strict else 0

    def call(out, other, which):
        def function(x):
            fixed = ops.convert_to_tensor(np.repeat(other[None], x.shape[0], axis=0))
            return block([x, fixed] if which == 0 else [fixed, x])[out]

        return function

    def above(r, c, group, r2, c2, group2):
        return lowest <= r - r2 <= half + lowest and abs(c2 - c) <= half

    def left(r, c, group, r2, c2, group2):
        own = group2 < group or (group2 == group and not strict)
        return r2 == r and (0 < c - c2 <= half or (c2 == c and own))

    size = (4, 5, 4)
    for out, moving in ((0, above), (1, above)):
        moved = responses(call(out, horizontal, 0), vertical)
        np.testing.assert_array_equal(moved, reach(size, 4, moving))
    np.testing.assert_array_equal(responses(call(1, vertical, 1), horizontal), reach(size, 4, left))
    assert not responses(call(0, vertical, 1), horizontal).any()


@pytest.mark.parametrize("strict", [False, True])
def test_a_gated_block_is_its_equations(strict, rng):
    """Of an image of one pixel, or two, written out."""
    vertical, horizontal = rng.normal(size=(2, 3, 1, 2, 4)).astype("float32")
    embedding = rng.normal(size=(3, 5)).astype("float32")
    block = GatedPixelBlock(4, strict=strict)
    block([vertical, horizontal, embedding])
    randomize_weights(block, scale=1.0)
    above, left = (to_numpy(out) for out in block([vertical, horizontal, embedding]))
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    w = {weight.path.partition("/")[2] or weight.path: to_numpy(weight) for weight in block.weights}
    w = {path.split("/")[-2] + "/" + path.split("/")[-1]: value for path, value in w.items()}
    e = embedding @ w["condition/kernel"] + w["condition/bias"]

    def gate(x):
        return np.tanh(x[..., ::2]) * sigmoid(x[..., 1::2])

    def at(x, column):
        return x[:, 0, column] if 0 <= column < 2 else np.zeros((3, 4))

    for column in range(2):
        # Row 1 of 2 of the kernel is the own row, which a strict block does not see.
        up = w["from_above/bias"] + sum(
            0 if strict else at(vertical, column + j - 1) @ w["from_above/kernel"][1, j] for j in range(3)
        )
        seen = range(1 if strict else 2)
        side = w["from_left/bias"] + sum(at(horizontal, column + j - 1) @ w["from_left/kernel"][0, j] for j in seen)
        side = side + up @ w["down/kernel"][0, 0] + w["down/bias"] + e[:, 8:]
        out = gate(side) @ w["output/kernel"][0, 0] + w["output/bias"]
        np.testing.assert_allclose(above[:, 0, column], gate(up + e[:, :8]), rtol=1e-4, atol=1e-5)
        expected = out if strict else out + at(horizontal, column)
        np.testing.assert_allclose(left[:, 0, column], expected, rtol=1e-4, atol=1e-5)


# Samples


@pytest.mark.parametrize("name", OPTIONS)
def test_samples_follow_the_probabilities(name):
    model, table, condition = model_of(name), table_of(name), CONDITIONS.get(name, {})
    samples = model.sample(4000, seed=0, batch_size=4000, verbose=0, **condition)
    assert (samples.shape, samples.dtype) == ((4000, *OPTIONS[name][0]), np.int32)
    check_frequencies(table, samples)
    log_p = model.log_prob(samples[:81], batch_size=81, verbose=0, **condition)
    np.testing.assert_allclose(log_p, np.log(table[tuple(samples[:81].reshape(81, 4).T)]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", OPTIONS)
def test_noise_is_put_through_the_inverse_distribution(name):
    noise = np.random.default_rng(2).random((40, 4), dtype="float32")
    samples = model_of(name).sample(
        40, noise=noise.reshape(40, *OPTIONS[name][0]), verbose=0, **CONDITIONS.get(name, {})
    )
    np.testing.assert_array_equal(samples.reshape(40, 4), draws(table_of(name), noise))


# From the weights of `randomize_weights` and this noise, on any backend.
RECORDED = {
    "map": ["1112", "0012", "0011", "0101", "1100"],
    "channel": ["0022", "0022", "0020", "0200", "0000"],
    "channels": ["0021", "0020", "0020", "0000", "1000"],
    "labels": ["1021", "0021", "0020", "0100", "2000"],
    "vectors": ["2222", "0122", "2222", "2222", "2200"],
}


@pytest.mark.parametrize("name", OPTIONS)
def test_recorded_samples(name):
    noise = NOISE.reshape(5, *OPTIONS[name][0])
    samples = model_of(name).sample(5, noise=noise, verbose=0, **CONDITIONS.get(name, {}))
    assert ["".join(map(str, sample.ravel())) for sample in samples] == RECORDED[name]


@pytest.mark.parametrize("name", ["labels", "vectors"])
def test_guidance_of_1_and_0(name):
    model, condition = model_of(name), CONDITIONS[name]
    noise = np.random.default_rng(2).random((40, *OPTIONS[name][0]), dtype="float32")
    plain = model.sample(40, noise=noise, verbose=0, **condition)
    np.testing.assert_array_equal(model.sample(40, guidance=1.0, noise=noise, verbose=0, **condition), plain)
    without = model.sample(40, guidance=0.0, noise=noise, verbose=0, **condition)
    null = np.full(81, 2, "int32") if name == "labels" else np.zeros((81, 3), "float32")
    log_p = to_numpy(model.log_density(ops.convert_to_tensor(codes_of(name)), ops.convert_to_tensor(null)))
    expected = draws(np.exp(log_p.astype("float64")).reshape(3, 3, 3, 3), noise.reshape(40, 4))
    np.testing.assert_array_equal(without.reshape(40, 4), expected)
    assert (without != plain).any()


def test_greedy_samples():
    model, table = model_of("channels"), table_of("channels")
    expected, left = [], table
    for _ in range(4):
        expected.append(left.reshape(3, -1).sum(1).argmax())
        left = left[expected[-1]]
    for options in ({"top_k": 1}, {"top_p": 0.01}, {"temperature": 1e-4}):
        samples = model.sample(4, seed=0, verbose=0, **options)
        np.testing.assert_array_equal(samples.reshape(4, 4), [expected] * 4)


def test_a_sample_depends_on_seed_and_place_alone():
    model, labels = model_of("labels"), np.arange(9) % 2
    samples = model.sample(9, labels, seed=3, verbose=0)
    for n in (9, 5):
        again = model.sample(n, labels[:n], seed=3, batch_size=4, verbose=0)
        np.testing.assert_array_equal(again, samples[:n])
    assert (model.sample(5, labels[:5], seed=4, batch_size=4, verbose=0) != samples[:5]).any()


def test_a_loop_is_compiled_once():
    model = pixel_cnn("labels")
    for seed, temperature, label in ((0, 1.0, 0), (1, 0.5, 1)):
        model.sample(5, label, seed=seed, temperature=temperature, verbose=0)
    assert len(model.programs.by_key) == 1


# Training, files and precision


def test_training_learns_a_rule(rng):
    """The second number is the first, the second row the first one: only the first row is free."""
    x = np.repeat(np.repeat(rng.integers(0, 3, (64, 1, 2, 1)), 2, axis=1), 2, axis=3)
    model = made_alike(lambda: PixelCNN(3, 8, 2, seed=0))
    model.compile(keras.optimizers.Adam(2e-2))
    history = model.fit(x, batch_size=16, epochs=25, verbose=0).history
    assert history["loss"][-1] < 3.5 < history["loss"][0]  # 2 log 3 = 2.2 of 8 log 3 = 8.8
    log_p = model.log_prob(x, verbose=0)
    logs = model.evaluate(x, verbose=0, return_dict=True)
    bits = -log_p.mean() / np.log(2) / 8
    assert logs == pytest.approx({"loss": -log_p.mean(), "nll": -log_p.mean(), "bits_per_dim": bits}, rel=1e-4)


@pytest.mark.parametrize("name", ["channels", "labels", "vectors"])
def test_files_keep_the_model(name):
    loaded = save_and_load(model_of(name))
    log_p = loaded.log_prob(codes_of(name), verbose=0, **CONDITIONS.get(name, {}))
    np.testing.assert_allclose(log_p, np.log(table_of(name)).ravel(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["channels", "labels"])
def test_half_precision(name):
    model, condition = pixel_cnn(name, dtype="mixed_bfloat16"), CONDITIONS.get(name, {})
    log_p = model.log_prob(codes_of(name), verbose=0, **condition)
    assert log_p.dtype == np.float32
    np.testing.assert_allclose(log_p, np.log(table_of(name)).ravel(), rtol=0.15, atol=0.15)
    samples = model.sample(4, seed=0, verbose=0, **condition)
    assert ((samples >= 0) & (samples < 3)).all()
    model.compile(keras.optimizers.Adam(1e-2))
    y = np.arange(81) % 2 if name == "labels" else None
    assert np.isfinite(model.fit(codes_of(name), y, verbose=0).history["loss"]).all()


# Refusals


MAP, LABELED = codes_of("map"), codes_of("labels")
LABELS = np.arange(81) % 2


@pytest.mark.parametrize(
    ("name", "use", "match"),
    [
        ("map", lambda m: m.log_prob(MAP * 1.0), "`x` must be integers. Received: x=dtype float64"),
        ("map", lambda m: m.log_prob(MAP + 1), r"`x` must be codes in 0 .. 2. Received: x=values in \[1, 3\]"),
        ("map", lambda m: m.log_prob(MAP - 1), "`x` must be codes in 0 .. 2"),
        ("map", lambda m: m.log_prob(MAP[..., None]), r"`x` must have shape \(n, 2, 2\)"),
        ("map", lambda m: m.fit(MAP * 1.0), "`x` must be integers"),
        ("map", lambda m: m.fit(MAP, LABELS), "`y` must be None: the model takes no condition"),
        ("map", lambda m: m.log_prob(MAP, 1), "`condition` must be None: the model takes no condition"),
        ("map", lambda m: m.sample(2, guidance=2.0), "`guidance` must be None for a model that was not trained"),
        ("map", lambda m: m.sample(2, temperature=-1), "`temperature` must be > 0"),
        ("map", lambda m: m.sample(2, top_k=4), "`top_k` must be at most the number of codes, 3"),
        ("map", lambda m: m.sample(2, top_p=0.0), r"`top_p` must be in \(0, 1\]"),
        ("map", lambda m: m.sample(2, noise=np.zeros((2, 4))), r"`noise` must have shape \(2, 2, 2\)"),
        ("map", lambda m: m.sample(2, noise=np.ones((2, 2, 2))), r"`noise` must be in \[0, 1\)"),
        ("labels", lambda m: m.fit(LABELED), "`y` must be given: the model takes a condition"),
        ("labels", lambda m: m.fit(LABELED, LABELS + 1), "`y` must be labels in 0 .. 1"),
        ("labels", lambda m: m.sample(2), "`condition` must be given"),
        ("labels", lambda m: m.sample(2, 2), "`condition` must be labels in 0 .. 1"),
        ("vectors", lambda m: m.sample(2, VECTOR[:2]), r"`condition` must have shape \(2, 3\)"),
    ],
)
def test_bad_input(name, use, match):
    with pytest.raises(ValueError, match=match):
        use(model_of(name))


X = np.zeros((2, 4, 4, 6), "float32")


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: PixelCNN(1), "`num_codes` must be an integer >= 2"),
        (lambda: PixelCNN(3, filters=0), "`filters` must be an integer >= 1"),
        (lambda: PixelCNN(3, blocks=1), "`blocks` must be an integer >= 2"),
        (lambda: PixelCNN(3, kernel_size=4), "`kernel_size` must be odd. Received: kernel_size=4"),
        (lambda: PixelCNN(3, kernel_size=1), "`kernel_size` must be an integer >= 3"),
        (
            lambda: PixelCNN(3, num_classes=2, condition_dim=2),
            "`condition_dim` must be None where num_classes is given",
        ),
        (lambda: PixelCNN(3, condition_dropout=0.5), "`condition_dropout` must be 0 for a model without a condition"),
        (lambda: PixelCNN(3, 4).log_prob(MAP.reshape(81, 4)), r"`x` must have shape \(n, height, width\) or"),
        (lambda: PixelCNN(3, 4).sample(1), "`model` must be built"),
        (lambda: MaskedConv2D(0), "`filters` must be an integer >= 1"),
        (lambda: MaskedConv2D(4, 2), "`kernel_size` must be odd, or two odd integers. Received: kernel_size=2"),
        (lambda: MaskedConv2D(4, (3, 2)), "`kernel_size` must be odd"),
        (lambda: MaskedConv2D(4, (3, 3, 3)), "`kernel_size` must be odd"),
        (lambda: MaskedConv2D(4, groups=3), "`groups` must divide the number of filters, 4"),
        (lambda: MaskedConv2D(4, groups=0), "`groups` must be an integer >= 1"),
        (lambda: MaskedConv2D(8, groups=4)(X), "`groups` must divide 6 channels"),
        (lambda: MaskedConv2D(4)(X[0]), r"`x` must have shape \(batch, height, width, channels\)"),
        (lambda: GatedPixelBlock(0), "`filters` must be an integer >= 1"),
        (lambda: GatedPixelBlock(4, 4), "`kernel_size` must be odd"),
        (lambda: GatedPixelBlock(4, 1), "`kernel_size` must be an integer >= 3"),
        (lambda: GatedPixelBlock(4, groups=3), "`groups` must divide"),
        (lambda: GatedPixelBlock(4)([X]), "`inputs` must be vertical, horizontal and, optionally"),
        (lambda: GatedPixelBlock(6)([X[0], X[0]]), r"`inputs` must have shape \(batch, height, width, channels\)"),
    ],
)
def test_bad_construction(make, match):
    with pytest.raises(ValueError, match=match):
        make()
