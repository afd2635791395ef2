import itertools
import tracemalloc

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from keras_gen.core.fixtures import to_numpy
from keras_gen.hubness import neighbors
from keras_gen.hubness.neighbors import Index, nearest_program
from keras_gen.ops import k_occurrence, nearest_neighbors, pairwise_distances


def squared_distances(queries, points):
    queries, points = np.asarray(queries, "float64"), np.asarray(points, "float64")
    return ((queries[:, None] - points[None]) ** 2).sum(-1)


def brute_force(distances, k, itself=True):
    """Squared distances and indices of the k nearest of each row, without the row's own point."""
    distances = np.array(distances, "float64")
    if itself:
        np.fill_diagonal(distances, np.inf)
    indices = distances.argsort(axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, indices, axis=1), indices


def same_neighbors(found, expected, rtol=1e-5):
    np.testing.assert_array_equal(found[1], expected[1])
    np.testing.assert_allclose(found[0], expected[0], rtol=rtol)
    assert found[1].dtype == np.dtype("int32")


# Against brute force


@pytest.mark.parametrize("dim", [1, 3, 30])
def test_is_the_brute_force(dim, rng):
    x = rng.normal(size=(120, dim)).astype("float32")
    same_neighbors(nearest_neighbors(x, k=7), brute_force(squared_distances(x, x), 7))


@pytest.mark.parametrize("dim", [3, 30])
def test_neighbors_among_other_points(dim, rng):
    queries, points = rng.normal(size=(40, dim)), 3 * rng.normal(size=(70, dim)) + 1
    expected = brute_force(squared_distances(queries, points), 5, itself=False)
    same_neighbors(nearest_neighbors(queries, points, block_size=16), expected)


def test_a_query_that_is_a_point_finds_it(rng):
    points = rng.normal(size=(50, 4)).astype("float32")
    distances, indices = nearest_neighbors(points[20:30], points, k=1)
    np.testing.assert_array_equal(indices[:, 0], np.arange(20, 30))
    np.testing.assert_array_equal(distances, 0)


@pytest.mark.parametrize("block_size", [1, 7, 29, 30, 1000])
def test_any_block_size_gives_the_same(block_size, rng):
    x = rng.normal(size=(30, 5)).astype("float32")
    same_neighbors(nearest_neighbors(x, k=4, block_size=block_size), brute_force(squared_distances(x, x), 4))
    d = pairwise_distances(x)
    same_neighbors(nearest_neighbors(d, k=4, block_size=block_size, metric="precomputed"), brute_force(d, 4))


def test_all_others_are_neighbors(rng):
    x = rng.normal(size=(12, 3)).astype("float32")
    same_neighbors(nearest_neighbors(x, k=11), brute_force(squared_distances(x, x), 11))
    same_neighbors(nearest_neighbors(x[:3], x, k=12), brute_force(squared_distances(x[:3], x), 12, itself=False))
    np.testing.assert_array_equal(k_occurrence(x, 11), 11)


