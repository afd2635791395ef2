import math
from typing import Any

from keras import ops

from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.ops.concrete_log_prob")
def concrete_log_prob(log_y: Any, logits: Any, temperature: Any) -> Any:
    """Computes the log-density of a relaxed one-hot vector, as a density of its logarithm.

        log p(log y) = log Gamma(K) + (K - 1) log T + sum_k a_k - K logsumexp_k a_k,   a_k = logits_k - T log y_k

    With `log_y = log_softmax((logits + g) / T)`, g Gumbel noise. In log space nothing underflows at low temperatures.
    The density of y itself, on the simplex, is this minus `sum_k log y_k`.

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
