from typing import Any

import keras

LARGE = 2**24  # multiplications; smaller products are over before the other kernel has started


def product(x: Any, y: Any) -> Any:
    """Computes `x @ y` of matrices.

    PyTorch's own product on a CPU is MKL's, which runs at less than half the speed of oneDNN on processors of AMD.
    Large float32 products are therefore the same sums as a convolution of 1 x 1 pixels, which is oneDNN's.

    Args:
        x: `(n, dim)`.
        y: `(dim, m)`.

    Returns:
        `(n, m)`.
    """
    return _as_convolution(x, y) if keras.backend.backend() == "torch" and _applies(x, y) else x @ y


def _applies(x: Any, y: Any) -> bool:
    import torch

    plain = x.ndim == 2 and x.dtype == y.dtype == torch.float32 and x.device.type == "cpu"
    return plain and x.shape[0] * x.shape[1] * y.shape[1] >= LARGE and _has_onednn()


def _has_onednn() -> bool:
    from torch.backends import mkldnn

    return mkldnn.is_available() and mkldnn.enabled


def _as_convolution(x: Any, y: Any) -> Any:
    from torch.nn import functional

    pixels = x[None, :, None].permute(0, 3, 1, 2)
    return functional.conv2d(pixels, y.t()[:, :, None, None])[0, :, :, 0].t()
