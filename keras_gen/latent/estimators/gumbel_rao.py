from collections.abc import Callable
from typing import Any

from keras import ops

from keras_gen.core.checks import check_integer
from keras_gen.export import keras_gen_export
from keras_gen.latent.estimators.categorical import check_logits, conditional_gumbels, draw, evaluate
from keras_gen.latent.gumbel import check_temperature, gumbel_noise
from keras_gen.latent.straight_through import straight_through


@keras_gen_export("keras_gen.estimators.gumbel_rao")
def gumbel_rao(
    f: Callable[[Any], Any], logits: Any, temperature: Any = 1.0, num_samples: int = 10, seed: Any = None
) -> Any:
    """Estimates `E f(b)`, `b ~ Categorical(softmax(logits))`, with a Rao-Blackwellized straight-through gradient.

        df/db (1/n) sum_k dy_k/dlogits,   y_k = softmax(zt_k / temperature),   zt_k ~ p(logits + g | argmax = b)

    One b, and the mean over n samples of the noise conditioned on it: the bias of `straight_through_gumbel`, with no
    more variance. f is called once for any n.

    Args:
        f: takes one-hot b `(batch, ..., K)`, returns `(batch,)`, and is differentiable with respect to b. Weights in
            it get their ordinary gradient.
        logits: float tensor `(batch, ..., K)`, of one or more independent variables; -inf rules a category out.
        temperature: float > 0, or a scalar tensor. Defaults to `1.0`.
        num_samples: int >= 1. Number of noise samples, n. Defaults to `10`.
        seed: int or `keras.random.SeedGenerator`. An int gives the same draw in each call; inside a compiled function
            pass a generator that belongs to a layer or model. Defaults to `None`, Keras's global generator.

    Returns:
        float32 tensor `(batch,)`, f(b).

    Raises:
        ValueError: if an argument is outside its range, the logits are not floats `(batch, ..., K)` with K >= 2, or f
            returns a different shape.

    Example:

    >>> ops.mean(gumbel_rao(f, logits, temperature=0.1, num_samples=100, seed=self.seed_generator))

    Reference: Paulus et al. 2020, arXiv:2010.04838.
    """
    check_temperature(temperature)
    num_samples = check_integer("num_samples", num_samples)
    logits = check_logits(logits)
    fixed = ops.stop_gradient(logits)
    noise = gumbel_noise((num_samples + 1, *ops.shape(logits)), seed)
    b = draw(fixed, noise[0])
    # The straight-through gradient treats the shift from the logits to the conditional sample as constant.
    z = conditional_gumbels(fixed, b, noise[1:]) + (logits - fixed)
    y = ops.mean(ops.softmax(z / ops.cast(temperature, "float32"), axis=-1), axis=0)
    return evaluate("f", f, straight_through(b, y))
