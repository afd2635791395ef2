from typing import Any

import numpy as np

from keras_gen.core.checks import check, real_array
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.metrics.cluster_accuracy")
def cluster_accuracy(clusters: Any, labels: Any, reference: tuple[Any, Any] | None = None) -> float:
    """Computes the fraction of samples whose label is the most frequent one of their cluster.

        mean_i [label_i = argmax_y #{j in reference: cluster_j = cluster_i, label_j = y}]

    Several clusters may have one label, so the accuracy is meaningful only if there are about as many clusters as
    labels. Without a `reference` it is also known as purity.

    Args:
        clusters: integers `(n,)`.
        labels: integers `(n,)`, >= 0.
        reference: `(clusters, labels)` that determine the label of each cluster, such as those of the training data;
            clusters without a label count as wrong. Defaults to `None`, the same data.

    Returns:
        A float in [0, 1].

    Raises:
        ValueError: if clusters and labels are not integers of the same shape.

    Reference: https://kexue.fm/archives/5887.
    """
    clusters, labels = _pair("clusters", clusters, labels)
    known, known_labels = (clusters, labels) if reference is None else _known(reference)
    counts = np.zeros((max(clusters.max(), known.max()) + 1, max(labels.max(), known_labels.max()) + 1), int)
    np.add.at(counts, (known, known_labels), 1)
    named = np.where(counts.any(axis=1), counts.argmax(axis=1), -1)
    return float(np.mean(named[clusters] == labels))


def _known(reference: Any) -> tuple[np.ndarray, np.ndarray]:
    is_pair = isinstance(reference, tuple | list) and len(reference) == 2
    check(is_pair, "reference", "be a pair (clusters, labels) or None", reference)
    return _pair("reference", *reference)


def _pair(name: str, clusters: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    clusters, labels = real_array(name, clusters), real_array("labels", labels)
    integers = clusters.dtype.kind in "iu" and labels.dtype.kind in "iu"
    is_pair = integers and clusters.shape == labels.shape and clusters.ndim == 1 and len(clusters) > 0
    shapes = f"{clusters.dtype} {clusters.shape} and {labels.dtype} {labels.shape}"
    check(is_pair, name, "be integers of shape (n,), like labels", shapes)
    check(min(clusters.min(), labels.min()) >= 0, name, "be >= 0, like labels", min(clusters.min(), labels.min()))
    return clusters, labels
