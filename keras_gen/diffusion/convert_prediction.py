from typing import Any

from keras_gen.core.checks import check_choice
from keras_gen.export import keras_gen_export

PREDICTIONS = ("epsilon", "x0", "v")


@keras_gen_export("keras_gen.ops.convert_prediction")
def convert_prediction(value: Any, source: str, target: str, x_t: Any, alpha: Any, sigma: Any) -> Any:
    """Turns what a network predicts into another prediction, given `x_t = alpha x0 + sigma eps`.

        epsilon:  x0 = (x_t - sigma eps) / alpha
        x0:       eps = (x_t - alpha x0) / sigma
        v = alpha eps - sigma x0:
                  x0 = (alpha x_t - sigma v) / r,   eps = (sigma x_t + alpha v) / r,   r = alpha^2 + sigma^2

    Args:
        value: the prediction, of the shape of `x_t`.
        source: `"epsilon"`, `"x0"` or `"v"`: what `value` is.
        target: `"epsilon"`, `"x0"` or `"v"`: what to return.
        x_t: noised data `(batch, ...)`, NumPy or tensor.
        alpha: factor of the data, a number or broadcastable to `x_t`. Not 0 if `source` is `"epsilon"`.
        sigma: factor of the noise, likewise. Not 0 if `source` is `"x0"` and `target` is not.

    Returns:
        The `target` prediction, of the shape of `x_t`.

    Raises:
        ValueError: if `source` or `target` is unknown.

    Reference: Salimans and Ho 2022, arXiv:2202.00512, appendix D.
    """
    check_choice("source", source, PREDICTIONS)
    check_choice("target", target, PREDICTIONS)
    if source == target:
        return value
    if target == "x0":
        return _x0(value, source, x_t, alpha, sigma)
    if target == "epsilon":
        return _epsilon(value, source, x_t, alpha, sigma)
    return alpha * _epsilon(value, source, x_t, alpha, sigma) - sigma * _x0(value, source, x_t, alpha, sigma)


def _x0(value: Any, source: str, x_t: Any, alpha: Any, sigma: Any) -> Any:
    if source == "x0":
        return value
    if source == "epsilon":
        return (x_t - sigma * value) / alpha
    return (alpha * x_t - sigma * value) / (alpha**2 + sigma**2)


def _epsilon(value: Any, source: str, x_t: Any, alpha: Any, sigma: Any) -> Any:
    if source == "epsilon":
        return value
    if source == "x0":
        return (x_t - alpha * value) / sigma
    return (sigma * x_t + alpha * value) / (alpha**2 + sigma**2)
