import itertools
import json

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops
from scipy.linalg import sqrtm
from scipy.spatial.distance import cdist

from keras_gen.core.fixtures import randomize_weights, to_numpy
from keras_gen.metrics import DensityCoverage, FrechetDistance, KernelDistance, PrecisionRecall, frechet_distance

layers = keras.layers
METRICS = (FrechetDistance, KernelDistance, PrecisionRecall, DensityCoverage)


def scipys(x, y):
    x, y = np.asarray(x, "float64"), np.asarray(y, "float64")
    cov_x, cov_y = np.cov(x.T), np.cov(y.T)
    return np.square(x.mean(0) - y.mean(0)).sum() + np.trace(cov_x + cov_y - 2 * sqrtm(cov_x @ cov_y).real)


def radii(points, k):
    own = cdist(points, points)
    np.fill_diagonal(own, np.inf)
    return np.sort(own, axis=1)[:, k - 1]


def by_definition(real, generated, k):
    def share(queries, points):
        return (cdist(queries, points) <= radii(points, k)).any(axis=1).mean()

    real, generated = np.asarray(real, "float64"), np.asarray(generated, "float64")
    return {"precision": share(generated, real), "recall": share(real, generated)}


def balls_by_definition(real, generated, k):
    real, generated = np.asarray(real, "float64"), np.asarray(generated, "float64")
    inside = cdist(generated, real) <= radii(real, k)
    return {"density": inside.sum() / (k * len(generated)), "coverage": inside.any(axis=0).mean()}


def kernel_by_definition(real, generated):
    """The mean over all pairs of pairs, (i, j) with i < j: the kernel by its definition, pair by pair."""

    def mean(x, y, pairs):
        return np.mean([(x[i] @ y[j] / x.shape[1] + 1) ** 3 for i, j in pairs])

    x, y = np.asarray(real, "float64"), np.asarray(generated, "float64")
    within = [mean(z, z, itertools.combinations(range(len(z)), 2)) for z in (x, y)]
    return sum(within) - 2 * mean(x, y, itertools.product(range(len(x)), range(len(y))))


def measured(metric, real, generated):
    metric.reset_state()
    metric.update_state(real, generated)
    return metric.result()


@pytest.fixture
def sets(rng):
    real, generated = rng.normal(size=(211, 6)), rng.normal(0.3, 0.8, (150, 6)) @ rng.normal(size=(6, 6))
    return real.astype("float32"), generated.astype("float32")


# Frechet distance


@pytest.mark.parametrize("sizes", [(211,), (1, 100, 3, 107), (2, 209), (50, 50, 50, 61)])
def test_frechet_distance_does_not_depend_on_the_batches(sizes, sets):
    real, generated = sets
    metric = FrechetDistance(None)
    for part in np.split(real, np.cumsum(sizes)[:-1]):
        metric.update_state(part, None)
    for part in np.split(generated, [7, 8, 100]):
        metric.update_state(None, part)
    assert metric.result() == pytest.approx(scipys(real, generated), rel=1e-8)
    assert metric.result() == pytest.approx(frechet_distance(real, generated), rel=1e-10)
    assert isinstance(metric.result(), float)


def test_frechet_distance_far_from_the_origin(sets):
    real, generated = (x + np.float32(1e4) for x in sets)
    metric = FrechetDistance(None)
    for part in np.array_split(real, 5):
        metric.update_state(part, None)
    metric.update_state(None, generated)
    assert metric.result() == pytest.approx(
        scipys(real.astype("float64") - 1e4, generated.astype("float64") - 1e4), rel=1e-6
    )


def test_frechet_distance_of_gaussians(rng):
    x = rng.normal(size=(3000, 3)).astype("float32")
    assert measured(FrechetDistance(None), x, x) < 1e-9
    assert measured(FrechetDistance(None), x, x + 2) == pytest.approx(12, rel=1e-5)
    shrunk = x.mean(0) + (x - x.mean(0)) / 2
    assert measured(FrechetDistance(None), x, shrunk) == pytest.approx(np.cov(x.T).trace() / 4, rel=1e-5)


def test_more_features_than_samples(rng):
    x, y = rng.normal(size=(2, 5, 40)).astype("float32")
    assert measured(FrechetDistance(None), x, x) < 1e-8
    assert np.isfinite(measured(FrechetDistance(None), x, y))


# Precision and recall


@pytest.mark.parametrize("k", [1, 3, 10, 149])
def test_precision_and_recall_by_definition(k, sets):
    assert measured(PrecisionRecall(None, k), *sets) == by_definition(*sets, k)


