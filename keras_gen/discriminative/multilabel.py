"""Softmax cross-entropy for several labels at once."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.checks import check, check_entries, check_finite, is_numpy, real_tensor, same_shape
from keras_gen.core.logits import LOWEST, logits_tensor
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.losses.multilabel_crossentropy")
@keras.saving.register_keras_serializable("keras_gen")  # so that a model compiled with it can be loaded
def multilabel_crossentropy(y: Any, s: Any) -> Any:
    """Computes the cross-entropy of several labels at once, each class compared with a threshold logit of 0.

        L = log(1 + sum_i y_i exp(-s_i)) + log(1 + sum_i (1 - y_i) exp(s_i))

    For hard labels the logits of positive classes are pushed above 0 and those of negative classes below; with one
    positive class among many this does not drown, as it does in a sum of binary cross-entropies, of which L is a lower
    bound. A class counts as found where `s > 0`.

    For soft labels, in [0, 1], the minimum is at `s = log(y / (1 - y)) / 2`: the probability of a class is
    `sigmoid(2 s)`, not `sigmoid(s)`.

    As the `loss` of `compile`, it takes labels and outputs of a network without a last activation.

    Args:
        y: `(..., classes)`, labels in [0, 1], hard or soft.
        s: `(..., classes)`, logits, -inf where a class is masked; its label should be 0.

    Returns:
        float32 tensor `(...)`, in nats.

    Raises:
        ValueError: if the shapes differ, or an array holds labels outside [0, 1], or logits that are NaN or +inf. Of
            tensors the values are not checked: such labels make the loss NaN.

    Example:

    >>> keras_gen.losses.multilabel_crossentropy([[1, 0, 1, 0]], [[2.0, -1.0, 0.5, -3.0]])   # 0.9039691
    >>> model.compile("adam", loss=keras_gen.losses.multilabel_crossentropy)

    Reference: Su et al. 2022, arXiv:2208.02955; https://kexue.fm/archives/7359, https://kexue.fm/archives/9064.
    """
    check_finite("y", y)
    if is_numpy(y):
        check_entries("y", y, (np.asarray(y) >= 0) & (np.asarray(y) <= 1), "be labels in [0, 1]")
    y, s = real_tensor("y", y, "float32"), logits_tensor("s", s)
    check(same_shape(y.shape, s.shape), "y", f"have the shape of s, {tuple(s.shape)}", f"shape {tuple(y.shape)}")
    return _crossentropy(y, s)


@keras_gen_export("keras_gen.losses.sparse_multilabel_crossentropy")
@keras.saving.register_keras_serializable("keras_gen")
def sparse_multilabel_crossentropy(y: Any, s: Any) -> Any:
    """Computes `multilabel_crossentropy` for hard labels given as the indices of the positive classes.

    Samples with fewer positives than others are padded with -1; a class named twice counts once.

    Args:
        y: `(..., positives)`, integers in 0 .. classes - 1, or -1 for none. Floats that are integers will do, as Keras
            makes floats of labels.
        s: `(..., classes)`, logits, -inf where a class is masked.

    Returns:
        float32 tensor `(...)`, in nats.

    Raises:
        ValueError: if the shapes do not match, or an array holds other labels, or logits that are NaN or +inf. Of
            tensors the values are not checked: such labels make the loss NaN.

    Example:

    >>> keras_gen.losses.sparse_multilabel_crossentropy([[0, 2, -1]], [[2.0, -1.0, 0.5, -3.0]])   # 0.9039691

    Reference: https://kexue.fm/archives/7359.
    """
    check_finite("y", y)
    labels, s = real_tensor("y", y, "float32"), logits_tensor("s", s)
    is_indices = len(labels.shape) > 0 and same_shape(labels.shape[:-1], s.shape[:-1])
    check(is_indices, "y", f"have shape {(*s.shape[:-1], 'positives')}", f"shape {tuple(labels.shape)}")
    classes = s.shape[-1]
    is_class = ops.equal(ops.expand_dims(labels, -1), ops.arange(classes, dtype="float32"))  # (..., positives, classes)
    is_known = ops.logical_or(ops.equal(labels, -1.0), ops.any(is_class, axis=-1))
    if is_numpy(y):
        check_entries("y", y, ops.convert_to_numpy(is_known), f"be integers in 0 .. {classes - 1}, or -1 for none")
    loss = _crossentropy(ops.cast(ops.any(is_class, axis=-2), "float32"), s)
    return ops.where(ops.all(is_known, axis=-1), loss, math.nan)


def _crossentropy(y: Any, s: Any) -> Any:
    positive, negative = _log_or_lowest(y, -s), _log_or_lowest(1.0 - y, s)
    # log(1 + sum_i exp(a_i)) = softplus(logsumexp_i a_i), exact for small losses, too
    return ops.softplus(ops.logsumexp(positive, axis=-1)) + ops.softplus(ops.logsumexp(negative, axis=-1))


def _log_or_lowest(weight: Any, s: Any) -> Any:
    """Returns `log(weight exp(s))`: where the weight is 0, not -inf, whatever s is, and with gradient 0."""
    is_zero = ops.equal(weight, 0.0)
    return ops.where(is_zero, LOWEST, ops.log(ops.where(is_zero, 1.0, weight)) + s)
