import numpy as np
import pytest
from keras import ops
from scipy.spatial.distance import cdist
from scipy.stats import norm

from keras_gen.ops import (
    antihub_rate,
    csls,
    dis_sim_local,
    hubness_skewness,
    k_occurrence,
    local_scaling,
    mutual_proximity,
    nicdm,
    pairwise_distances,
)

N = 30


@pytest.fixture
def x(rng):
    return rng.normal(size=(N, 6))


@pytest.fixture
def d(x):
    return cdist(x, x)


def others(i):
    return [j for j in range(N) if j != i]


def by_pairs(entry):
    """The matrix of `entry(i, j)`, with zeros on the diagonal."""
    return np.array([[0.0 if i == j else entry(i, j) for j in range(N)] for i in range(N)])


def off_diagonal(matrix):
    return matrix[~np.eye(len(matrix), dtype=bool)]


# Distances


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("offset", [0, 1000])
def test_distances_are_scipys(metric, offset, x):
    found = pairwise_distances(x + offset, metric)
    np.testing.assert_allclose(found, cdist(x + offset, x + offset, metric), rtol=1e-6, atol=1e-12)
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_array_equal(np.diag(found), 0)
    assert found.dtype == np.dtype("float64")


def test_distances_of_equal_and_of_near_points(rng):
    x = rng.normal(size=(100, 50))
    x[50:] = x[:50]
    np.testing.assert_array_equal(np.diag(pairwise_distances(x), 50), 0)
    x[50:, 0] += 1e-6
    np.testing.assert_allclose(np.diag(pairwise_distances(x), 50), 1e-6, rtol=1e-6)


def test_tensors_have_distances_too(x):
    np.testing.assert_allclose(pairwise_distances(ops.convert_to_tensor(x, "float32")), cdist(x, x), rtol=1e-5)


# Against the definitions