@settings(derandomize=True, deadline=None, max_examples=10)
@given(seed=st.integers(0, 1000), dim=st.integers(1, 8), shift=st.floats(0, 2), offset=st.sampled_from([0, 100]))
def test_precision_and_recall_of_any_sets(seed, dim, shift, offset):
    rng = np.random.default_rng(seed)
    real, generated = (rng.normal(m + offset, s, (60, dim)).astype("float32") for m, s in ((0, 1), (shift, 0.5)))
    assert measured(PrecisionRecall(None), real, generated) == by_definition(real, generated, 3)


def test_balls_of_very_different_size(rng):
    """The ball that holds a sample need not be one of a near point."""
    real = np.concatenate([0.01 * rng.normal(size=(80, 2)), 10 * rng.normal(size=(15, 2))]).astype("float32")
    generated = rng.uniform(-3, 3, (90, 2)).astype("float32")
    found = measured(PrecisionRecall(None, 2), real, generated)
    assert found == by_definition(real, generated, 2)
    assert 0 < found["precision"] < 1


def test_equal_sets_and_sets_apart(sets):
    real, generated = sets
    assert measured(PrecisionRecall(None), real, real) == {"precision": 1.0, "recall": 1.0}
    assert measured(PrecisionRecall(None), real, real[::-1]) == {"precision": 1.0, "recall": 1.0}
    assert measured(PrecisionRecall(None), real, real + 100) == {"precision": 0.0, "recall": 0.0}
    few = np.repeat(real[:1], 50, axis=0) + 1e-3 * generated[:50]  # good, but all alike
    found = measured(PrecisionRecall(None), real, few)
    assert found["precision"] > 0.9
    assert found["recall"] < 0.1


def test_copies_are_in_balls_of_no_size(sets):
    """Where more than k samples are equal, the ball is a point, which still holds its copies."""
    real, generated = sets
    copies = np.repeat(real[:10], 6, axis=0)
    found = measured(PrecisionRecall(None), copies, np.concatenate([real[:10], generated[:30]]))
    assert found["precision"] == 0.25
    mixed = np.concatenate([generated, real[:40]])  # duplicates between the sets
    assert measured(PrecisionRecall(None), real, mixed) == by_definition(real, mixed, 3)


def test_precision_and_recall_do_not_depend_on_the_batches(sets):
    real, generated = sets
    metric = PrecisionRecall(None)
    for part in np.split(real, [5, 6, 100]):
        metric.update_state(part, None)
    for part in np.split(generated, [70]):
        metric.update_state(None, part)
    assert metric.result() == by_definition(real, generated, 3)
    assert metric.result() == metric.result()


# Density and coverage


@pytest.mark.parametrize("k", [1, 5, 149])
def test_density_and_coverage_by_definition(k, sets):
    assert measured(DensityCoverage(None, k), *sets) == pytest.approx(balls_by_definition(*sets, k), rel=1e-12)


@settings(derandomize=True, deadline=None, max_examples=10)
@given(seed=st.integers(0, 1000), dim=st.integers(1, 8), shift=st.floats(0, 2), offset=st.sampled_from([0, 100]))
def test_density_and_coverage_of_any_sets(seed, dim, shift, offset):
    rng = np.random.default_rng(seed)
    real, generated = (rng.normal(m + offset, s, (60, dim)).astype("float32") for m, s in ((0, 1), (shift, 0.5)))
    expected = balls_by_definition(real, generated, 5)
    assert measured(DensityCoverage(None), real, generated) == pytest.approx(expected, rel=1e-12)


def test_density_and_coverage_of_copies(sets):
    """Where the data are copied, each ball holds its centre and its k neighbours, the last of them on its surface."""
    real, generated = sets
    for offset in (0, 1e3):
        x = real + np.float32(offset)
        assert measured(DensityCoverage(None, 4), x, x[::-1]) == {"density": 5 / 4, "coverage": 1.0}
    copies = np.repeat(real[:10], 6, axis=0)  # balls that are points, each in six copies
    found = measured(DensityCoverage(None, 5), copies, np.concatenate([real[:5], generated[:5]]))
    assert found == {"density": 5 * 6 / (5 * 10), "coverage": 0.5}
    assert measured(DensityCoverage(None), real, real + 100) == {"density": 0.0, "coverage": 0.0}


@pytest.mark.one_backend
def test_expectations_for_samples_like_the_data(rng):
    """Of equal distributions, whatever they are: density 1, and coverage as if ranks were shuffled (Naeem et al.)."""
    n, m, k = 40, 30, 5
    metric, found = DensityCoverage(None, k), []
    for _ in range(300):
        real, generated = np.split(rng.exponential(size=(n + m, 3)).astype("float32"), [n])
        found.append(list(measured(metric, real, generated).values()))
    coverage = 1 - np.prod([(n - 1 - i) / (n + m - 1 - i) for i in range(k)])
    error = np.std(found, axis=0) / np.sqrt(len(found))
    assert (np.abs(np.mean(found, axis=0) - [1, coverage]) < 4 * error).all()
    assert (error < 0.02).all()


