import functools

import keras
import numpy as np
import pytest
from enumeration import all_codes, check_frequencies, draws, probabilities
from keras import ops
from programs import one_program
from scipy.special import expit, logsumexp

from keras_gen.autoregressive.binary import BLOCK
from keras_gen.core.calculus.gradient import double_precision
from keras_gen.core.compiled import compiled
from keras_gen.core.fixtures import made_alike, randomize_weights, save_and_load, to_numpy
from keras_gen.layers import MaskedDense
from keras_gen.models import FVSBN, MADE, NADE

VECTORS = all_codes(2, (10,))
ORDER = [3, 0, 7, 9, 1, 5, 2, 8, 6, 4]
NATURAL = list(range(10))
ONE_ORDERING = {
    "fvsbn": (lambda **options: FVSBN(**options), NATURAL),
    "fvsbn_ordering": (lambda **options: FVSBN(ORDER, **options), ORDER),
    "nade": (lambda **options: NADE(7, **options), NATURAL),
    "nade_ordering": (lambda **options: NADE(7, "tanh", ORDER, **options), ORDER),
    "made": (lambda **options: MADE([9], **options), NATURAL),
    "made_ordering": (lambda **options: MADE([9, 12], 1, [ORDER], "tanh", **options), ORDER),
}
MIXTURES = {
    "made_masks": lambda **options: MADE([9], 3, **options),
    "made_random": lambda **options: MADE([9, 12], 3, "random", "tanh", **options),
    "made_given": lambda **options: MADE([9], 3, [ORDER, NATURAL, ORDER[::-1]], **options),
}
MAKERS = {**{name: make for name, (make, _) in ONE_ORDERING.items()}, **MIXTURES}


def built(model, *shape):
    """A model with random weights, far from the uniform distribution."""
    if not model.built:
        model.build((None, *(shape or (10,))))
    randomize_weights(model, scale=2.0)
    return model


@functools.cache
def model_of(name):
    return built(MAKERS[name](seed=0))


@functools.cache
def table_of(name):
    return probabilities(model_of(name))


def weights_of(layer, *names):
    return [to_numpy(getattr(layer, name)).astype("float64") for name in names]


def bernoulli(x, logits):
    return (x * logits - np.logaddexp(0, logits)).sum(1)


def assert_log_prob(model, expected, x=VECTORS):
    log_p = model.log_prob(x, batch_size=len(x), verbose=0)
    assert (log_p.shape, log_p.dtype) == ((len(x),), np.float32)
    np.testing.assert_allclose(log_p, expected, rtol=1e-5, atol=1e-4)


# Densities


@pytest.mark.parametrize("name", MAKERS)
def test_probabilities_sum_to_one(name):
    table = table_of(name)
    assert table.sum() == pytest.approx(1, abs=1e-5)
    assert table.max() > 0.02  # of 1,024


@pytest.mark.parametrize("name", ["fvsbn", "fvsbn_ordering"])
def test_fvsbn_is_logistic_regressions(name):
    model, (_, order) = model_of(name), ONE_ORDERING[name]
    (kernel, bias), x = weights_of(model, "kernel", "bias"), VECTORS[:, order]
    logits = np.stack([bias[i] + x[:, :i] @ kernel[:i, i] for i in range(10)], axis=1)
    assert_log_prob(model, bernoulli(x, logits))


@pytest.mark.parametrize(
    ("length", "activation"), [(10, "sigmoid"), (BLOCK, "sigmoid"), (2 * BLOCK, "tanh"), (2 * BLOCK + 5, "sigmoid")]
)
def test_nade_is_the_recurrence(length, activation, rng):
    model = built(NADE(7, activation, rng.permutation(length)), length)
    x = rng.integers(0, 2, (6, length))
    w, c, v, b = weights_of(model, "kernel", "hidden_bias", "output_kernel", "bias")
    expected = np.empty(6)
    for k, row in enumerate(x[:, model.ordering]):
        a, logits = c.copy(), np.empty(length)
        for i in range(length):
            logits[i] = b[i] + v[i] @ {"sigmoid": expit, "tanh": np.tanh}[activation](a)
            a += w[i] * row[i]
        expected[k] = bernoulli(row[None], logits[None])[0]
    assert_log_prob(model, expected, x)


