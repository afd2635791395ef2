"""k-occurrence counts against scikit-learn and faiss, and against the bare matrix product, in one run.

    KERAS_BACKEND=jax python benchmarks/k_occurrence.py
    KERAS_BACKEND=jax python benchmarks/k_occurrence.py --n 100000 --memory

The contestants take turns; medians and ranges of their times, and ratios of medians. `--memory` counts once, with a
progress bar, and prints the peak memory of the process above what it held with the data loaded.
"""

import argparse
import resource
import time
from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from keras_gen.core.compiled import compiled
from keras_gen.ops import k_occurrence

BLOCK = 1000


def ours(x: np.ndarray, k: int) -> np.ndarray:
    return k_occurrence(x, k)


def scikit_learn(x: np.ndarray, k: int) -> np.ndarray:
    from sklearn.neighbors import NearestNeighbors

    indices = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(x).kneighbors(return_distance=False)
    return np.bincount(indices.ravel(), minlength=len(x))


def faiss_flat(x: np.ndarray, k: int) -> np.ndarray:
    import faiss

    index = faiss.IndexFlatL2(x.shape[1])
    index.add(x)
    _, indices = index.search(x, k + 1)
    return np.bincount(indices[:, 1:].ravel(), minlength=len(x))  # the data have no duplicates


product = compiled(None, lambda block, x: ops.max(ops.matmul(block, ops.transpose(x)), axis=1))


def bare_product(x: np.ndarray, k: int) -> np.ndarray:
    points = ops.convert_to_tensor(x)
    blocks = (ops.convert_to_tensor(x[start : start + BLOCK]) for start in range(0, len(x), BLOCK))
    return np.concatenate([ops.convert_to_numpy(product(block, points)) for block in blocks])


def timed(contestant: Callable[[np.ndarray, int], np.ndarray], x: np.ndarray, k: int) -> float:
    start = time.perf_counter()
    contestant(x, k)
    return time.perf_counter() - start


def compare(x: np.ndarray, k: int, repeats: int) -> None:
    contestants = [ours, scikit_learn, faiss_flat, bare_product]
    for contestant in contestants:
        contestant(x[: len(x) // 8], k)
    equal = (ours(x, k) == scikit_learn(x, k)).mean()
    product(ops.convert_to_tensor(x[:BLOCK]), ops.convert_to_tensor(x))
    times = np.array([[timed(contestant, x, k) for contestant in contestants] for _ in range(repeats)])
    medians = np.median(times, axis=0)
    print(f"{keras.backend.backend()}, n={len(x)}, d={x.shape[1]}, k={k}: {equal:.2%} of the counts are scikit-learn's")
    for contestant, median, column in zip(contestants, medians, times.T, strict=True):
        spread = f"{column.min():.2f} .. {column.max():.2f} s"
        print(f"{contestant.__name__:12}  {median:6.2f} s  ({spread})  ours / it = {medians[0] / median:.2f}")


def measure_memory(x: np.ndarray, k: int) -> None:
    ours(x[:5000], k)  # what the backend needs once
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    counts = k_occurrence(x, k, verbose=1)
    above = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    print(f"{keras.backend.backend()}: {len(x)} points in {time.perf_counter() - start:.0f} s, {above:.2f} GiB above")
    print(f"the data's {x.nbytes / 2**30:.2f} GiB; largest count {counts.max()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--k", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--memory", action="store_true")
    arguments = parser.parse_args()
    x = np.random.default_rng(0).standard_normal((arguments.n, arguments.dim), dtype="float32")
    if arguments.memory:
        measure_memory(x, arguments.k)
    else:
        compare(x, arguments.k, arguments.repeats)


if __name__ == "__main__":
    main()
