import math
from typing import Any, ClassVar

import numpy as np

from keras_gen.core.checks import check, finite_array
from keras_gen.evaluation.feature_metric import FeatureMetric
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.metrics.frechet_distance")
def frechet_distance(x: Any, y: Any) -> float:
    """Computes the squared Frechet distance between Gaussians fitted to two sets of features.

        |mean_x - mean_y|^2 + tr(C_x + C_y - 2 (C_x C_y)^(1/2))

    It is biased upwards for few samples: compare sets of equal size.

    Args:
        x: `(n, ...)`, features of n >= 2 samples; all axes but the first are flattened.
        y: `(m, ...)`, features of m >= 2 samples, the same number per sample.

    Returns:
        float >= 0, in squared units of the features.

    Raises:
        ValueError: if a set has fewer than 2 samples, is not of finite real numbers, or the numbers of features differ.

    Reference: Heusel et al. 2017, arXiv:1706.08500.
    """
    x, y = finite_array("x", x), finite_array("y", y)
    for name, features in {"x": x, "y": y}.items():
        is_set = features.ndim > 0 and len(features) > 1 and features.size > 0
        check(is_set, name, "hold at least 2 samples", f"shape {features.shape}")
    moments_x, moments_y = Moments(), Moments()
    moments_x.add(np.reshape(x, (len(x), -1)))
    moments_y.add(np.reshape(y, (len(y), -1)))
    shape = moments_x.mean.shape
    check(moments_y.mean.shape == shape, "y", f"have {shape[0]} features like x", f"shape {y.shape}")
    return moments_x.distance(moments_y)


class Moments:
    """Running mean and covariance in float64, for any split into batches."""

    def __init__(self) -> None:
        self.n = 0
        self.mean: Any = 0.0
        self.scatter: Any = 0.0  # sum of (x - mean)(x - mean)^T

    def add(self, x: np.ndarray) -> None:
        """Adds samples `(batch, features)`, centered at the mean of the batch to avoid cancellation."""
        x = np.asarray(x, "float64")
        n, mean = len(x), x.mean(axis=0)
        step = mean - self.mean
        centered = x - mean
        total = self.n + n
        self.scatter = self.scatter + centered.T @ centered + np.outer(step, step) * (self.n * n / total)
        self.mean = self.mean + step * (n / total)
        self.n = total

    def distance(self, other: "Moments") -> float:
        """Returns the squared Frechet distance to the other Gaussian."""
        cov_x, cov_y = self.scatter / (self.n - 1), other.scatter / (other.n - 1)
        # tr (C_x C_y)^(1/2) = tr (R C_y R)^(1/2) with R the symmetric root of C_x: only symmetric eigenvalue problems.
        values, vectors = np.linalg.eigh(cov_x)
        root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
        cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ cov_y @ root), 0)).sum()
        gap = np.square(self.mean - other.mean).sum()
        return float(max(gap + np.trace(cov_x) + np.trace(cov_y) - 2 * cross, 0.0))


@keras_gen_export("keras_gen.metrics.FrechetDistance")
class FrechetDistance(FeatureMetric):
    """Squared Frechet distance between features of data and of samples, accumulated over batches.

        |mean_x - mean_y|^2 + tr(C_x + C_y - 2 (C_x C_y)^(1/2))

    Only the means and covariances since the last `reset_state` are kept, in float64. The distance is biased upwards for
    few samples: compare sets of equal size. It depends on the features: say which, beside the number. With those of
    `models.FIDInception` it is the Frechet Inception distance (FID) of papers; `keras.applications.InceptionV3` has
    others.

    Args:
        feature_model: a Keras layer or model from data to features, or `None`: the data themselves. All axes but the
            batch are flattened.
        name: str or `None`. Defaults to `None`.
        batch_size: int >= 1. Number of samples that go through the feature model at a time. Defaults to `64`.

    Raises:
        ValueError: if an argument is invalid; in `update_state`, if features are not finite or their number differs; in
            `result`, if there are fewer than 2 samples of a kind.

    Example:

    >>> metric = keras_gen.metrics.FrechetDistance(classifier_without_its_last_layer)
    >>> metric.update_state(images, model.sample(len(images)))
    >>> metric.result()                                    # a float >= 0

    Reference: Heusel et al. 2017, arXiv:1706.08500.
    """

    worst: ClassVar[dict[str, float]] = {"frechet": math.inf}

    def new_set(self) -> Moments:
        return Moments()

    def compare(self, real: Moments, generated: Moments) -> float:
        return real.distance(generated)