def made_logits(model, x, mask):
    """MADE's equations, with the masks written out."""
    relu = keras.activations.serialize(model.activation) == "relu"
    ranks = np.empty(10, int)
    ranks[to_numpy(model.orders)[mask]] = np.arange(1, 11)
    h, before = x, ranks
    for dense, table in zip(model.hidden, model.degrees, strict=True):
        (kernel, bias), degrees = weights_of(dense, "kernel", "bias"), to_numpy(table)[mask]
        h = h @ (kernel * (degrees[None] >= before[:, None])) + bias
        h, before = np.maximum(h, 0) if relu else np.tanh(h), degrees
    (v, c), (a, d) = (weights_of(dense, "kernel", "bias") for dense in (model.output_dense, model.direct))
    return h @ (v * (ranks[None] > before[:, None])) + c + x @ (a * (ranks[None] > ranks[:, None])) + d


@pytest.mark.parametrize("name", ["made", "made_ordering"])
def test_made_is_a_masked_network(name):
    assert_log_prob(model_of(name), bernoulli(VECTORS, made_logits(model_of(name), VECTORS, 0)))


@pytest.mark.parametrize("name", MIXTURES)
def test_several_masks_are_a_mixture(name):
    model = model_of(name)
    logits = np.stack([made_logits(model, VECTORS, mask) for mask in range(3)])
    each = np.stack([bernoulli(VECTORS, one) for one in logits])
    np.testing.assert_allclose(np.exp(each).sum(1), 1, rtol=1e-9)
    assert np.abs(each[0] - each[1:]).max(1).min() > 0.1
    # The mean of probabilities, not of logits.
    assert_log_prob(model, logsumexp(each, axis=0) - np.log(3))
    mean_logits = bernoulli(VECTORS, logits.mean(0))
    assert np.abs(model.log_prob(VECTORS, batch_size=1024, verbose=0) - mean_logits).max() > 0.1
    if name != "made_masks":  # with several orderings that would not even be a distribution
        assert abs(np.exp(mean_logits).sum() - 1) > 2e-3


def test_densities_stay_in_single_precision_where_jax_has_64_bits():
    model = model_of("made_masks")
    with double_precision():
        log_p = one_program(model, model.log_density)(ops.convert_to_tensor(VECTORS[:4], "int32"))
    assert keras.backend.standardize_dtype(log_p.dtype) == "float32"


def test_masks_and_orderings_differ():
    random, given = model_of("made_random"), model_of("made_given")
    orders = to_numpy(random.orders)
    np.testing.assert_array_equal(np.sort(orders, axis=1), np.tile(np.arange(10), (3, 1)))
    assert len(np.unique(orders, axis=0)) == 3
    np.testing.assert_array_equal(to_numpy(given.orders), [ORDER, NATURAL, ORDER[::-1]])
    for table, units in zip(random.degrees, (9, 12), strict=True):
        degrees = to_numpy(table)
        assert degrees.shape == (3, units)
        assert len(np.unique(degrees, axis=0)) == 3
        assert (degrees.min(), degrees.max()) == (1, 9)  # a unit of degree 0 or 10 would be of no use


def test_training_takes_one_mask_at_random():
    model = model_of("made_given")
    x = VECTORS[::50]
    each = [-bernoulli(x, made_logits(model, x, mask)).mean() for mask in range(3)]
    assert np.abs(np.subtract.outer(each, each)[np.triu_indices(3, 1)]).min() > 1e-2
    losses = [float(to_numpy(model.compute_loss(ops.convert_to_tensor(x), training=True))) for _ in range(20)]
    nearest = np.abs(np.subtract.outer(losses, each))
    np.testing.assert_allclose(nearest.min(1), 0, atol=1e-4)
    assert set(nearest.argmin(1)) == {0, 1, 2}


