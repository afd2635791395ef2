from collections.abc import Iterator
from typing import Any, ClassVar

import keras
import numpy as np

from keras_gen.core.checks import check_integer
from keras_gen.evaluation.feature_metric import FeatureMetric, FeatureSet
from keras_gen.export import keras_gen_export
from keras_gen.hubness.neighbors import Index, in_range, nearest_neighbors, nearest_program, precise_search

CANDIDATES = 4  # balls checked precisely for each sample, after the ranking by products
BLOCK_SIZE = 1024
ROUNDING = 1e-9  # of squared distances computed by products in float64, relative to the largest of them


class BallMetric(FeatureMetric):
    """Base class of metrics of balls around points, which extend to the k-th neighbour of the point's own kind."""

    def __init__(
        self,
        feature_model: keras.Layer | None,
        k: int,
        name: str | None = None,
        dtype: Any = None,
        batch_size: int = 64,
    ):
        super().__init__(feature_model, name, dtype, batch_size)
        self.k = check_integer("k", k)

    def fewest(self) -> tuple[int, str]:
        return self.k + 1, f"k + 1 = {self.k + 1}"

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "k": self.k}


@keras_gen_export("keras_gen.metrics.PrecisionRecall")
class PrecisionRecall(BallMetric):
    """Precision and recall of samples: their fidelity, and their coverage of the data.

        precision = fraction of samples in the union of balls around the data
        recall    = fraction of data in the union of balls around the samples

    The radius of a ball is the distance to the point's k-th nearest neighbour of its own kind, in feature space. Good
    samples without diversity (mode collapse) have high precision and low recall. Both depend on the number of samples:
    compare sets of equal size. Features are kept until `reset_state`; `result` computes distances in blocks.

    Args:
        feature_model: a Keras layer or model from data to features, or `None`: the data themselves. All axes but the
            batch are flattened.
        k: int >= 1. Defaults to `3`.
        name: str or `None`. Defaults to `None`.
        batch_size: int >= 1. Number of samples that go through the feature model at a time. Defaults to `64`.

    Raises:
        ValueError: if an argument is outside its range; in `update_state`, if features are not finite or their
            number differs; in `result`, if there are fewer than k + 1 samples of a kind.

    Example:

    >>> metric = keras_gen.metrics.PrecisionRecall(classifier_without_its_last_layer)
    >>> metric.update_state(images, model.sample(len(images)))
    >>> metric.result()                                    # {"precision": 0.9, "recall": 0.7}

    Reference: Kynkaanniemi et al. 2019, arXiv:1904.06991.
    """

    worst: ClassVar[dict[str, float]] = {"precision": 0.0, "recall": 0.0}

    def __init__(
        self,
        feature_model: keras.Layer | None,
        k: int = 3,
        name: str | None = None,
        dtype: Any = None,
        batch_size: int = 64,
    ):
        super().__init__(feature_model, k, name, dtype, batch_size)

    def compare(self, real: FeatureSet, generated: FeatureSet) -> dict[str, float]:
        x, y = real.array(), generated.array()
        return {"precision": fraction_in_balls(y, x, self.k), "recall": fraction_in_balls(x, y, self.k)}


@keras_gen_export("keras_gen.metrics.DensityCoverage")
class DensityCoverage(BallMetric):
    """Density and coverage of samples: their fidelity and diversity, by balls around the data alone.

        density  = mean over samples of the number of balls around the data that hold the sample, divided by k
        coverage = fraction of balls around the data that hold a sample

    The radius of a ball is the distance to the point's k-th nearest neighbour of its own kind, in feature space. No
    ball is drawn around samples, so that a few far samples do not count for much, as they do for recall. For samples
    like the data the density is about 1, and it may exceed 1; the coverage of n of each is about 1 - 2^-k. Features are
    kept until `reset_state`; `result` computes distances in blocks.

    Args:
        feature_model: a Keras layer or model from data to features, or `None`: the data themselves. All axes but the
            batch are flattened.
        k: int >= 1. Defaults to `5`.
        name: str or `None`. Defaults to `None`.
        batch_size: int >= 1. Number of samples that go through the feature model at a time. Defaults to `64`.

    Raises:
        ValueError: if an argument is outside its range; in `update_state`, if features are not finite or their
            number differs; in `result`, if there are fewer than k + 1 samples of a kind.

    Example:

    >>> metric = keras_gen.metrics.DensityCoverage(classifier_without_its_last_layer)
    >>> metric.update_state(images, model.sample(len(images)))
    >>> metric.result()                                    # {"density": 0.8, "coverage": 0.7}

    Reference: Naeem et al. 2020, arXiv:2002.09797.
    """

    worst: ClassVar[dict[str, float]] = {"density": 0.0, "coverage": 0.0}

    def __init__(
        self,
        feature_model: keras.Layer | None,
        k: int = 5,
        name: str | None = None,
        dtype: Any = None,
        batch_size: int = 64,
    ):
        super().__init__(feature_model, k, name, dtype, batch_size)

    def compare(self, real: FeatureSet, generated: FeatureSet) -> dict[str, float]:
        x, y = real.array().astype("float64"), generated.array().astype("float64")
        holds, covered = 0, np.zeros(len(x), bool)
        for inside in in_balls(y, x, self.k):
            holds += int(np.count_nonzero(inside))
            covered |= inside.any(axis=0)
        return {"density": holds / (self.k * len(y)), "coverage": float(covered.mean())}


def fraction_in_balls(queries: np.ndarray, points: np.ndarray, k: int) -> float:
    """Returns the fraction of queries inside the ball of any point, which extends to its k-th neighbour."""
    _, [queries, points] = in_range(queries, points)
    reach = nearest_neighbors(points, k=k, block_size=BLOCK_SIZE)[0][:, -1]
    # The minimum of |q - x|^2 - reach decides; the ranking has rounding errors, so the best few are checked.
    program = nearest_program(min(CANDIDATES, len(points)))
    distances, indices, beyond = Index(points, reach).search(program, queries, BLOCK_SIZE, 0)
    inside = (distances <= reach[indices]).any(axis=1)
    unsure = np.flatnonzero(~inside & (beyond <= 0))
    for rows, squares in precise_search(queries, points, unsure, BLOCK_SIZE):
        inside[rows] = (squares <= reach).any(axis=1)
    return float(inside.mean())


def in_balls(queries: np.ndarray, points: np.ndarray, k: int) -> Iterator[np.ndarray]:
    """Yields for blocks of queries whether each is in each point's ball, which extends to its k-th neighbour.

    Args:
        queries: float64 array `(m, num_features)`.
        points: float64 array `(n, num_features)`.
        k: int, 1 <= k < n.

    Yields:
        bool arrays `(block, n)`.
    """
    neighbors = nearest_neighbors(points, k=k, block_size=BLOCK_SIZE)[1][:, -1]
    reach = np.square(points - points[neighbors]).sum(axis=1)
    for rows, squares in precise_search(queries, points, np.arange(len(queries)), BLOCK_SIZE):
        inside = squares <= reach
        # Copies lie on the very surface of balls: where rounding decides, differences do, as they did for the radii.
        unsure = np.abs(squares - reach) <= ROUNDING * squares.max()
        for row in np.flatnonzero(unsure.any(axis=1)):
            near = np.flatnonzero(unsure[row])
            inside[row, near] = np.square(points[near] - queries[rows[row]]).sum(axis=1) <= reach[near]
        yield inside
