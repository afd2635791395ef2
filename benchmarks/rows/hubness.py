"""k-occurrence against scikit-learn and faiss, and against the matrix product that all of them need."""

import faiss
import numpy as np
from keras import ops
from sklearn.neighbors import NearestNeighbors

from benchmarks.contest import OURS, Contender, Contest
from benchmarks.rows import PRODUCT
from keras_gen.core.compiled import compiled
from keras_gen.ops import k_occurrence as our_k_occurrence

DIM, K, BLOCK = 512, 5, 1000


def k_occurrence(quick: bool) -> Contest:
    n = 5_000 if quick else 20_000
    x = np.random.default_rng(0).standard_normal((n, DIM), "float32")
    contenders = {
        OURS: Contender(lambda: our_k_occurrence(x, K)),
        "scikit-learn": Contender(lambda: _scikit_learn(x)),
        "faiss": Contender(lambda: _faiss(x)),
        PRODUCT: Contender(lambda: _product(x)),
    }
    return Contest(f"{n:,} x {DIM} points, k = {K}", contenders, ("scikit-learn", "faiss"), tolerance=0.0)


def _scikit_learn(x: np.ndarray) -> np.ndarray:
    indices = NearestNeighbors(n_neighbors=K, algorithm="brute").fit(x).kneighbors(return_distance=False)
    return np.bincount(indices.ravel(), minlength=len(x))


def _faiss(x: np.ndarray) -> np.ndarray:
    index = faiss.IndexFlatL2(DIM)
    index.add(x)
    _, indices = index.search(x, K + 1)
    return np.bincount(indices[:, 1:].ravel(), minlength=len(x))  # the first is the point itself


product = compiled(None, lambda block, x: ops.max(ops.matmul(block, ops.transpose(x)), axis=1))


def _product(x: np.ndarray) -> np.ndarray:
    points = ops.convert_to_tensor(x)
    blocks = (ops.convert_to_tensor(x[start : start + BLOCK]) for start in range(0, len(x), BLOCK))
    return np.concatenate([ops.convert_to_numpy(product(block, points)) for block in blocks])