@pytest.mark.parametrize("kind", ["fvsbn", "nade"])
def test_an_ordering_permutes_the_data(kind):
    make = {"fvsbn": FVSBN, "nade": functools.partial(NADE, 7)}[kind]
    natural, ordered = built(make()), built(make(ordering=ORDER))
    expected = natural.log_prob(VECTORS[:, ORDER], verbose=0)
    np.testing.assert_allclose(ordered.log_prob(VECTORS, verbose=0), expected, rtol=1e-5)
    assert np.abs(natural.log_prob(VECTORS, verbose=0) - expected).max() > 0.1


def test_an_ordering_of_made_permutes_data_and_weights():
    natural, ordered = built(MADE([9])), built(MADE([9], orderings=[ORDER]))
    first, last, direct = ordered.hidden[0].kernel, ordered.output_dense, ordered.direct
    natural.hidden[0].kernel.assign(to_numpy(first)[ORDER])
    for layer, twin in ((last, natural.output_dense), (direct, natural.direct)):
        twin.bias.assign(to_numpy(layer.bias)[ORDER])
        kernel = to_numpy(layer.kernel)[:, ORDER]
        twin.kernel.assign(kernel[ORDER] if layer is direct else kernel)
    expected = natural.log_prob(VECTORS[:, ORDER], verbose=0)
    np.testing.assert_allclose(ordered.log_prob(VECTORS, verbose=0), expected, rtol=1e-5, atol=1e-5)
    assert np.abs(natural.log_prob(VECTORS, verbose=0) - expected).max() > 0.1


@pytest.mark.parametrize("name", MAKERS)
def test_a_logit_depends_on_all_numbers_before_and_no_other(name, rng):
    model = model_of(name)
    x = ops.convert_to_tensor(np.repeat(rng.normal(size=(1, 10)), 10, axis=0).astype("float32"))
    directions = ops.convert_to_tensor(np.eye(10, dtype="float32"))
    for mask in range(getattr(model, "num_masks", 1)):

        def logits(x, mask=mask):
            return model.masked_logits(x, mask) if isinstance(model, MADE) else model.logits(x)

        jacobian = to_numpy(ops.jvp(logits, (x,), (directions,))[1])  # (input, logit)
        if isinstance(model, MADE):
            order = to_numpy(model.orders)[mask]
            jacobian = jacobian[np.ix_(order, order)]
        np.testing.assert_array_equal(np.tril(jacobian), 0)
        assert (jacobian[np.triu_indices(10, 1)] != 0).all()


@pytest.mark.parametrize("strict", [False, True])
def test_degrees_can_be_given_to_a_masked_dense_layer(strict, rng):
    x = ops.convert_to_tensor(rng.normal(size=(2, 3)).astype("float32"))
    layer, other = MaskedDense([1, 2, 3], [1, 2, 3, 1], strict), MaskedDense([2, 3, 1], [3, 1, 2, 2], strict)
    own = to_numpy(layer(x))
    other(x)
    other.set_weights(layer.get_weights())
    degrees = tuple(ops.convert_to_tensor(d, "int32") for d in (other.input_degrees, other.output_degrees))
    run = compiled(layer, lambda x, *degrees: layer(x, degrees=degrees))
    for y in (layer(x, degrees=degrees), run(x, *degrees)):
        np.testing.assert_allclose(to_numpy(y), to_numpy(other(x)), rtol=1e-6, atol=1e-6)
    assert np.abs(own - to_numpy(other(x))).max() > 0.1
    np.testing.assert_array_equal(to_numpy(layer(x)), own)


