from typing import Any

import numpy as np

from keras_gen.core.checks import check
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.metrics.frechet_distance")
def frechet_distance(x: Any, y: Any) -> float:
    """Computes the squared Frechet distance between Gaussians fitted to two sets of features.

        |mean_x - mean_y|^2 + tr(C_x + C_y - 2 (C_x C_y)^(1/2))

    Its value falls with the number of samples even for equal distributions: compare sets of one size.

    Args:
        x: `(n, ...)`, features of n >= 2 samples; what follows the first axis is flattened.
        y: `(m, ...)`, features of m >= 2 samples, as many for each.

    Returns:
        float >= 0, in the squared unit of the features.

    Raises:
        ValueError: if a set has fewer than 2 samples or the numbers of features differ.

    Reference: Heusel et al. 2017, arXiv:1706.08500.
    """
    x, y = (np.asarray(a, "float64").reshape(len(a), -1) for a in (x, y))
    check(len(x) > 1, "x", "hold at least 2 samples", f"shape {x.shape}")
    check(len(y) > 1, "y", "hold at least 2 samples", f"shape {y.shape}")
    check(x.shape[1] == y.shape[1], "y", f"have {x.shape[1]} features like x", f"shape {y.shape}")
    cov_x, cov_y = np.atleast_2d(np.cov(x, rowvar=False)), np.atleast_2d(np.cov(y, rowvar=False))
    # tr (C_x C_y)^(1/2) = tr (R C_y R)^(1/2) with R the symmetric root of C_x: only symmetric eigenvalue problems.
    values, vectors = np.linalg.eigh(cov_x)
    root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ cov_y @ root), 0)).sum()
    gap = np.square(x.mean(axis=0) - y.mean(axis=0)).sum()
    return float(max(gap + np.trace(cov_x) + np.trace(cov_y) - 2 * cross, 0.0))
