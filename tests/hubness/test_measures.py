import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from keras import ops
from scipy.stats import skew, spearmanr

from keras_gen.ops import antihub_rate, gini_index, hub_occurrence, hubness_skewness, k_occurrence, robin_hood_index

MEASURES = (antihub_rate, gini_index, hubness_skewness, robin_hood_index, lambda counts: hub_occurrence(counts, 3))
COUNTS = arrays.arrays("int64", st.integers(1, 30), elements=st.integers(0, 50)).filter(lambda counts: counts.any())


def normal(n, dim, seed):
    return np.random.default_rng(seed).standard_normal((n, dim), dtype="float32")


# Against the definitions


@settings(derandomize=True, deadline=None, max_examples=100)
@given(COUNTS)
def test_definitions(counts):
    n, total = len(counts), counts.sum()
    pairs = sum(abs(int(a) - int(b)) for a in counts for b in counts)
    assert gini_index(counts) == pytest.approx(pairs / (2 * n * total), abs=1e-12)
    assert robin_hood_index(counts) == pytest.approx(sum(abs(a - total / n) for a in counts) / (2 * total), abs=1e-12)
    assert antihub_rate(counts) == sum(a == 0 for a in counts) / n
    assert hub_occurrence(counts, 3, 1.5) == pytest.approx(sum(a for a in counts if a >= 4.5) / total)
    if len(np.unique(counts)) > 1:
        assert hubness_skewness(counts) == pytest.approx(skew(counts), rel=1e-9, abs=1e-9)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(COUNTS, st.integers(0, 1000), st.integers(2, 5))
def test_bounds_and_symmetries(counts, seed, factor):
    shuffled = np.random.default_rng(seed).permutation(counts)
    for measure in MEASURES:
        assert isinstance(measure(counts), float)
        assert measure(shuffled) == pytest.approx(measure(counts), abs=1e-9)
    for measure in (antihub_rate, gini_index, robin_hood_index):
        assert -1e-12 <= measure(counts) <= 1 - 1 / len(counts) + 1e-12
        assert measure(factor * counts) == pytest.approx(measure(counts), abs=1e-12)
    # what must change hands is never more than what differs, nor less than half of it
    assert robin_hood_index(counts) <= gini_index(counts) + 1e-12 <= 2 * robin_hood_index(counts) + 2e-12
    assert 0 <= hub_occurrence(counts, 3) <= 1
    assert hub_occurrence(factor * counts, factor * 3) == hub_occurrence(counts, 3)


@pytest.mark.parametrize(
    ("counts", "robin_hood", "gini", "antihubs"), [([1, 2, 1, 1, 0], 0.2, 0.32, 0.2), ([2, 3, 4, 1, 0], 0.3, 0.4, 0.2)]
)
def test_measures_of_five_points(counts, robin_hood, gini, antihubs):
    assert robin_hood_index(counts) == pytest.approx(robin_hood)
    assert gini_index(counts) == pytest.approx(gini)
    assert antihub_rate(counts) == pytest.approx(antihubs)
    assert hubness_skewness(counts) == pytest.approx(0, abs=1e-12)


def test_measures_of_a_single_hub():
    counts = [1, *[0] * 9, 10]
    assert hubness_skewness(counts) == pytest.approx(2.796824, abs=1e-6)
    assert robin_hood_index(counts) == pytest.approx(0.818182, abs=1e-6)
    assert antihub_rate(counts) == pytest.approx(9 / 11)
    assert hub_occurrence(counts, 1) == pytest.approx(10 / 11)


@pytest.mark.parametrize("value", [1, 5, 0.1, 1e9])
@pytest.mark.parametrize("n", [1, 3, 10])
def test_equal_counts_have_no_hubness(value, n):
    counts = np.full(n, value)
    for measure in (antihub_rate, gini_index, hubness_skewness, robin_hood_index):
        assert measure(counts) == pytest.approx(0, abs=1e-12)
    assert hub_occurrence(counts, 10**10) == 0