@settings(derandomize=True, deadline=None, max_examples=25)
@given(
    n=st.integers(2, 9),
    dim=st.integers(1, 3),
    k=st.integers(1, 8),
    block=st.integers(1, 10),
    metric=st.sampled_from(["euclidean", "cosine", "precomputed"]),
    include_self=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_counts_sum_to_n_k_and_follow_the_points(n, dim, k, block, metric, include_self, seed):
    rng = np.random.default_rng(seed)
    x, k = rng.normal(size=(n, dim)), min(k, n - 1)
    order = rng.permutation(n)
    if dim == 1 and metric == "cosine":
        x = np.concatenate([x, rng.normal(size=(n, 1))], axis=1)  # on a line, all cosines tie
    shuffled = x[order]
    if metric == "precomputed":
        x = pairwise_distances(x)
        shuffled = x[order][:, order]
    counts = k_occurrence(x, k, include_self, block, metric)
    assert counts.shape == (n,)
    assert counts.dtype == np.dtype("int32")
    assert counts.sum() == n * k
    assert counts.min() >= include_self
    assert counts.max() <= n - 1 + include_self
    np.testing.assert_array_equal(k_occurrence(shuffled, k, include_self, metric=metric), counts[order])


# Digits


def test_an_offset_costs_no_digits_in_float32(rng):
    """|x|^2 - 2 x.y + |y|^2 in float32 would have nearly all neighbours wrong here."""
    x = (1e3 + rng.normal(size=(300, 10))).astype("float32")
    same_neighbors(nearest_neighbors(x), brute_force(squared_distances(x, x), 5))
    same_neighbors(nearest_neighbors(x[:40], x[40:]), brute_force(squared_distances(x[:40], x[40:]), 5, itself=False))


def test_an_offset_costs_no_digits_of_float64_input(rng):
    x = 1e6 + rng.normal(size=(300, 10))
    same_neighbors(nearest_neighbors(x), brute_force(squared_distances(x, x), 5))


def test_queries_far_from_the_points(rng):
    points = rng.normal(size=(60, 3)).astype("float32")
    found = nearest_neighbors(points[:1] + 100, points, k=3)
    same_neighbors(found, brute_force(squared_distances(points[:1] + 100, points), 3, itself=False))


def test_clusters_that_are_far_apart(rng):
    """The mean is between them: centred, each point is still far from the origin."""
    x = rng.normal(size=(400, 3)).astype("float32")
    x[::2] += 3000
    np.testing.assert_array_equal(nearest_neighbors(x)[1], brute_force(squared_distances(x, x), 5)[1])


@pytest.mark.parametrize("dtype", ["float16", "int8", "uint8", "int64"])
def test_other_types_of_number(dtype, rng):
    x = rng.integers(0, 120, (40, 8)).astype(dtype)
    found = nearest_neighbors(x, k=3)[0]
    expected = brute_force(squared_distances(x, x), 3)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_tensors_and_lists_are_points_too(rng):
    x = rng.normal(size=(20, 3)).astype("float32")
    expected = brute_force(squared_distances(x, x), 5)
    for points in (ops.convert_to_tensor(x), x.tolist(), keras.Variable(x)):
        same_neighbors(nearest_neighbors(points), expected)
    np.testing.assert_array_equal(k_occurrence(ops.convert_to_tensor(x)), np.bincount(expected[1].ravel()))


# Equal points


def test_each_of_two_equal_points_finds_the_other(rng):
    x = np.repeat(rng.normal(size=(20, 3)), 2, axis=0).astype("float32")
    distances, indices = nearest_neighbors(x, k=1)
    np.testing.assert_array_equal(indices[:, 0], np.arange(40) ^ 1)
    np.testing.assert_array_equal(distances, 0)
    np.testing.assert_array_equal(k_occurrence(x, 1), 1)


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "precomputed"])
def test_no_point_is_its_own_neighbor_among_many_copies(metric, rng):
    x = np.concatenate([np.ones((30, 4)), rng.normal(size=(10, 4))])
    x = pairwise_distances(x) if metric == "precomputed" else x
    distances, indices = nearest_neighbors(x, k=5, metric=metric)
    assert (indices != np.arange(40)[:, None]).all()
    assert (indices[:30] < 30).all()
    assert all(len(set(row)) == 5 for row in indices)
    np.testing.assert_allclose(distances[:30], 0, atol=1e-6)
    counts = k_occurrence(x, 5, include_self=True, metric=metric)
    assert counts.sum() == 200
    assert counts.min() >= 1


# Metrics


def test_cosine(rng):
    x = rng.normal(size=(60, 5)) * rng.uniform(0.01, 100, (60, 1))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    expected = brute_force(1 - unit @ unit.T, 4)
    same_neighbors(nearest_neighbors(x, k=4, metric="cosine"), expected, rtol=1e-4)
    queries = brute_force(1 - unit[:9] @ unit[9:].T, 4, itself=False)
    same_neighbors(nearest_neighbors(x[:9], x[9:], k=4, metric="cosine"), queries, rtol=1e-4)
    counts = k_occurrence(x, 4, metric="cosine")
    np.testing.assert_array_equal(counts, np.bincount(expected[1].ravel(), minlength=60))


def test_precomputed(rng):
    d = rng.uniform(-1, 1, (25, 25))  # neither symmetric nor positive, and what is on the diagonal is of no account
    expected = brute_force(d, 6)
    found = nearest_neighbors(d, k=6, metric="precomputed")
    same_neighbors(found, expected, rtol=0)
    np.testing.assert_array_equal(k_occurrence(d, 6, metric="precomputed"), np.bincount(expected[1].ravel()))
    rectangle = nearest_neighbors(d[:10], k=25, metric="precomputed")
    same_neighbors(rectangle, brute_force(d[:10], 25, itself=False), rtol=0)


# Counts


