from typing import Any

import keras
import numpy as np

from keras_gen.core.checks import check, check_integer
from keras_gen.evaluation.feature_metric import KINDS, FeatureMetric
from keras_gen.export import keras_gen_export
from keras_gen.hubness.neighbors import Index, in_range, nearest_neighbors, nearest_program, precise_search

CANDIDATES = 4  # balls checked precisely for each sample, after the ranking by products
BLOCK_SIZE = 1024


@keras_gen_export("keras_gen.metrics.PrecisionRecall")
class PrecisionRecall(FeatureMetric):
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

    Raises:
        ValueError: if an argument is outside its range; in `update_state`, if features are not finite or their
            number differs; in `result`, if there are fewer than k + 1 samples of a kind.

    Example:

    >>> metric = keras_gen.metrics.PrecisionRecall(classifier_without_its_last_layer)
    >>> metric.update_state(images, model.sample(len(images)))
    >>> metric.result()                                    # {"precision": 0.9, "recall": 0.7}

    Reference: Kynkaanniemi et al. 2019, arXiv:1904.06991.
    """

    def __init__(self, feature_model: keras.Layer | None, k: int = 3, name: str | None = None, dtype: Any = None):
        super().__init__(feature_model, name, dtype)
        self.k = check_integer("k", k)

    def reset_state(self) -> None:
        super().reset_state()
        self.batches: dict[str, list[np.ndarray]] = {name: [] for name in KINDS}

    def collect(self, name: str, features: np.ndarray) -> None:
        self.batches[name].append(features)

    def result(self) -> dict[str, float]:
        for name, batches in self.batches.items():
            n = sum(map(len, batches))
            check(n > self.k, name, f"have at least k + 1 = {self.k + 1} samples in total", n)
        real, generated = (np.concatenate(self.batches[name]) for name in KINDS)
        precision, recall = fraction_in_balls(generated, real, self.k), fraction_in_balls(real, generated, self.k)
        return {"precision": precision, "recall": recall}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "k": self.k}


def fraction_in_balls(queries: np.ndarray, points: np.ndarray, k: int) -> float:
    """Returns the fraction of queries inside the ball of any point, which extends to its k-th neighbour."""
    _, [queries, points] = in_range(queries, points)
    reach = nearest_neighbors(points, k=k, block_size=BLOCK_SIZE)[0][:, -1]
    # The minimum of |q - x|^2 - reach decides; the ranking has rounding errors, so the best few are checked.
    blocks = Index(points, reach).search(nearest_program(min(CANDIDATES, len(points))), queries, BLOCK_SIZE, 0)
    distances, indices, beyond = (np.concatenate(parts)[: len(queries)] for parts in zip(*blocks, strict=True))
    inside = (distances <= reach[indices]).any(axis=1)
    unsure = np.flatnonzero(~inside & (beyond <= 0))
    for rows, squares in precise_search(queries, points, unsure, BLOCK_SIZE):
        inside[rows] = (squares <= reach).any(axis=1)
    return float(inside.mean())