def test_mutual_proximity(d):
    moments = [(d[i, others(i)].mean(), d[i, others(i)].std()) for i in range(N)]
    expected = by_pairs(lambda i, j: 1 - norm.sf(d[i, j], *moments[i]) * norm.sf(d[i, j], *moments[j]))
    np.testing.assert_allclose(mutual_proximity(d), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("k", [1, 5, N - 1])
def test_local_scaling(k, d):
    r = [np.sort(d[i, others(i)])[k - 1] for i in range(N)]
    expected = by_pairs(lambda i, j: 1 - np.exp(-(d[i, j] ** 2) / (r[i] * r[j])))
    np.testing.assert_allclose(local_scaling(d, k), expected, rtol=1e-9)


@pytest.mark.parametrize("k", [1, 5, N - 1])
def test_nicdm(k, d):
    m = [np.sort(d[i, others(i)])[:k].mean() for i in range(N)]
    expected = by_pairs(lambda i, j: d[i, j] / np.sqrt(m[i] * m[j]))
    np.testing.assert_allclose(nicdm(d, k), expected, rtol=1e-9)


@pytest.mark.parametrize("k", [1, 10, N - 1])
def test_csls(k, x):
    similar = 1 - cdist(x, x, "cosine")
    r = [np.sort(similar[i, others(i)])[-k:].mean() for i in range(N)]
    expected = by_pairs(lambda i, j: -(2 * similar[i, j] - r[i] - r[j]))
    np.testing.assert_allclose(off_diagonal(csls(similar, k)), off_diagonal(expected), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("k", [1, 10, N - 1])
def test_dis_sim_local(k, x, d):
    nearest = [sorted(others(i), key=lambda j: d[i, j])[:k] for i in range(N)]
    away = [np.square(x[i] - x[nearest[i]].mean(0)).sum() for i in range(N)]
    expected = by_pairs(lambda i, j: d[i, j] ** 2 - away[i] - away[j])
    np.testing.assert_allclose(off_diagonal(dis_sim_local(x, k)), off_diagonal(expected), rtol=1e-9, atol=1e-9)


REDUCTIONS = {
    "mutual_proximity": lambda x: mutual_proximity(pairwise_distances(x)),
    "local_scaling": lambda x: local_scaling(pairwise_distances(x)),
    "nicdm": lambda x: nicdm(pairwise_distances(x)),
    "dis_sim_local": dis_sim_local,
    "csls": lambda x: csls(1 - pairwise_distances(x, "cosine")),
}


@pytest.mark.parametrize("name", REDUCTIONS)
def test_are_symmetric_and_leave_their_input_alone(name, x):
    before = x.copy()
    found = REDUCTIONS[name](x)
    np.testing.assert_allclose(found, found.T, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(x, before)
    assert found.dtype == np.dtype("float64")
    if name in ("mutual_proximity", "local_scaling", "nicdm"):
        np.testing.assert_array_equal(np.diag(found), 0)
        assert off_diagonal(found).min() > 0
    if name in ("mutual_proximity", "local_scaling"):
        assert found.max() <= 1


def test_the_matrix_is_not_changed(d):
    before = d.copy()
    for reduce in (mutual_proximity, local_scaling, nicdm, csls):
        reduce(d)
        np.testing.assert_array_equal(d, before)


# What they are for


def test_reduce_hubness():
    """Of 2,000 Gaussian points in 100 dimensions, k = 5; figures of many seeds."""
    x = np.random.default_rng(0).standard_normal((2000, 100))
    counts = k_occurrence(x)
    before, most = hubness_skewness(counts), counts.max()
    assert before > 3.5
    assert antihub_rate(counts) == pytest.approx(0.32, abs=0.03)
    assert most > 80
    d = pairwise_distances(x)
    reduced_by = {
        "mutual_proximity": lambda: mutual_proximity(d),
        "local_scaling": lambda: local_scaling(d),
        "nicdm": lambda: nicdm(d),
        "dis_sim_local": lambda: dis_sim_local(x),
        "csls": lambda: csls(1 - pairwise_distances(x, "cosine")),
    }
    bounds = {  # skewness, rate of anti-hubs, largest count
        "mutual_proximity": (1.0, 0.08, 30),
        "local_scaling": (3.0, 0.1, 70),
        "nicdm": (2.8, 0.09, 60),
        "dis_sim_local": (1.6, 0.01, 30),
        "csls": (0.5, 0.005, 16),
    }
    for name, (skewness, antihubs, largest) in bounds.items():
        reduced = k_occurrence(reduced_by[name](), metric="precomputed")
        assert reduced.sum() == 10_000
        assert hubness_skewness(reduced) < min(skewness, before), name
        assert antihub_rate(reduced) < antihubs, name
        assert reduced.max() < largest, name


# Errors

EQUAL = 0.1 * (1 - np.eye(7))  # the corners of a simplex
TWINS = np.kron(1 - np.eye(4), np.ones((2, 2)))


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (
            lambda d: mutual_proximity(d[:5]),
            r"`distances` must be square, \(n, n\). Received: distances=shape \(5, 30\)",
        ),
        (lambda d: mutual_proximity(-d), "`distances` must be >= 0. Received: distances=a minimum of -"),
        (
            lambda d: mutual_proximity(EQUAL),
            "`distances` must differ within each row. Received: .*7 rows of equal distances",
        ),
        (lambda d: mutual_proximity(d[:2, :2]), r"`distances` must be of at least 3 points. Received: .*\(2, 2\)"),
        (lambda d: mutual_proximity(d + np.nan), "`distances` must be finite. Received: .* in 30 of 30 rows"),
        (lambda d: local_scaling(d[:5]), "`distances` must be square"),
        (lambda d: local_scaling(-d), "`distances` must be >= 0"),
        (lambda d: local_scaling(d, 0), "`k` must be an integer >= 1. Received: k=0"),
        (lambda d: local_scaling(d, 30), "`k` must be at most the number of other points, 29. Received: k=30"),
        (
            lambda d: local_scaling(TWINS, 1),
            "`distances` must be > 0 to the k-th neighbour. Received: .*8 rows without",
        ),
        (lambda d: nicdm(d[:5]), "`distances` must be square"),
        (lambda d: nicdm(-d), "`distances` must be >= 0"),
        (lambda d: nicdm(d, 30), "`k` must be at most the number of other points, 29"),
        (lambda d: nicdm(TWINS, 1), "`distances` must be > 0 to at least one of the k neighbours. Received: .*8 rows"),
        (lambda d: csls(d[:5]), "`similarities` must be square"),
        (lambda d: csls(d, 30), "`k` must be at most the number of other points, 29"),
        (lambda d: csls(d + np.inf), "`similarities` must be finite"),
        (lambda d: csls(d[0]), r"`similarities` must have shape"),
        (lambda d: dis_sim_local(d[0]), r"`x` must have shape \(n, dim\)"),
        (lambda d: dis_sim_local(d, 30), "`k` must be at most the number of other points, 29"),
        (lambda d: dis_sim_local(d, 0), "`k` must be an integer >= 1"),
        (lambda d: dis_sim_local(d + np.nan), "`x` must be finite"),
        (lambda d: pairwise_distances(d, "precomputed"), "`metric` must be one of 'euclidean', 'cosine'"),
        (lambda d: pairwise_distances(d[0]), r"`x` must have shape \(n, dim\)"),
        (lambda d: pairwise_distances(0 * d, "cosine"), "`x` must have no rows of zeros.* Received: x=30 of 30"),
    ],
)
def test_bad_input(call, match, d):
    with pytest.raises(ValueError, match=match):
        call(d)