@pytest.mark.parametrize(("k", "expected"), [(1, [1, 2, 1, 1, 0]), (2, [2, 3, 4, 1, 0])])
def test_counts_of_five_points(k, expected):
    x = np.array([[0.0], [1], [3], [7], [15]])
    np.testing.assert_array_equal(k_occurrence(x, k), expected)
    np.testing.assert_array_equal(k_occurrence(np.abs(x - x.T), k, metric="precomputed"), expected)


def test_the_centroid_is_the_hub():
    """sqrt(0.9) from each of ten basis vectors, which are sqrt(2) apart."""
    x = np.concatenate([np.eye(10), np.full((1, 10), 0.1)])
    counts = k_occurrence(x, 1)
    assert counts[-1] == 10
    assert counts.sum() == 11
    assert counts.max() == 10


def test_with_the_point_itself_there_is_one_neighbor_less(rng):
    x = rng.normal(size=(40, 5))
    np.testing.assert_array_equal(k_occurrence(x, 5, include_self=True), 1 + k_occurrence(x, 4))
    np.testing.assert_array_equal(k_occurrence(x, 1, include_self=True), 1)


# Memory


def test_a_block_of_queries_at_a_time(rng):
    x = rng.normal(size=(1000, 3)).astype("float32")
    program, sizes = nearest_program(6), []

    def recording(queries, rows):
        sizes.append((queries.shape[0], rows.shape[0]))
        return program(queries, rows)

    assert [len(part) for part in Index(x).search(recording, x, 64, 0)] == [1000] * 3
    assert len(sizes) == -(-1000 // 64)
    assert set(sizes) == {
        (63 if keras.backend.backend() == "torch" else 64, 1000)
    }  # one size, so that one program does


def test_matrix_on_the_host_is_searched_in_blocks(rng):
    d = rng.uniform(size=(2000, 2000))
    nearest_neighbors(d[:10, :10], k=5, metric="precomputed")
    tracemalloc.start()
    nearest_neighbors(d, metric="precomputed", block_size=50)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < d.nbytes / 4


# Errors

GRID = np.array(list(itertools.product(range(3), repeat=2)), "float32")


def broken(value, rows=1):
    x = GRID.copy()
    x[:rows, 1] = value
    return x


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: nearest_neighbors(GRID, k=9), "`k` must be at most the number of other points, 8. Received: k=9"),
        (lambda: nearest_neighbors(GRID, GRID[:3], k=4), "`k` must be at most the number of other points, 3"),
        (lambda: nearest_neighbors(GRID, k=0), "`k` must be an integer >= 1. Received: k=0"),
        (lambda: nearest_neighbors(GRID, k=2.0), "`k` must be an integer >= 1. Received: k=2.0"),
        (lambda: nearest_neighbors(GRID, block_size=0), "`block_size` must be an integer >= 1. Received: block_size=0"),
        (
            lambda: nearest_neighbors(GRID[:, 0]),
            r"`queries` must have shape \(n, dim\). Received: queries=shape \(9,\)",
        ),
        (lambda: nearest_neighbors(GRID[None]), r"`queries` must have shape .* Received: queries=shape \(1, 9, 2\)"),
        (lambda: nearest_neighbors(GRID[:0]), r"`queries` must have shape .* Received: queries=shape \(0, 2\)"),
        (lambda: nearest_neighbors(GRID, GRID[:, :0]), r"`points` must have shape .* Received: points=shape \(9, 0\)"),
        (lambda: nearest_neighbors(GRID, np.ones((9, 3))), r"`points` must have shape \(n, 2\), like the queries"),
        (lambda: nearest_neighbors(broken(np.nan)), "`queries` must be finite. Received: .* in 1 of 9 rows"),
        (lambda: nearest_neighbors(GRID, broken(-np.inf, 4)), "`points` must be finite. Received: .* in 4 of 9 rows"),
        (lambda: nearest_neighbors(GRID > 0), "`queries` must be real numbers. Received: queries=dtype bool"),
        (lambda: nearest_neighbors(GRID, metric="l1"), "`metric` must be one of 'euclidean', .* Received: metric='l1'"),
        (lambda: nearest_neighbors(GRID, GRID, metric="precomputed"), "`points` must be None for a distance matrix"),
        (lambda: nearest_neighbors(GRID[:5], k=3, metric="precomputed"), "`k` must be at most the number .*, 2"),
        (lambda: nearest_neighbors(GRID, metric="cosine"), "`queries` must have no rows of zeros.* Received: .*1 of 9"),
        (lambda: nearest_neighbors(GRID + 1, GRID, metric="cosine"), "`points` must have no rows of zeros"),
        (lambda: k_occurrence(GRID, 9), r"`x` must have at least k \+ 1 = 10 rows. Received: x=shape \(9, 2\)"),
        (lambda: k_occurrence(GRID, 0), "`k` must be an integer >= 1. Received: k=0"),
        (lambda: k_occurrence(GRID[:, 0]), r"`x` must have shape \(n, dim\). Received: x=shape \(9,\)"),
        (lambda: k_occurrence(GRID[None]), r"`x` must have shape .* Received: x=shape \(1, 9, 2\)"),
        (lambda: k_occurrence(GRID[:0]), r"`x` must have shape .* Received: x=shape \(0, 2\)"),
        (lambda: k_occurrence(broken(np.inf, 2)), "`x` must be finite. Received: x=NaN or infinite values in 2 of 9"),
        (lambda: k_occurrence(GRID, metric="l1"), "`metric` must be one of"),
        (lambda: k_occurrence(GRID, 1, metric="precomputed"), r"`x` must be a square distance matrix"),
        (lambda: k_occurrence(GRID, metric="cosine"), "`x` must have no rows of zeros"),
        (lambda: k_occurrence(GRID, block_size=-1), "`block_size` must be an integer >= 1. Received: block_size=-1"),
    ],
)
def test_bad_input(call, match):
    with pytest.raises(ValueError, match=match):
        call()


