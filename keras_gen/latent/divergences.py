"""KL divergences and densities of latent distributions."""

import math
from typing import Any

from keras import ops

from keras_gen.core.checks import check, check_broadcast, check_positive_values, float_tensors, real_tensor
from keras_gen.export import keras_gen_export
from keras_gen.latent.gumbel import RULED_OUT


@keras_gen_export("keras_gen.losses.gaussian_kl")
def gaussian_kl(mean_difference: Any, log_var_q: Any, log_var_p: Any) -> Any:
    """Computes the elementwise `KL(q || p)` of two Gaussians, in nats.

        KL = (log_var_p - log_var_q + exp(log_var_q - log_var_p) + (mean_q - mean_p)^2 / exp(log_var_p) - 1) / 2

    Args:
        mean_difference: `mean_q - mean_p`, which stays precise where two large means nearly agree.
        log_var_q: log-variance of q.
        log_var_p: log-variance of p.

    Returns:
        A tensor of the broadcast shape.

    Raises:
        ValueError: if an argument is not of real numbers, or the shapes do not match.

    Reference: Kingma and Welling 2013, arXiv:1312.6114, appendix B; https://kexue.fm/archives/5253.
    """
    named = {"mean_difference": mean_difference, "log_var_q": log_var_q, "log_var_p": log_var_p}
    mean_difference, log_var_q, log_var_p = float_tensors(named)
    check_broadcast("log_var_q", log_var_q, mean_difference.shape)
    check_broadcast("log_var_p", log_var_p, mean_difference.shape)
    check_broadcast("log_var_p", log_var_p, log_var_q.shape)
    log_ratio = log_var_q - log_var_p
    return 0.5 * (ops.expm1(log_ratio) - log_ratio + ops.square(mean_difference) * ops.exp(-log_var_p))


@keras_gen_export("keras_gen.losses.categorical_kl")
def categorical_kl(logits_q: Any, logits_p: Any = None) -> Any:
    """Computes `KL(q || p) = sum_k q_k (log q_k - log p_k)` of two categorical distributions, in nats.

    For uniform p this is `sum_k q_k log q_k + log K`; for N variables the constant is `N log K` (73.7 nats for 32
    variables of 10 classes), without which the loss is not a bound.

    This is the divergence between the discrete distributions. It gives a true bound with hard samples (one-hot draws
    from q); with relaxed samples, use `concrete_kl`, and report bounds with hard samples.

    Args:
        logits_q: `(..., K)`, need not be normalized; -inf where a category is ruled out.
        logits_p: `(..., K)`, likewise, or `None`, the uniform distribution. Defaults to `None`.

    Returns:
        float32 tensor `(...)`, >= 0 up to rounding; infinite if p rules out what q does not.

    Raises:
        ValueError: if logits are not real numbers, or the shapes do not match.

    Reference: https://kexue.fm/archives/6705; Jang et al. 2016, arXiv:1611.01144.
    """
    logits_q = _logits("logits_q", logits_q)
    log_q = ops.log_softmax(logits_q, axis=-1)
    log_p = -ops.log(float(logits_q.shape[-1]))
    if logits_p is not None:
        logits_p = _logits("logits_p", logits_p)
        check_broadcast("logits_p", logits_p, logits_q.shape)
        log_p = ops.log_softmax(logits_p, axis=-1)
    is_possible = log_q > -math.inf  # q log q is 0 elsewhere, and so is its gradient
    return ops.sum(ops.exp(log_q) * ops.where(is_possible, log_q - log_p, 0.0), axis=-1)


