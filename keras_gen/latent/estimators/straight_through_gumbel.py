from collections.abc import Callable
from typing import Any

from keras_gen.export import keras_gen_export
from keras_gen.latent.estimators.categorical import check_logits, evaluate
from keras_gen.latent.gumbel import gumbel_softmax


@keras_gen_export("keras_gen.estimators.straight_through_gumbel")
def straight_through_gumbel(f: Callable[[Any], Any], logits: Any, temperature: Any = 1.0, seed: Any = None) -> Any:
    """Estimates `E f(b)`, `b ~ Categorical(softmax(logits))`, with the gradient of the straight-through Gumbel-softmax.

        df/db dy/dlogits,   y = softmax((logits + g) / temperature),   b = one_hot(argmax y)

    Low variance, but biased: f's derivative at b replaces its differences between one-hot vectors. Unbiased for
    special f only; a lower temperature has less bias and more variance.

    Args:
        f: takes one-hot b `(batch, ..., K)`, returns `(batch,)`, and is differentiable with respect to b. Weights in
            it get their ordinary gradient.
        logits: float tensor `(batch, ..., K)`, of one or more independent variables; -inf rules a category out.
        temperature: float > 0, or a scalar tensor. Defaults to `1.0`.
        seed: int or `keras.random.SeedGenerator`. An int gives the same draw in each call; inside a compiled function
            pass a generator that belongs to a layer or model. Defaults to `None`, Keras's global generator.

    Returns:
        float32 tensor `(batch,)`, f(b).

    Raises:
        ValueError: if the temperature is not positive, the logits are not floats `(batch, ..., K)` with K >= 2, or f
            returns a different shape.

    Example:

    >>> ops.mean(straight_through_gumbel(f, logits, temperature=0.5, seed=self.seed_generator))

    Reference: Jang et al. 2016, arXiv:1611.01144; https://kexue.fm/archives/6705.
    """
    return evaluate("f", f, gumbel_softmax(check_logits(logits), temperature, hard=True, seed=seed))
