from typing import Any

from keras import ops

from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.losses.categorical_kl")
def categorical_kl(logits_q: Any, logits_p: Any = None) -> Any:
    """Computes `KL(q || p) = sum_k q_k (log q_k - log p_k)` of two categorical distributions, in nats.

    With the uniform p that is `sum_k q_k log q_k + log K`; for N variables the constant is `N log K` (73.7 nats for 32
    variables of 10 classes), without which a loss is no bound.

    This is the divergence of the discrete distributions. It makes a true bound with hard samples (one-hot draws from
    q); with relaxed samples, use `concrete_kl`, and report bounds with hard ones.

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
