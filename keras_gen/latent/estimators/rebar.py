from collections.abc import Callable
from typing import Any

from keras import ops

from keras_gen.core.checks import check_finite, check_scalar
from keras_gen.export import keras_gen_export
from keras_gen.latent.estimators.categorical import (
    check_logits,
    control_variate,
    draw,
    evaluate,
    expand_like,
    with_gradient,
)
from keras_gen.latent.gumbel import check_temperature, gumbel_noise


@keras_gen_export("keras_gen.estimators.rebar")
def rebar(f: Callable[[Any], Any], logits: Any, temperature: Any = 0.5, eta: Any = 1.0, seed: Any = None) -> Any:
    """Estimates `E f(b)`, `b ~ Categorical(softmax(logits))`, with the REBAR gradient: unbiased if f is smooth.

        [f(b) - c(zt)] grad log p(b) + grad c(z) - grad c(zt),   c(z) = eta f(softmax(z / temperature))
        z = log softmax(logits) + g,   b = one_hot(argmax z),   zt ~ p(z | b)

    REINFORCE with the relaxed f, whose gradient is known, as control variate. f is called at b and, for the control
    variate, at the relaxed z and zt.

    Args:
        f: takes b `(batch, ..., K)`, one-hot or inside the simplex, returns `(batch,)`; differentiable with respect to
            b, and pure: without random draws or state changes. Weights in it get the ordinary gradient of f(b).
        logits: float tensor `(batch, ..., K)`, of one or more independent variables; -inf rules a category out.
        temperature: float > 0, or a scalar tensor, which gets no gradient. Defaults to `0.5`.
        eta: float, or a scalar tensor or variable. A variable is trained jointly to minimize the variance: it
            gets the gradient of the estimate's squared norm. Defaults to `1.0`.
        seed: int or `keras.random.SeedGenerator`. An int gives the same draw in each call; inside a compiled function
            pass a generator that belongs to a layer or model. Defaults to `None`, Keras's global generator.

    Returns:
        float32 tensor `(batch,)`, f(b).

    Raises:
        ValueError: if an argument is outside its range, the logits are not floats `(batch, ..., K)` with K >= 2, or f
            returns a different shape.

    Example:

    >>> ops.mean(rebar(f, logits, eta=self.eta, seed=self.seed_generator))

    Reference: Tucker et al. 2017, arXiv:1703.07370.
    """
    check_temperature(temperature)
    check_finite("eta", eta)
    check_scalar("eta", eta)
    logits = check_logits(logits)
    fixed = ops.stop_gradient(logits)
    noise = gumbel_noise((2, *ops.shape(logits)), seed)
    b = draw(fixed, noise[0])
    values = evaluate("f", f, b)
    score = b - ops.softmax(fixed, axis=-1)

    def relaxed(z: Any) -> Any:
        return f(ops.softmax(z / ops.cast(temperature, "float32"), axis=-1))

    # Stopped: only eta is trained to minimize the variance, not the weights of f.
    correction = ops.stop_gradient(control_variate(relaxed, "f", fixed, b, noise))
    estimate = expand_like(ops.stop_gradient(values), b) * score + ops.cast(eta, "float32") * correction
    return with_gradient(values, logits, estimate)
