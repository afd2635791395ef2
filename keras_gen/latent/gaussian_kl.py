from typing import Any

from keras import ops

from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.losses.gaussian_kl")
def gaussian_kl(mean_difference: Any, log_var_q: Any, log_var_p: Any) -> Any:
    """Computes `KL(q || p)` of two Gaussians, element by element, in nats.

        KL = (log_var_p - log_var_q + exp(log_var_q - log_var_p) + (mean_q - mean_p)^2 / exp(log_var_p) - 1) / 2

    Args:
        mean_difference: `mean_q - mean_p`, which keeps its precision where two large means nearly agree.
        log_var_q: logarithm of the variance of q.
        log_var_p: logarithm of the variance of p.

    Returns:
        A tensor of the broadcast shape.

    Reference: Kingma and Welling 2013, arXiv:1312.6114, appendix B; https://kexue.fm/archives/5253.
    """
    log_ratio = log_var_q - log_var_p
    return 0.5 * (ops.expm1(log_ratio) - log_ratio + ops.square(mean_difference) * ops.exp(-log_var_p))
