"""Distances of features against those of another library, of the same features."""

import numpy as np
import pytest

from keras_gen.metrics import FrechetDistance, KernelDistance

torch = pytest.importorskip("torch")
fid = pytest.importorskip("torchmetrics.image.fid")
kid = pytest.importorskip("torchmetrics.image.kid")


class Flatten(torch.nn.Module):
    num_features = 48

    def forward(self, x):
        return x.flatten(1)


@pytest.fixture
def images(rng):
    real, generated = rng.normal(size=(700, 4, 4, 3)), rng.normal(0.1, 1.1, (700, 4, 4, 3))
    return real.astype("float32"), generated.astype("float32")


def peers(metric, images):
    """The peer's value, in float64, of images with their channels first."""
    metric.set_dtype(torch.float64)
    for x, real in zip(images, (True, False), strict=True):
        metric.update(torch.tensor(np.moveaxis(x, -1, 1), dtype=torch.float64), real=real)
    return metric.compute()


def ours(metric, images):
    metric.update_state(*images)
    return metric.result()


def test_frechet_distance(images):
    expected = peers(fid.FrechetInceptionDistance(Flatten()), images)
    assert ours(FrechetDistance(None), images) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance`")
def test_kernel_distance(images):
    expected, _ = peers(kid.KernelInceptionDistance(Flatten(), subsets=1, subset_size=700), images)
    assert ours(KernelDistance(None), images) == pytest.approx(float(expected), rel=1e-6)
    expected, spread = peers(kid.KernelInceptionDistance(Flatten(), subsets=100, subset_size=100), images)
    subsets = ours(KernelDistance(None, subset_size=100), images)  # of other draws
    assert abs(subsets - float(expected)) < 4 * float(spread) * (2 / 100) ** 0.5
