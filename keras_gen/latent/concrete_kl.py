from typing import Any

from keras import ops

from keras_gen.export import keras_gen_export
from keras_gen.latent.concrete_log_prob import concrete_log_prob


@keras_gen_export("keras_gen.losses.concrete_kl")
def concrete_kl(log_y: Any, logits_q: Any, temperature_q: Any, logits_p: Any, temperature_p: Any) -> Any:
    """Estimates `KL(q || p)` of two relaxed (Concrete) distributions at one draw `log_y` from q, in nats.

        log q(log y) - log p(log y)

    Its mean over draws is the divergence of the relaxed distributions: with it, a model with relaxed samples has a
    true bound on the likelihood of the *relaxed* model. That bound says nothing about the discrete one; see
    `categorical_kl`. A single value may be negative.

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