def test_a_hub_has_at_least_so_many_times_k():
    counts = [9, 10, 11]
    assert hub_occurrence(counts, 5) == pytest.approx(21 / 30)
    assert hub_occurrence(counts, 5, hub_size=2.1) == pytest.approx(11 / 30)
    assert hub_occurrence(counts, 5, hub_size=3) == 0


def test_tensors_are_counts_too():
    assert gini_index(ops.convert_to_tensor([1, 2, 1, 1, 0])) == pytest.approx(0.32)


# Gaussians: figures of many seeds, n = 10,000 and k = 5 (or n = 1,000)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("dim", "robin_hood", "antihubs", "correlation"),
    [(3, 0.137, 0.002, -0.05), (20, 0.400, 0.155, -0.88), (100, 0.602, 0.374, -0.875)],
)
def test_hubness_grows_with_the_dimension(dim, robin_hood, antihubs, correlation, seed):
    z = normal(10_000, dim, seed)
    counts = k_occurrence(z)
    assert counts.mean() == 5
    assert robin_hood_index(counts) == pytest.approx(robin_hood, abs=0.02)
    assert antihub_rate(counts) == pytest.approx(antihubs, abs=0.02)
    to_mean = np.linalg.norm(z - z.mean(axis=0), axis=1)
    assert spearmanr(counts, to_mean).statistic == pytest.approx(correlation, abs=0.02)
    skewness = hubness_skewness(counts)  # of heavy tails, so bounds alone
    assert abs(skewness) < 0.2 if dim == 3 else skewness > (1.5 if dim == 20 else 5)
    assert (counts > 50).sum() < 10 if dim < 100 else 90 < (counts > 50).sum() < 160


@pytest.mark.parametrize("seed", [2, 3])
def test_hubness_of_a_thousand(seed):
    counts = k_occurrence(normal(1000, 3, seed))
    assert abs(hubness_skewness(counts)) < 0.25
    assert 0.135 < robin_hood_index(counts) < 0.161
    counts = k_occurrence(normal(1000, 100, seed))
    assert hubness_skewness(counts) > 3
    assert 0.51 < robin_hood_index(counts) < 0.575
    assert 0.26 < antihub_rate(counts) < 0.34
    # all is far less where only directions are compared
    directions = k_occurrence(normal(1000, 100, seed), metric="cosine")
    assert abs(hubness_skewness(directions)) < 0.8
    assert robin_hood_index(directions) < 0.3


# Errors


@pytest.mark.parametrize(
    ("counts", "match"),
    [
        ([[1, 2]], r"`counts` must be numbers of shape \(n,\). Received: counts=int64 of shape \(1, 2\)"),
        ([], r"`counts` must be numbers .* of shape \(0,\)"),
        (3, r"`counts` must be numbers .* of shape \(\)"),
        (["a"], "`counts` must be real numbers"),
        ([True, False], "`counts` must be numbers .* Received: counts=bool"),
        ([1, -1], "`counts` must be finite and >= 0, and not all 0. Received: counts=a minimum of -1"),
        ([0, 0], "`counts` must be finite and >= 0, and not all 0"),
        ([1.0, np.nan], "`counts` must be finite"),
        ([1.0, np.inf], "`counts` must be finite"),
    ],
)
def test_bad_counts(counts, match):
    for measure in MEASURES:
        with pytest.raises(ValueError, match=match):
            measure(counts)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"k": 0}, "`k` must be an integer >= 1. Received: k=0"),
        ({"k": 2, "hub_size": 0}, "`hub_size` must be > 0 and finite. Received: hub_size=0"),
        ({"k": 2, "hub_size": "2"}, "`hub_size` must be > 0 and finite. Received: hub_size='2'"),
    ],
)
def test_bad_hub_size(options, match):
    with pytest.raises(ValueError, match=match):
        hub_occurrence([1, 2], **options)