@keras_gen_export("keras_gen.ops.concrete_log_prob")
def concrete_log_prob(log_y: Any, logits: Any, temperature: Any) -> Any:
    """Computes the log-density of the logarithm of a relaxed one-hot vector.

        log p(log y) = log Gamma(K) + (K - 1) log T + sum_k a_k - K logsumexp_k a_k,   a_k = logits_k - T log y_k

    Here `log_y = log_softmax((logits + g) / T)` with Gumbel noise g. Log space avoids underflow at low temperatures.
    The log-density of y itself, on the simplex, is this minus `sum_k log y_k`. Categories that are ruled out, by logits
    of -inf, are no part of the vector: the sums and K are over the others.

    Args:
        log_y: `(..., K)`, with `logsumexp(log_y) = 0`.
        logits: `(..., K)`, need not be normalized.
        temperature: T > 0, a number or a tensor `(...)`.

    Returns:
        float32 tensor `(...)`, in nats.

    Raises:
        ValueError: if `temperature` is not positive and finite (the values of tensors are not checked), an argument is
            not of real numbers, or the shapes do not match.

    Reference: Maddison et al. 2016, arXiv:1611.00712, appendix C.3 (the ExpConcrete distribution).
    """
    return _concrete_log_prob(log_y, ("logits", logits), ("temperature", temperature))


def _concrete_log_prob(log_y: Any, named_logits: tuple[str, Any], named_temperature: tuple[str, Any]) -> Any:
    check_positive_values(*named_temperature)
    log_y, logits = _logits("log_y", log_y), _logits(*named_logits)
    check_broadcast(named_logits[0], logits, log_y.shape)
    logits = logits + ops.zeros_like(log_y)  # of the shape of both
    is_possible = ops.not_equal(logits, -math.inf)
    classes = ops.sum(ops.cast(is_possible, "int32"), axis=-1)
    temperature = ops.cast(named_temperature[1], "float32")
    check_broadcast(named_temperature[0], temperature, log_y.shape[:-1])
    logits, log_y = (ops.maximum(x, RULED_OUT) for x in (logits, log_y))
    a = ops.where(is_possible, logits - ops.expand_dims(temperature, -1) * log_y, RULED_OUT)
    log_gamma = ops.convert_to_tensor([math.lgamma(k) for k in range(1, log_y.shape[-1] + 1)], "float32")
    constant = ops.take(log_gamma, classes - 1) + ops.cast(classes - 1, "float32") * ops.log(temperature)
    # sum (a - logsumexp a), each term of moderate size, rather than a difference of two large sums
    return constant + ops.sum(ops.where(is_possible, ops.log_softmax(a, axis=-1), 0.0), axis=-1)


@keras_gen_export("keras_gen.losses.concrete_kl")
def concrete_kl(log_y: Any, logits_q: Any, temperature_q: Any, logits_p: Any, temperature_p: Any) -> Any:
    """Estimates `KL(q || p)` of two relaxed (Concrete) distributions from one sample `log_y` of q, in nats.

        log q(log y) - log p(log y)

    Its expectation is the divergence between the relaxed distributions: with relaxed samples it gives a true bound on
    the likelihood of the *relaxed* model, but not of the discrete one; see `categorical_kl`. Single values may be
    negative.

    Args:
        log_y: `(..., K)`, `log_softmax((logits_q + g) / temperature_q)`.
        logits_q: `(..., K)`, need not be normalized.
        temperature_q: > 0, a number or a tensor `(...)`.
        logits_p: `(..., K)`; zeros for the uniform distribution.
        temperature_p: > 0, a number or a tensor `(...)`.

    Returns:
        float32 tensor `(...)`.

    Raises:
        ValueError: as for `keras_gen.ops.concrete_log_prob`.

    Reference: Maddison et al. 2016, arXiv:1611.00712, equation 20.
    """
    log_q = _concrete_log_prob(log_y, ("logits_q", logits_q), ("temperature_q", temperature_q))
    return log_q - _concrete_log_prob(log_y, ("logits_p", logits_p), ("temperature_p", temperature_p))


def _logits(name: str, logits: Any) -> Any:
    logits = real_tensor(name, logits, "float32")
    check(len(logits.shape) > 0, name, "have shape (..., K)", f"shape {tuple(logits.shape)}")
    return logits
