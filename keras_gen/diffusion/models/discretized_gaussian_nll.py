import math
from typing import Any

from keras import ops

from keras_gen.core.checks import check_integer
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.losses.discretized_gaussian_nll")
def discretized_gaussian_nll(x: Any, mean: Any, log_var: Any, levels: int = 256) -> Any:
    """Computes minus the logarithm of the probability that a Gaussian gives to the bin around `x`, in nats.

        -log P(x - h < X < x + h),   X ~ N(mean, exp(log_var)),   h = 1 / (levels - 1)

    The bins of the `levels` pixel values fill [-1, 1]; the first and last one reach to infinity.

    Args:
        x: float tensor of pixel values in [-1, 1].
        mean: tensor that broadcasts to `x`.
        log_var: tensor that broadcasts to `x`, or a number.
        levels: int >= 2, number of distinct pixel values. Defaults to `256`.

    Returns:
        float32 tensor of the shape of `x`.

    Raises:
        ValueError: if `levels` is not an integer >= 2.

    Reference: Ho et al. 2020, arXiv:2006.11239, equation 13.
    """
    check_integer("levels", levels, at_least=2)
    x = ops.cast(x, "float32")
    h = 1 / (levels - 1)
    scale = ops.exp(-0.5 * log_var)
    offset = x - mean
    # Both ends of the bin are taken from the lower tail, where erfc keeps its relative precision.
    inner = _cdf((h - ops.abs(offset)) * scale) - _cdf((-h - ops.abs(offset)) * scale)
    first, last = _cdf((offset + h) * scale), _cdf((h - offset) * scale)
    probability = ops.where(x < -1 + h, first, ops.where(x > 1 - h, last, inner))
    return -ops.log(ops.maximum(probability, 1e-30))


def _cdf(x: Any) -> Any:
    return 0.5 * ops.erfc(-x / math.sqrt(2))