# Kernel distance


def test_kernel_distance_by_definition(sets):
    real, generated = (x[:40] for x in sets)
    expected = kernel_by_definition(real, generated[:25])
    assert measured(KernelDistance(None), real, generated[:25]) == pytest.approx(expected, rel=1e-9)


def test_kernel_distance_in_blocks(sets, monkeypatch):
    expected = measured(KernelDistance(None), *sets)
    monkeypatch.setattr("keras_gen.evaluation.kernel_distance.BLOCK_SIZE", 17)
    assert measured(KernelDistance(None), *sets) == pytest.approx(expected, rel=1e-12)


@pytest.mark.one_backend
def test_kernel_distance_has_no_bias(rng):
    """One feature, x ~ N(0, 1) and y ~ N(m, 1): E (xy + 1)^3 = 1 + 3 E x E y + 3 E x^2 E y^2 + E x^3 E y^3."""
    n, shift = 5, 0.5
    metric = KernelDistance(None)
    found = [measured(metric, *rng.normal([[[0.0]], [[shift]]], 1, (2, n, 1)).astype("float32")) for _ in range(5000)]
    expected = 3 * shift**2 + 3 * shift**4 + (shift**3 + 3 * shift) ** 2
    error = np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found) - expected) < 4 * error
    assert error < 0.1 * expected


def test_subsets(rng):
    real, generated = rng.normal(size=(30, 2)).astype("float32"), rng.normal(1, 1, (20, 2)).astype("float32")
    whole = measured(KernelDistance(None), real[:20], generated)
    assert measured(KernelDistance(None, subset_size=20, subsets=3), real[:20], generated) == pytest.approx(whole)
    metric = KernelDistance(None, subset_size=7, subsets=400, seed=3)
    found = measured(metric, real, generated)
    assert found == measured(metric, real, generated)
    assert found != measured(KernelDistance(None, subset_size=7, subsets=400, seed=4), real, generated)
    assert found == pytest.approx(measured(KernelDistance(None), real, generated), rel=0.2)


# All


@pytest.mark.parametrize("kind", METRICS)
def test_a_reset_forgets(kind, sets):
    real, generated = sets
    metric = kind(None)
    expected = measured(metric, real, generated)
    metric.update_state(real + 5, generated - 5)
    assert metric.result() != expected
    assert measured(metric, real, generated) == expected
    metric.reset_state()
    with pytest.raises(ValueError, match="`real` must have at least"):
        metric.result()
    assert measured(metric, real[:, :3], generated[:, :3]) != expected  # of another number of features


@pytest.mark.parametrize("kind", METRICS)
def test_the_data_can_be_kept(kind, sets):
    real, generated = sets
    metric = kind(None)
    expected = measured(metric, real, generated)
    metric.update_state(None, generated + 1)
    metric.reset_generated()
    metric.update_state(None, generated)
    assert metric.result() == expected
    named = expected if isinstance(expected, dict) else dict.fromkeys(kind.worst, expected)
    assert metric.values() == named


@pytest.mark.parametrize("kind", METRICS)
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_the_feature_model_sees_batches(batch_size, kind, rng):
    class Watch(layers.Layer):
        def call(self, x):
            shapes.append(x.shape[0])
            return x[:, :3]

    shapes = []
    x, y = rng.normal(size=(2, 30, 5)).astype("float32")
    found = measured(kind(Watch(), batch_size=batch_size), x, y)
    assert max(shapes) <= batch_size if batch_size < 30 else max(shapes) >= 30
    assert found == measured(kind(None), x[:, :3], y[:, :3])


@pytest.mark.parametrize("kind", METRICS)
def test_features_of_a_model(kind, rng):
    images = rng.uniform(-1, 1, (2, 50, 4, 4, 1)).astype("float32")
    inner = [layers.Conv2D(3, 3, activation="relu"), layers.BatchNormalization(), layers.Dropout(0.5)]
    model = keras.Sequential([keras.Input((4, 4, 1)), *inner])
    model(images[0], training=True)
    before = [to_numpy(variable).copy() for variable in model.variables]
    features = [to_numpy(model(x)).reshape(50, -1) for x in images]
    assert features[0].shape == (50, 12)
    metric = kind(model)
    for part in np.split(images[0], [20, 27]):
        metric.update_state(ops.convert_to_tensor(part), None)
    metric.update_state(None, images[1].astype("float64"))
    expected = measured(kind(None), *features)
    assert metric.result() == pytest.approx(expected, rel=1e-4)
    for a, b in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(a, to_numpy(b))
    # its present weights count, and its configuration is that of the model
    randomize_weights(model.layers[0])
    assert measured(metric, *images) != expected
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(metric)))
    again = keras.saving.deserialize_keras_object(config)
    again.feature_model.set_weights(model.get_weights())
    assert measured(again, *images) == pytest.approx(measured(metric, *images), rel=1e-5)


