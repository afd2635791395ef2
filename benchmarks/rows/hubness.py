"""k-occurrence against scikit-learn and faiss, and against the matrix product that all of them need."""

import numpy as np
import torch
from keras import ops

from benchmarks.contest import OURS, Contender, Contest
from benchmarks.rows import PRODUCT, TOPK
from benchmarks.settings import Setting
from keras_gen.core.compiled import compiled
from keras_gen.ops import k_occurrence as our_k_occurrence

DIM, K, BLOCK, LARGE_BLOCK = 512, 5, 1_000, 10_000


def k_occurrence(quick: bool, setting: Setting) -> Contest:
    """scikit-learn and faiss run on the CPU, wherever ours runs."""
    x = _points(5_000 if quick else 20_000)
    contenders = {
        OURS: Contender(lambda: our_k_occurrence(x, K)),
        "scikit-learn": Contender(lambda: _scikit_learn(x)),
        "faiss": Contender(lambda: _faiss(x)),
        PRODUCT: Contender(lambda: _product(x)),
    }
    counted = setting.counted(2 * len(x) ** 2 * DIM)
    return Contest(_case(x), contenders, ("scikit-learn", "faiss"), tolerance=0.0, **counted)


def k_occurrence_large(quick: bool, setting: Setting) -> Contest:
    """From an array of NumPy to counts on the device."""
    x = _points(5_000 if quick else 100_000)
    contenders = {OURS: Contender(lambda: our_k_occurrence(x, K)), TOPK: Contender(lambda: _topk(setting.tensor(x)))}
    counted = setting.counted(2 * len(x) ** 2 * DIM)
    return Contest(_case(x), contenders, (TOPK,), tolerance=0.0, turns=3, **counted)


def _points(n: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((n, DIM), "float32")


def _case(x: np.ndarray) -> str:
    return f"{len(x):,} x {DIM} points, k = {K}"


def _scikit_learn(x: np.ndarray) -> np.ndarray:
    from sklearn.neighbors import NearestNeighbors

    indices = NearestNeighbors(n_neighbors=K, algorithm="brute").fit(x).kneighbors(return_distance=False)
    return np.bincount(indices.ravel(), minlength=len(x))


def _faiss(x: np.ndarray) -> np.ndarray:
    import faiss

    index = faiss.IndexFlatL2(DIM)
    index.add(x)
    _, indices = index.search(x, K + 1)
    return np.bincount(indices[:, 1:].ravel(), minlength=len(x))  # the first is the point itself


product = compiled(None, lambda block, x: ops.max(ops.matmul(block, ops.transpose(x)), axis=1))


def _product(x: np.ndarray) -> np.ndarray:
    points = ops.convert_to_tensor(x)
    blocks = (ops.convert_to_tensor(x[start : start + BLOCK]) for start in range(0, len(x), BLOCK))
    return np.concatenate([ops.convert_to_numpy(product(block, points)) for block in blocks])


@torch.inference_mode()
def _topk(x: torch.Tensor) -> torch.Tensor:
    """Counts neighbours as a user of PyTorch would."""
    counts, squares = torch.zeros(len(x), dtype=torch.long, device=x.device), (x * x).sum(dim=1)
    for start in range(0, len(x), LARGE_BLOCK):
        block = x[start : start + LARGE_BLOCK]
        distances = squares - 2 * block @ x.T  # up to a constant of each row
        own = torch.arange(len(block), device=x.device)
        distances[own, start + own] = torch.inf
        counts += torch.bincount(distances.topk(K, largest=False).indices.ravel(), minlength=len(x))
    return counts
