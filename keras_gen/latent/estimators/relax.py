from collections.abc import Callable
from typing import Any

from keras import ops

from keras_gen.core.checks import check
from keras_gen.export import keras_gen_export
from keras_gen.latent.estimators.categorical import (
    check_logits,
    control_variate,
    draw,
    evaluate,
    expand_like,
    with_gradient,
)
from keras_gen.latent.gumbel import gumbel_noise


@keras_gen_export("keras_gen.estimators.relax")
def relax(f: Callable[[Any], Any], logits: Any, critic: Callable[[Any], Any], seed: Any = None) -> Any:
    """Estimates `E f(b)`, `b ~ Categorical(softmax(logits))`, with the RELAX gradient: unbiased for any f.

        [f(b) - c(zt)] grad log p(b) + grad c(z) - grad c(zt)
        z = log softmax(logits) + g,   b = one_hot(argmax z),   zt ~ p(z | b)

    The critic c is trained jointly to minimize the variance: its weights get only the gradient of the estimate's
    squared norm. f need not be differentiable. If it is, a good critic is `eta f(softmax(z / temperature))`, as in
    `rebar`, plus a small network.

    Args:
        f: takes one-hot b `(batch, ..., K)`, returns `(batch,)`. Weights in it get their ordinary gradient.
        logits: float tensor `(batch, ..., K)`, of one or more independent variables; -inf rules a category out.
        critic: takes z `(batch, ..., K)`, returns `(batch,)`; twice differentiable, and pure: without random draws
            or state changes. Weights shared with f would get both gradients.
        seed: int or `keras.random.SeedGenerator`. An int gives the same draw in each call; inside a compiled function
            pass a generator that belongs to a layer or model. Defaults to `None`, Keras's global generator.

    Returns:
        float32 tensor `(batch,)`, f(b).

    Raises:
        ValueError: if the logits are not floats `(batch, ..., K)` with K >= 2, or f or the critic returns a
            different shape.

    Example:

    >>> critic = lambda z: self.critic(z)[:, 0]
    >>> ops.mean(relax(f, logits, critic, seed=self.seed_generator))

    Reference: Grathwohl et al. 2017, arXiv:1711.00123.
    """
    check(callable(critic), "critic", "be a function", repr(critic))
    logits = check_logits(logits)
    fixed = ops.stop_gradient(logits)
    noise = gumbel_noise((2, *ops.shape(logits)), seed)
    b = draw(fixed, noise[0])
    values = evaluate("f", f, b)
    score = b - ops.softmax(fixed, axis=-1)
    estimate = expand_like(ops.stop_gradient(values), b) * score + control_variate(critic, "critic", fixed, b, noise)
    return with_gradient(values, logits, estimate)