@pytest.mark.parametrize(("columns", "count"), [(5, 5), (640, 10), (650, 10), (655, 7), (639, 10), (2000, 1), (64, 1)])
def test_largest_values_are_those_of_a_sort(columns, count):
    values = np.random.default_rng(columns).standard_normal((7, columns), "float32")
    indices, found = (to_numpy(part) for part in neighbors.largest(ops.convert_to_tensor(values), count))
    expected = np.argsort(-values, axis=1)[:, :count]
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_array_equal(found, np.take_along_axis(values, expected, axis=1))


def test_largest_values_among_equal_ones():
    values = np.random.default_rng(0).integers(0, 3, (50, 330)).astype("float32")
    indices, found = (to_numpy(part) for part in neighbors.largest(ops.convert_to_tensor(values), 4))
    np.testing.assert_array_equal(found, -np.sort(-values, axis=1)[:, :4])
    np.testing.assert_array_equal(np.take_along_axis(values, indices, axis=1), found)
    assert all(len(set(row)) == 4 for row in indices)


@pytest.mark.parametrize("tile", [16, 48, 800])
def test_tiles_change_nothing(tile, monkeypatch):
    points = np.random.default_rng(1).standard_normal((810, 6), "float32")
    distances, indices = nearest_neighbors(points, k=20, block_size=100)
    monkeypatch.setattr(neighbors, "tile_size", lambda queries, n, chunk: tile)
    neighbors.nearest_program.cache_clear()
    tiled = nearest_neighbors(points, k=20, block_size=100)
    neighbors.nearest_program.cache_clear()
    np.testing.assert_array_equal(tiled[1], indices)
    np.testing.assert_allclose(tiled[0], distances, rtol=1e-6)


@pytest.mark.parametrize("exponent", [-110, 66, 120])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_neighbours_do_not_depend_on_the_scale(metric, exponent, rng):
    """Squares of such points overflow or underflow; by a power of two all results are the same to the last digit."""
    x = rng.normal(size=(50, 4)).astype("float32")
    scaled = np.ldexp(x, exponent)
    np.testing.assert_array_equal(k_occurrence(scaled, 3, metric=metric), k_occurrence(x, 3, metric=metric))
    distances, indices = nearest_neighbors(x, k=3, metric=metric)
    of_scaled, found = nearest_neighbors(scaled, k=3, metric=metric)
    np.testing.assert_array_equal(found, indices)
    assert distances.dtype == "float32"
    expected = distances if metric == "cosine" else np.ldexp(distances.astype("float64"), 2 * exponent)
    np.testing.assert_allclose(of_scaled, expected, rtol=1e-6)
    expected = pairwise_distances(x, metric)
    np.testing.assert_allclose(
        pairwise_distances(scaled, metric),
        expected if metric == "cosine" else np.ldexp(expected, exponent),
        rtol=1e-6,
    )


@pytest.mark.parametrize("scale", [1e20, 1e-20, 1e-30])
def test_counts_of_decimal_scales(scale, rng):
    x = rng.normal(size=(60, 16)).astype("float32")
    np.testing.assert_array_equal(k_occurrence(x * np.float32(scale), 3), k_occurrence(x, 3))
