"""Categorical samples, and the common parts of the gradient estimators."""

from collections.abc import Callable
from typing import Any

from keras import ops

from keras_gen.core.calculus.gradient import gradient
from keras_gen.core.checks import check, check_floats, real_tensor
from keras_gen.latent.gumbel import RULED_OUT


def check_logits(logits: Any) -> Any:
    """Checks that logits are floats `(batch, ..., K)` with K >= 2, and returns them in float32.

    A logit of -inf, which rules out a category, is replaced: products with its probability, 0, would be NaN.
    """
    logits = real_tensor("logits", logits)
    check_floats("logits", logits)
    is_batch = len(logits.shape) >= 2 and logits.shape[-1] >= 2 and 0 not in logits.shape
    check(
        is_batch, "logits", "have shape (batch, ..., classes) with at least 2 classes", f"shape {tuple(logits.shape)}"
    )
    return ops.maximum(ops.cast(logits, "float32"), RULED_OUT)


def evaluate(name: str, function: Callable[[Any], Any], x: Any) -> Any:
    """Returns `function(x)` in float32, after checking that it has one value per sample; `name` is used in errors."""
    check(callable(function), name, "be a function", repr(function))
    values = real_tensor(f"{name}(...)", function(x), "float32")
    batch, shape = x.shape[0], tuple(values.shape)
    is_per_sample = len(shape) == 1 and (shape[0] == batch or None in (shape[0], batch))
    check(
        is_per_sample, name, f"return one value per sample, shape ({batch},)", f"a function that returns shape {shape}"
    )
    return values


def draw(logits: Any, noise: Any) -> Any:
    """Draws `b = one_hot(argmax(logits + noise))`: an exact sample from `softmax(logits)` if the noise is Gumbel."""
    return ops.one_hot(ops.argmax(logits + noise, axis=-1), logits.shape[-1], dtype="float32")


def conditional_gumbels(logits: Any, b: Any, noise: Any) -> Any:
    """Samples `z = log theta + g` conditioned on b: `zt ~ p(z | argmax z = b)`, a smooth function of the logits.

        zt_b = g_b,   zt_i = -log(exp(-g_i) / theta_i + exp(-g_b)),   theta = softmax(logits)

    For `g = -log(-log v)` this is `-log(-log v_i / theta_i - log v_b)`, in log space: finite for extreme logits.

    Args:
        logits: `(..., K)`.
        b: one-hot `(..., K)`.
        noise: Gumbel noise `(..., K)`, independent of the noise with which b was drawn.

    Returns:
        `(..., K)`, with its maximum at b.
    """
    top = ops.sum(b * noise, axis=-1, keepdims=True)
    rest = -ops.logaddexp(-noise - ops.log_softmax(logits, axis=-1), -top)
    return b * noise + (1 - b) * rest


def expand_like(values: Any, x: Any) -> Any:
    """Appends axes to `values` until it has the rank of `x`."""
    return ops.reshape(values, (*ops.shape(values), *(1 for _ in x.shape[len(values.shape) :])))


def control_variate(critic: Callable[[Any], Any], name: str, logits: Any, b: Any, noise: Any) -> Any:
    """Computes the control variate that RELAX adds to REINFORCE, of mean zero for any critic c.

        -c(zt) (b - theta) + d/dlogits [c(z) - c(zt)],   z = log theta + g,   b = one_hot(argmax z),   zt ~ p(z | b)

    Args:
        critic: takes `(batch, ..., K)`, returns `(batch,)`.
        name: str. Name of the critic in error messages.
        logits: `(batch, ..., K)`, with stopped gradient.
        b: `draw(logits, noise[0])`.
        noise: Gumbel noise `(2, batch, ..., K)`: for z, and for zt.

    Returns:
        A tensor like `logits`.
    """

    def conditional(logits: Any) -> Any:
        return evaluate(name, critic, conditional_gumbels(logits, b, noise[1]))

    def free(logits: Any) -> Any:
        return evaluate(name, critic, ops.log_softmax(logits, axis=-1) + noise[0])

    score = b - ops.softmax(logits, axis=-1)
    return gradient(free, logits) - gradient(conditional, logits) - expand_like(conditional(logits), logits) * score


def with_gradient(values: Any, logits: Any, estimate: Any) -> Any:
    """Returns `values` with `estimate` added to its gradient with respect to the logits.

    All other variables that `estimate` depends on get the gradient of its squared norm: since the mean of an unbiased
    estimate is fixed, this is the gradient of its variance.
    """
    axes = tuple(range(1, len(logits.shape)))
    square = ops.sum(ops.square(estimate), axis=axes)
    linear = ops.sum(ops.stop_gradient(estimate) * (logits - ops.stop_gradient(logits)), axis=axes)
    return values + linear + (square - ops.stop_gradient(square))
