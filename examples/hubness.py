"""Hubness, https://kexue.fm/archives/9147: nearest neighbours in high dimensions, in four pictures, and remedies.

    KERAS_BACKEND=jax python examples/hubness.py

1. The ball in a cube: its fraction of the cube's volume vanishes, so it has hardly any center.
2. Points drawn from N(0, I): how often each is among the 5 nearest neighbours of others, in few and in many dimensions.
3. The hubs are the points near the mean.
4. Secondary distances that reduce hubness.

No model is trained. Writes the pictures to `--output`, and prints the measures.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from shared import as_count, base_parser, save_panels

from keras_gen import ops

K = 5
REDUCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "none": ops.pairwise_distances,
    "mutual proximity": lambda x: ops.mutual_proximity(ops.pairwise_distances(x)),
    "local scaling": lambda x: ops.local_scaling(ops.pairwise_distances(x), K),
    "NICDM": lambda x: ops.nicdm(ops.pairwise_distances(x), K),
    "DisSimLocal": ops.dis_sim_local,
    "CSLS": lambda x: ops.csls(1 - ops.pairwise_distances(x, metric="cosine")),
}


def ball_in_cube(dims: np.ndarray) -> np.ndarray:
    """Returns the volume of the ball of radius 1 over that of the cube of side 2: pi^(d/2) / (2^d Gamma(d/2 + 1))."""
    return np.array([math.exp(d / 2 * math.log(math.pi / 4) - math.lgamma(d / 2 + 1)) for d in dims])


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Returns Spearman's rank correlation; ties share the mean rank."""
    ranks = [np.unique(values, return_inverse=True)[1] for values in (a, b)]
    mean_ranks = [(np.cumsum(np.bincount(r)) - (np.bincount(r) - 1) / 2)[r] for r in ranks]
    return float(np.corrcoef(*mean_ranks)[0, 1])


def print_measures(name: Any, counts: np.ndarray, last: str) -> None:
    measures = (ops.hubness_skewness(counts), ops.robin_hood_index(counts), ops.antihub_rate(counts))
    print(f"| {name} | {' | '.join(f'{value:.3f}' for value in measures)} | {counts.max()} | {last} |")


def draw_ball(axes: Any) -> None:
    dims = np.arange(1, 21)
    axes.semilogy(dims, ball_in_cube(dims), "o-")
    axes.set(title="volume of the ball in a cube", xlabel="dimensions", xticks=dims[1::2], ylabel="share")


def draw_histograms(axes: Any, counts: dict[int, np.ndarray]) -> None:
    for dim, values in counts.items():
        sizes, points = np.unique(values, return_counts=True)
        axes.loglog(sizes + 1, points, ".", label=f"{dim} dimensions", alpha=0.7)
    axes.set(title=f"how often a point is a neighbour, k = {K}", xlabel="$N_k + 1$", ylabel="points")
    axes.legend()


def draw_centrality(axes: Any, x: np.ndarray, counts: np.ndarray) -> None:
    axes.plot(distance_to_mean(x), counts, ".", markersize=2)
    axes.set(title=f"hubs are near the mean, {x.shape[1]} dimensions", xlabel="distance to the mean", ylabel="$N_k$")


def draw_reductions(axes: Any, skewness: dict[str, float]) -> None:
    axes.barh(list(skewness), list(skewness.values()))
    axes.invert_yaxis()
    axes.set(title="skewness of $N_k$ with secondary distances")


def distance_to_mean(x: np.ndarray) -> np.ndarray:
    return np.linalg.norm(x - x.mean(axis=0), axis=1)


def main() -> None:
    parser = base_parser(__doc__, "hubness")
    parser.add_argument("--n", type=as_count, default=10_000, help="points drawn")
    parser.add_argument("--dims", type=as_count, nargs="+", default=[3, 10, 100, 500])
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)

    print(
        f"| dimensions | skewness | Robin Hood | anti-hubs | largest of {arguments.n} | correlation with the distance |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    counts = {}
    for dim in arguments.dims:
        x = np.random.default_rng([arguments.seed, dim]).standard_normal((arguments.n, dim), dtype="float32")
        counts[dim] = ops.k_occurrence(x, K)
        print_measures(dim, counts[dim], f"{rank_correlation(counts[dim], distance_to_mean(x)):.3f}")

    few = np.random.default_rng(arguments.seed).standard_normal((min(2000, arguments.n), 100))
    print(f"\n| {len(few)} points, 100 dimensions | skewness | Robin Hood | anti-hubs | largest | k |")
    print("| --- | --- | --- | --- | --- | --- |")
    skewness = {}
    for name, reduce in REDUCTIONS.items():
        reduced = ops.k_occurrence(reduce(few), K, metric="precomputed")
        skewness[name] = ops.hubness_skewness(reduced)
        print_measures(name, reduced, str(K))

    save_panels(
        arguments.output / "hubness.png",
        [
            draw_ball,
            lambda axes: draw_histograms(axes, counts),
            lambda axes: draw_centrality(axes, x, counts[dim]),
            lambda axes: draw_reductions(axes, skewness),
        ],
    )


if __name__ == "__main__":
    main()