@pytest.mark.parametrize("kind", METRICS)
def test_a_feature_model_may_be_an_unbuilt_layer_of_half_precision(kind, rng):
    metric = kind(layers.Dense(3, dtype="mixed_bfloat16"))
    x, y = rng.normal(size=(2, 20, 5)).astype("float32")
    result = measured(metric, x, y)
    features = [to_numpy(metric.feature_model(part)) for part in (x, y)]
    assert result == pytest.approx(measured(kind(None), *features), rel=1e-3)


def test_images_are_flattened(rng):
    images = rng.normal(size=(2, 30, 2, 2, 1)).astype("float32")
    for kind in METRICS:
        assert measured(kind(None), *images) == measured(kind(None), *images.reshape(2, 30, 4))


# Errors

X = np.random.default_rng(0).normal(size=(6, 2)).astype("float32")


def broken(value):
    x = X.copy()
    x[1:3, 0] = value
    return x


def updated(kind, *batches, **options):
    metric = kind(None, **options)
    for real, generated in batches:
        metric.update_state(real, generated)
    return metric


@pytest.mark.parametrize("kind", METRICS)
@pytest.mark.parametrize(
    ("call", "match"),
    [
        (
            lambda kind: kind("inception"),
            "`feature_model` must be a Keras layer, a model, or None. Received: .*inception",
        ),
        (lambda kind: updated(kind, (broken(np.nan), X)), "`real` must be finite. Received: real=.* 2 of 6 samples"),
        (lambda kind: updated(kind, (X, broken(np.inf))), "`generated` must be finite. Received: .* 2 of 6 samples"),
        (
            lambda kind: updated(kind, (X[:0], X)),
            r"`real` must hold at least one sample. Received: real=shape \(0, 2\)",
        ),
        (
            lambda kind: updated(kind, (X.astype("uint8"), X)),
            "`real` must be floating-point. Received: real=dtype uint8",
        ),
        (lambda kind: updated(kind, (X, X[:, :1])), "`generated` must have 2 features. Received: generated=1"),
        (lambda kind: updated(kind, (X, X), (X[:, :1], None)), "`real` must have 2 features. Received: real=1"),
        (lambda kind: kind(None).update_state(X, X, X), "`sample_weight` must be None: all samples have equal weight"),
        (lambda kind: kind(None).result(), "`real` must have at least .* samples in total. Received: real=0"),
        (lambda kind: updated(kind, (X, X[:1])).result(), "`generated` must have at least .* Received: generated=1"),
    ],
)
def test_bad_input(call, match, kind):
    with pytest.raises(ValueError, match=match):
        call(kind)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: FrechetDistance(None, batch_size=0), "`batch_size` must be an integer >= 1. Received: batch_size=0"),
        (
            lambda: measured(
                FrechetDistance(keras.Sequential([keras.Input((3,)), layers.Dense(2)], name="dense")), X, X
            ),
            r"`feature_model` must take data of shape \(n, 2\). Received: feature_model=dense: ",
        ),
        (lambda: DensityCoverage(None, 0), "`k` must be an integer >= 1. Received: k=0"),
        (lambda: KernelDistance(None, 1), "`subset_size` must be an integer >= 2. Received: subset_size=1"),
        (lambda: KernelDistance(None, subsets=0), "`subsets` must be an integer >= 1. Received: subsets=0"),
        (lambda: KernelDistance(None, seed=-1), "`seed` must be an integer >= 0. Received: seed=-1"),
        (
            lambda: updated(KernelDistance, (X, X), subset_size=7).result(),
            "`real` must have at least subset_size = 7 samples in total. Received: real=6",
        ),
        (lambda: PrecisionRecall(None, 0), "`k` must be an integer >= 1. Received: k=0"),
        (lambda: PrecisionRecall(None, 2.5), "`k` must be an integer >= 1. Received: k=2.5"),
        (
            lambda: updated(PrecisionRecall, (X, X), k=6).result(),
            r"`real` must have at least k \+ 1 = 7 samples in total. Received: real=6",
        ),
        (lambda: updated(FrechetDistance, (X[:1], X)).result(), "`real` must have at least 2 samples in total"),
    ],
)
def test_bad_input_of_one_kind(call, match):
    with pytest.raises(ValueError, match=match):
        call()