@pytest.mark.parametrize("name", ["fvsbn_ordering", "nade", "made_random"])
def test_loss_and_logs_are_of_the_density(name):
    model = MAKERS[name](seed=0)
    model.compile(keras.optimizers.SGD(0.0))
    built(model, 2, 5)
    x = VECTORS[:60].reshape(60, 2, 5)
    log_p = model.log_prob(x, batch_size=60, verbose=0)
    np.testing.assert_allclose(log_p, model_of(name).log_prob(VECTORS[:60], verbose=0), rtol=1e-5)
    for data in (x.astype("bool"), x.astype("float32"), x.astype("uint8"), ops.convert_to_tensor(x)):
        np.testing.assert_array_equal(model.log_prob(data, batch_size=60, verbose=0), log_p)
    bits = model.bits_per_dim(x)
    np.testing.assert_allclose(bits, -log_p / (10 * np.log(2)), rtol=1e-6)
    logs = model.evaluate(x, batch_size=20, verbose=0, return_dict=True)
    expected = {"loss": -log_p.mean(), "nll": -log_p.mean(), "bits_per_dim": bits.mean()}
    assert logs == pytest.approx(expected, rel=1e-5)
    weights = np.arange(60.0, dtype="float32")
    loss = model.compute_loss(ops.convert_to_tensor(x), sample_weight=ops.convert_to_tensor(weights), training=False)
    assert float(to_numpy(loss)) == pytest.approx(-(weights * log_p).mean(), rel=1e-5)


# Samples


@pytest.mark.parametrize("name", MAKERS)
def test_samples_follow_the_probabilities(name):
    model, table = model_of(name), table_of(name)
    samples = model.sample(4000, seed=0, batch_size=4000, verbose=0)
    assert (samples.shape, samples.dtype) == ((4000, 10), np.int32)
    check_frequencies(table, samples)
    log_p = model.log_prob(samples[:1024], batch_size=1024, verbose=0)
    np.testing.assert_allclose(log_p, np.log(table[tuple(samples[:1024].T)]), rtol=1e-4, atol=1e-4)
    entropy = -(table * np.log(table)).sum()
    assert -log_p.mean() == pytest.approx(entropy, abs=float(log_p.std()) / 32 * 5)


@pytest.mark.parametrize("name", ONE_ORDERING)
def test_noise_is_put_through_the_inverse_distribution(name, rng):
    noise = rng.random((40, 10), dtype="float32")
    samples = model_of(name).sample(40, noise=noise, verbose=0)
    np.testing.assert_array_equal(samples, draws(table_of(name), noise, ONE_ORDERING[name][1]))


# From the weights of `randomize_weights` and this noise, on any backend.
NOISE = np.random.default_rng(1).random((4, 10), dtype="float32")
RECORDED = {
    "fvsbn": ["1101001101", "1100000100", "1110100101", "0110101101"],
    "fvsbn_ordering": ["1111000110", "1101100010", "1111100010", "1110100010"],
    "nade": ["1011001100", "1011000000", "1010100100", "0010001000"],
    "nade_ordering": ["0101000100", "0101100100", "0111100100", "0110001100"],
    "made": ["1001000100", "1001010000", "1011010100", "0011001000"],
    "made_ordering": ["0011000011", "0011110010", "0111110011", "0011111011"],
    "made_masks": ["1001001100", "1001011000", "1011011000", "0011001000"],
    "made_random": ["0011000111", "0011100010", "0111100011", "0011000011"],
    "made_given": ["0001001000", "1001011000", "1011011100", "0011001000"],
}


@pytest.mark.parametrize("name", MAKERS)
def test_recorded_samples(name):
    samples = model_of(name).sample(4, seed=5, noise=NOISE, verbose=0)
    assert ["".join(map(str, sample)) for sample in samples] == RECORDED[name]


@pytest.mark.parametrize("name", ["fvsbn_ordering", "nade", "made", "made_random"])
def test_a_sample_depends_on_seed_and_place_alone(name):
    model = built(MAKERS[name](seed=0), 2, 5)
    samples = model.sample(9, seed=3, verbose=0)
    assert samples.shape == (9, 2, 5)
    for n in (9, 5):
        np.testing.assert_array_equal(model.sample(n, seed=3, batch_size=4, verbose=0), samples[:n])
    assert (model.sample(5, seed=4, batch_size=4, verbose=0) != samples[:5]).any()


def test_a_loop_is_compiled_once():
    model = built(NADE(7, seed=0))
    for seed, temperature in ((0, 1.0), (1, 0.5)):
        model.sample(5, seed=seed, temperature=temperature, verbose=0)
    assert len(model.programs.by_key) == 1


