"""KL divergences and densities of latent distributions."""

import math
from typing import Any

from keras import ops

from keras_gen.export import keras_gen_export


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

    Reference: Kingma and Welling 2013, arXiv:1312.6114, appendix B; https://kexue.fm/archives/5253.
    """
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
        logits_q: `(..., K)`, need not be normalized.
        logits_p: `(..., K)` or `None`, the uniform distribution. Defaults to `None`.

    Returns:
        float32 tensor `(...)`, >= 0 up to rounding.

    Reference: https://kexue.fm/archives/6705; Jang et al. 2016, arXiv:1611.01144.
    """
    logits_q = ops.convert_to_tensor(logits_q)
    log_q = ops.log_softmax(ops.cast(logits_q, "float32"), axis=-1)
    log_p = -ops.log(float(logits_q.shape[-1]))
    if logits_p is not None:
        log_p = ops.log_softmax(ops.cast(logits_p, "float32"), axis=-1)
    return ops.sum(ops.exp(log_q) * (log_q - log_p), axis=-1)


@keras_gen_export("keras_gen.ops.concrete_log_prob")
def concrete_log_prob(log_y: Any, logits: Any, temperature: Any) -> Any:
    """Computes the log-density of the logarithm of a relaxed one-hot vector.

        log p(log y) = log Gamma(K) + (K - 1) log T + sum_k a_k - K logsumexp_k a_k,   a_k = logits_k - T log y_k

    Here `log_y = log_softmax((logits + g) / T)` with Gumbel noise g. Log space avoids underflow at low temperatures.
    The log-density of y itself, on the simplex, is this minus `sum_k log y_k`.

    Args:
        log_y: `(..., K)`, with `logsumexp(log_y) = 0`.
        logits: `(..., K)`, need not be normalized.
        temperature: T > 0, a number or a tensor `(...)`.

    Returns:
        float32 tensor `(...)`, in nats.

    Reference: Maddison et al. 2016, arXiv:1611.00712, appendix C.3 (the ExpConcrete distribution).
    """
    log_y, logits = ops.cast(log_y, "float32"), ops.cast(logits, "float32")
    classes = log_y.shape[-1]
    temperature = ops.cast(temperature, "float32")
    a = logits - ops.expand_dims(temperature, -1) * log_y
    constant = math.lgamma(classes) + (classes - 1) * ops.log(temperature)
    # sum (a - logsumexp a), each term of moderate size, rather than a difference of two large sums
    return constant + ops.sum(ops.log_softmax(a, axis=-1), axis=-1)


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

    Reference: Maddison et al. 2016, arXiv:1611.00712, equation 20.
    """
    log_y = ops.convert_to_tensor(log_y)
    return concrete_log_prob(log_y, logits_q, temperature_q) - concrete_log_prob(log_y, logits_p, temperature_p)
