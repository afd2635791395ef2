"""The error rate itself as a loss: that of a decision under noise."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.checks import (
    check,
    check_entries,
    check_finite,
    check_positive,
    is_numpy,
    real_tensor,
    same_shape,
)
from keras_gen.core.logits import logits_tensor
from keras_gen.export import keras_gen_export

# E f(t) = sum_k w_k f(t_k) for t ~ N(0, 1). With 64 nodes the accuracy of 1000 equal logits, 0.001, is right to 1.3e-6.
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(64)
LOG_WEIGHTS = np.log(WEIGHTS) - 0.5 * math.log(2 * math.pi)
FAR = 1e3  # standard deviations: Phi is 0 or 1 in float32 long before
# log Phi(-z) = -z^2 / 2 + log u + P(u), u = 1 / (1 + 0.35 z), z >= 0: P is fitted, to 1.3e-7.
TAIL = (
    *(-1.9687608, 1.0000303, 0.3764022, 0.1039244, -0.1921919),
    *(0.3173994, -1.1878605, 1.5055015, -0.8138204, 0.1662286),
)


@keras_gen_export("keras_gen.losses.ExpectedError")
class ExpectedError(keras.losses.Loss):
    """Expected error of a classifier whose logits are disturbed by Gaussian noise: 1 minus its expected accuracy.

        L = 1 - P(s_y + sigma e_y > s_i + sigma e_i for all i != y),   e ~ N(0, I)
          = 1 - E prod_{i != y} Phi(t + (s_y - s_i) / sigma),   t ~ N(0, 1)

    The integral over t and its gradient are computed by Gauss-Hermite quadrature with 64 nodes, without random numbers.
    As sigma tends to 0, L tends to the error rate, and its gradient to 0 except near the decision boundary. With Gumbel
    noise the accuracy would be the softmax: L is a relative of `1 - p_y` rather than of `-log p_y`. It is bounded, so
    that a mislabelled sample has little influence, but a sample that is far on the wrong side hardly moves: if training
    does not get started, begin with the cross-entropy.

    The loss takes 64 times the memory of the logits.

    Args:
        sigma: float > 0, standard deviation of the noise, in units of the logits. Defaults to `1.0`.
        name: str. Defaults to `"expected_error"`.
        **kwargs: `reduction` and `dtype` of `keras.losses.Loss`.

    Raises:
        ValueError: if `sigma` is not positive and finite. When called: if there are fewer than two classes, the shapes
            do not match, or an array holds labels that are neither one-hot nor integers in 0 .. classes - 1, or logits
            that are NaN or +inf. A logit of -inf rules a class out, which must not be the label. Of tensors the values
            are not checked: labels of another kind make the loss NaN.

    Example:

    >>> loss = keras_gen.losses.ExpectedError(sigma=1.0)
    >>> loss([0], [[1.0, 0.0]])              # 0.2397501, of labels (batch,) and logits (batch, classes)
    >>> loss([[1, 0]], [[1.0, 0.0]])         # the same
    >>> model.compile("adam", loss=loss)     # of a network without a last activation

    Reference: Karpukhin et al. 2022, arXiv:2205.09615; https://kexue.fm/archives/9098.
    """

    def __init__(self, sigma: float = 1.0, name: str = "expected_error", **kwargs: Any):
        super().__init__(name=name, **kwargs)
        self.sigma = check_positive("sigma", sigma)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        # `call` gets tensors, perhaps of a compiled step; here the values of arrays can still be read.
        check_finite("y_true", y_true)
        labels, logits = real_tensor("y_true", y_true), logits_tensor("y_pred", y_pred)
        if is_numpy(y_true):
            is_valid = ops.convert_to_numpy(_is_one_hot(_one_hot(labels, logits)))
            check_entries("y_true", y_true, is_valid, f"be one-hot, or integers in 0 .. {logits.shape[-1] - 1}")
        # A tensor as it was given: the mask of a layer before is an attribute of it.
        return super().__call__(labels, logits if is_numpy(y_pred) else y_pred, sample_weight)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        s = logits_tensor("y_pred", y_pred)
        one_hot = _one_hot(y_true, s)
        is_label = ops.equal(one_hot, 1.0)
        s_y = ops.sum(ops.where(is_label, s, 0.0), axis=-1, keepdims=True)
        margins = ops.clip((s_y - s) / self.sigma, -FAR, FAR)
        per_node = (-1, *(1 for _ in s.shape))
        t = ops.reshape(ops.convert_to_tensor(NODES, "float32"), per_node)
        log_weights = ops.reshape(ops.convert_to_tensor(LOG_WEIGHTS, "float32"), per_node[:-1])
        log_products = ops.sum(ops.where(is_label, 0.0, _log_phi(t + margins)), axis=-1)  # (nodes, ...)
        accuracy = ops.sum(ops.exp(log_weights + log_products), axis=0)
        return ops.where(_is_one_hot(one_hot), 1.0 - accuracy, math.nan)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "sigma": self.sigma}


def _one_hot(y: Any, s: Any) -> Any:
    """Returns labels of logits `s` as float32 `(..., classes)`, all 0 for integers that are no class."""
    shape, classes = tuple(s.shape), s.shape[-1]
    check(classes > 1, "y_pred", "have at least 2 classes", f"shape {shape}")
    given = tuple(y.shape)
    is_labels = any(same_shape(given, one) for one in (shape, shape[:-1], (*shape[:-1], 1)))
    check(is_labels, "y_true", f"have shape {shape[:-1]} or {shape}", f"shape {given}")
    y = ops.cast(y, "float32")
    if same_shape(given, shape):
        return y
    column = y if len(given) == len(shape) else ops.expand_dims(y, -1)
    return ops.cast(ops.equal(column, ops.arange(classes, dtype="float32")), "float32")


def _is_one_hot(y: Any) -> Any:
    return ops.logical_and(ops.equal(ops.max(y, axis=-1), 1.0), ops.equal(ops.sum(ops.abs(y), axis=-1), 1.0))


def _log_phi(x: Any) -> Any:
    """Computes the logarithm of the normal distribution function, in float32 and far into the tails."""
    z = ops.where(x < 0, -x, x)  # |x|, with a derivative at 0
    u = 1.0 / (1.0 + 0.35 * z)
    polynomial = TAIL[-1]
    for coefficient in TAIL[-2::-1]:
        polynomial = polynomial * u + coefficient
    log_tail = ops.log(u) + polynomial - 0.5 * ops.square(z)  # log Phi(-z)
    return ops.where(x < 0, log_tail, ops.log1p(-ops.exp(log_tail)))