@pytest.mark.parametrize("name", ["fvsbn_ordering", "nade", "made_ordering"])
def test_greedy_samples(name):
    """The likelier number, each time: for any noise, with top_k = 1, a small top_p or next to no temperature."""
    expected = draws(table_of(name), np.full((1, 10), 0.5), ONE_ORDERING[name][1])
    model, noise = model_of(name), np.random.default_rng(0).random((6, 10))
    for options in ({"top_k": 1}, {"top_p": 0.4}, {"temperature": 1e-4}):
        samples = model.sample(6, noise=noise, verbose=0, **options)
        np.testing.assert_array_equal(samples, np.repeat(expected, 6, axis=0))


# Files and precision


@pytest.mark.parametrize("name", MAKERS)
def test_files_keep_masks_and_orderings(name):
    model = built(MAKERS[name]())  # without a seed
    loaded = save_and_load(model)
    x = VECTORS[::25]
    np.testing.assert_allclose(loaded.log_prob(x, verbose=0), model.log_prob(x, verbose=0), rtol=1e-6)
    samples = model.sample(6, seed=0, verbose=0)
    np.testing.assert_array_equal(loaded.sample(6, seed=0, verbose=0), samples)
    if name == "made_random":
        another = built(MAKERS[name]())
        assert np.abs(another.log_prob(x, verbose=0) - model.log_prob(x, verbose=0)).max() > 0.1


@pytest.mark.parametrize("name", ["fvsbn", "nade", "made_given"])
def test_half_precision(name):
    model = MAKERS[name](dtype="mixed_bfloat16", seed=0)
    model.compile(keras.optimizers.Adam(1e-2))
    assert np.isfinite(model.fit(VECTORS[:64], batch_size=32, verbose=0).history["loss"]).all()
    built(model)
    log_p = model.log_prob(VECTORS, batch_size=1024, verbose=0)
    assert log_p.dtype == np.float32
    np.testing.assert_allclose(log_p, np.log(table_of(name)).ravel(), rtol=0.1, atol=0.1)


# Refusals


