"""Counts of neighbours against other libraries, at a size where rounding has many chances to show."""

import numpy as np
import pytest

from keras_gen.ops import k_occurrence, nearest_neighbors

N, K = 5000, 5


def gaussian(dim, offset=0.0):
    return (np.random.default_rng(dim).standard_normal((N, dim)) + offset).astype("float32")


def counts_of(indices):
    return np.bincount(np.asarray(indices).ravel(), minlength=N)


@pytest.mark.parametrize("dim", [3, 50, 300])
def test_counts_are_those_of_scikit_learn(dim):
    neighbors = pytest.importorskip("sklearn.neighbors").NearestNeighbors
    x = gaussian(dim)
    peer = neighbors(n_neighbors=K, algorithm="brute").fit(x.astype("float64"))
    distances, indices = peer.kneighbors()  # without X, no point is its own neighbour
    np.testing.assert_array_equal(k_occurrence(x, K), counts_of(indices))
    np.testing.assert_array_equal(k_occurrence(x, K, block_size=777), counts_of(indices))
    found = nearest_neighbors(x, k=K)
    np.testing.assert_array_equal(found[1], indices)
    np.testing.assert_allclose(found[0], distances**2, rtol=1e-5)


def test_cosine_counts_are_those_of_scikit_learn():
    neighbors = pytest.importorskip("sklearn.neighbors").NearestNeighbors
    x = gaussian(50, offset=0.3)
    _, indices = neighbors(n_neighbors=K, algorithm="brute", metric="cosine").fit(x.astype("float64")).kneighbors()
    np.testing.assert_array_equal(k_occurrence(x, K, metric="cosine"), counts_of(indices))


def test_neighbors_of_other_points_are_those_of_scikit_learn():
    neighbors = pytest.importorskip("sklearn.neighbors").NearestNeighbors
    points, queries = gaussian(20), gaussian(21, offset=1.0)[:1500, :20]
    distances, indices = neighbors(n_neighbors=K, algorithm="brute").fit(points.astype("float64")).kneighbors(queries)
    found = nearest_neighbors(queries, points, k=K)
    np.testing.assert_array_equal(found[1], indices)
    np.testing.assert_allclose(found[0], distances**2, rtol=1e-5)


@pytest.mark.parametrize("dim", [3, 100])
def test_counts_are_those_of_faiss(dim):
    faiss = pytest.importorskip("faiss")
    x = gaussian(dim)
    index = faiss.IndexFlatL2(dim)
    index.add(x)
    _, indices = index.search(x, K + 1)  # the first is the point itself, where no other equals it
    np.testing.assert_array_equal(indices[:, 0], np.arange(N))
    np.testing.assert_array_equal(k_occurrence(x, K), counts_of(indices[:, 1:]))
