import math
from collections.abc import Iterator
from typing import Any, ClassVar

import keras
import numpy as np

from keras_gen.core.checks import check_integer, check_integer_or_none
from keras_gen.evaluation.feature_metric import FeatureMetric, FeatureSet
from keras_gen.export import keras_gen_export

BLOCK_SIZE = 1024


@keras_gen_export("keras_gen.metrics.KernelDistance")
class KernelDistance(FeatureMetric):
    """Unbiased squared distance between data and samples by a cubic kernel of their features, known as KID.

        mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j)
        k(x, y) = (x . y / num_features + 1)^3

    It is the maximum mean discrepancy of the kernel. Its expectation does not depend on the number of samples, unlike
    that of the Frechet distance, so that sets of different sizes can be compared; for equal distributions it is 0, and
    single values may be negative. Features are kept until `reset_state`; the kernel is computed in blocks, in float64.

    Args:
        feature_model: a Keras layer or model from data to features, or `None`: the data themselves. All axes but the
            batch are flattened.
        subset_size: int >= 2 or `None`. Size of random subsets of data and of samples; the mean over `subsets` of them
            takes less time than all pairs of large sets. Defaults to `None`, all pairs.
        subsets: int >= 1. Number of subsets. Defaults to `100`.
        seed: int >= 0. Seed of the subsets. Defaults to `0`.
        name: str or `None`. Defaults to `None`.
        batch_size: int >= 1. Number of samples that go through the feature model at a time. Defaults to `64`.

    Raises:
        ValueError: if an argument is outside its range; in `update_state`, if features are not finite or their
            number differs; in `result`, if there are fewer than `subset_size`, or 2, samples of a kind.

    Example:

    >>> metric = keras_gen.metrics.KernelDistance(classifier_without_its_last_layer)
    >>> metric.update_state(images, model.sample(1000))
    >>> metric.result()                                    # a float, about 0 for samples like the data

    Reference: Binkowski et al. 2018, arXiv:1801.01401.
    """

    worst: ClassVar[dict[str, float]] = {"kernel": math.inf}

    def __init__(
        self,
        feature_model: keras.Layer | None,
        subset_size: int | None = None,
        subsets: int = 100,
        seed: int = 0,
        name: str | None = None,
        dtype: Any = None,
        batch_size: int = 64,
    ):
        super().__init__(feature_model, name, dtype, batch_size)
        self.subset_size = check_integer_or_none("subset_size", subset_size, at_least=2)
        self.subsets = check_integer("subsets", subsets)
        self.seed = check_integer("seed", seed, at_least=0)

    def fewest(self) -> tuple[int, str]:
        return super().fewest() if self.subset_size is None else (self.subset_size, f"subset_size = {self.subset_size}")

    def compare(self, real: FeatureSet, generated: FeatureSet) -> float:
        pairs = self._subsets(real.array().astype("float64"), generated.array().astype("float64"))
        return float(np.mean([squared_discrepancy(x, y) for x, y in pairs]))

    def _subsets(self, x: np.ndarray, y: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        if self.subset_size is None:
            yield x, y
            return
        rng = np.random.default_rng(self.seed)
        for _ in range(self.subsets):
            rows, others = (rng.choice(len(each), self.subset_size, replace=False) for each in (x, y))
            yield x[rows], y[others]

    def get_config(self) -> dict[str, Any]:
        own = {"subset_size": self.subset_size, "subsets": self.subsets, "seed": self.seed}
        return {**super().get_config(), **own}


def squared_discrepancy(x: np.ndarray, y: np.ndarray) -> float:
    """Returns the unbiased estimate of the squared maximum mean discrepancy of two sets of float64 features."""
    within = [(kernel_sum(z, z) - cubic(np.square(z).mean(axis=1)).sum()) / (len(z) * (len(z) - 1)) for z in (x, y)]
    return sum(within) - 2 * kernel_sum(x, y) / (len(x) * len(y))


def kernel_sum(x: np.ndarray, y: np.ndarray) -> float:
    """Returns the sum of k(x_i, y_j) over all pairs."""
    blocks = np.array_split(x, -(-len(x) // BLOCK_SIZE))
    return sum(float(cubic(block @ y.T / x.shape[1]).sum()) for block in blocks)


def cubic(mean_product: np.ndarray) -> np.ndarray:
    """Returns the kernel of pairs, given the means over the features of their products."""
    return (mean_product + 1) ** 3