@pytest.mark.parametrize("name", ["fvsbn", "nade", "made"])
@pytest.mark.parametrize(
    ("use", "match"),
    [
        (lambda m: m.log_prob(VECTORS + 1), r"`x` must be binary, 0 or 1. Received: x=values such as \[2\]"),
        (lambda m: m.log_prob(VECTORS / 2), "`x` must be binary"),
        (lambda m: m.log_prob(VECTORS * np.nan), "`x` must be binary"),
        (lambda m: m.log_prob(VECTORS.astype("str")), "`x` must be real numbers"),
        (lambda m: m.log_prob(VECTORS[:, :9]), r"`x` must have shape \(n, 10\). Received: x=shape \(1024, 9\)"),
        (lambda m: m.log_prob(VECTORS[:0]), "`x` must hold at least one sample"),
        (lambda m: m.log_prob(VECTORS[0]), "`x` must hold at least one sample"),
        (lambda m: m.log_prob(VECTORS, condition=1), "`condition` must be None: the model takes no condition"),
        (lambda m: m.fit(-VECTORS), "`x` must be binary"),
        (lambda m: m.fit(VECTORS, np.zeros(1024)), "`y` must be None: the model takes no condition"),
        (lambda m: m.fit(VECTORS, validation_data=(VECTORS + 1,)), "`x` must be binary"),
        (lambda m: m.compile("adam", loss="mse"), "`loss` must be left out"),
        (lambda m: m.sample(0), "`n` must be an integer >= 1"),
        (lambda m: m.sample(2, batch_size=0), "`batch_size` must be an integer >= 1"),
        (lambda m: m.sample(2, seed=-1), "`seed` must be an integer >= 0"),
        (lambda m: m.sample(2, 1), "`condition` must be None: the model takes no condition"),
        (lambda m: m.sample(2, guidance=2.0), "`guidance` must be None for a model that was not trained with"),
        (lambda m: m.sample(2, temperature=0), "`temperature` must be > 0 and finite. Received: temperature=0"),
        (lambda m: m.sample(2, temperature=np.nan), "`temperature` must be > 0"),
        (lambda m: m.sample(2, top_k=3), "`top_k` must be at most the number of codes, 2. Received: top_k=3"),
        (lambda m: m.sample(2, top_k=0), "`top_k` must be an integer >= 1"),
        (lambda m: m.sample(2, top_p=0), r"`top_p` must be in \(0, 1\]. Received: top_p=0"),
        (lambda m: m.sample(2, top_p=1.5), r"`top_p` must be in \(0, 1\]"),
        (lambda m: m.sample(2, noise=np.zeros((3, 10))), r"`noise` must have shape \(2, 10\)"),
        (lambda m: m.sample(2, noise=np.ones((2, 10))), r"`noise` must be in \[0, 1\)"),
        (lambda m: m.sample(2, noise=np.full((2, 10), -0.1)), r"`noise` must be in \[0, 1\)"),
    ],
)
def test_bad_input(use, match, name):
    with pytest.raises(ValueError, match=match):
        use(model_of(name))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: FVSBN([0, 0, 1]), r"`ordering` must be a permutation of 0 .. length - 1. Received: ordering=\[0, 0"),
        (lambda: NADE(4, ordering=[1, 2, 3]), "`ordering` must be a permutation"),
        (lambda: NADE(4, ordering="012"), "`ordering` must be a permutation"),
        (lambda: FVSBN([0.0, 1.0]), "`ordering` must be a permutation"),
        (lambda: FVSBN([1, 0]).log_prob(VECTORS), "`ordering` must have 10 entries, the number of dim"),
        (lambda: NADE(4, ordering=[1, 0]).fit(VECTORS), "`ordering` must have 10 entries"),
        (lambda: NADE(0), "`units` must be an integer >= 1"),
        (lambda: NADE(4).sample(1), "`model` must be built"),
        (lambda: FVSBN(seed=-1), "`seed` must be an integer >= 0"),
        (lambda: FVSBN().build((None, None)), "`x` must be codes .* of a known shape"),
        (lambda: MADE([]), "`units` must hold at least one size"),
        (lambda: MADE([0]), "`units` must be"),
        (lambda: MADE([4], 0), "`num_masks` must be an integer >= 1"),
        (lambda: MADE([4], orderings="reverse"), "`orderings` must be 'natural', 'random' or a list"),
        (lambda: MADE([4], orderings=3), "`orderings` must be .* permutations. Received: orderings=3"),
        (lambda: MADE([4], 2, [ORDER]), "`orderings` must have .* num_masks=2. Received: orderings=1 o"),
        (lambda: MADE([4], 1, [[0, 2]]), "`orderings` must be a permutation"),
        (lambda: MADE([4], 1, [[1, 0]]).log_prob(VECTORS), "`orderings` must have 10 entries, the number of dim"),
        (lambda: MADE([4]).sample(1), "`model` must be built"),
    ],
)
def test_bad_construction(make, match):
    with pytest.raises(ValueError, match=match):
        make()


def test_bad_data_is_refused_before_a_step():
    model = made_alike(FVSBN)
    model.compile("adam")
    with pytest.raises(ValueError, match="`x` must be binary"):
        model.fit(VECTORS + 1, verbose=0)
    assert not model.built
    assert int(model.optimizer.iterations) == 0


def test_hidden_units_of_made_see_all_inputs_though_they_are_fewer():
    model = MADE([5], orderings=[list(range(20))])
    model.build((None, 20))
    degrees = to_numpy(model.degrees[0])[0]
    assert degrees.tolist() == [1, 4, 8, 12, 16]


def test_noise_alone_decides_the_samples_of_a_mixture():
    model = MADE([8], 3, "random", seed=0)
    model.build((None, 6))
    noise = np.random.default_rng(0).random((20, 6), dtype="float32")
    np.testing.assert_array_equal(*(model.sample(20, noise=noise, verbose=0) for _ in range(2)))


def test_other_seeds_need_few_programs():
    model = MADE([4], 4, "random", seed=0)
    model.build((None, 3))
    for seed in range(8):
        model.sample(50, seed=seed, verbose=0)
    assert len(model.programs.by_key) <= 2
