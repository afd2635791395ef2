from collections.abc import Callable
from typing import Any

from keras import ops

from keras_gen.core.checks import check, check_choice, check_integer
from keras_gen.export import keras_gen_export
from keras_gen.latent.estimators.categorical import check_logits, draw, evaluate, expand_like, with_gradient
from keras_gen.latent.gumbel import gumbel_noise


@keras_gen_export("keras_gen.estimators.reinforce")
def reinforce(
    f: Callable[[Any], Any],
    logits: Any,
    baseline: str | Callable[[Any], Any] = "none",
    num_samples: int = 1,
    seed: Any = None,
) -> Any:
    """Estimates `E f(b)`, `b ~ Categorical(softmax(logits))`, with the gradient of REINFORCE: unbiased for any f.

        (f(b) - c) grad log p(b),   grad log p(b) = b - softmax(logits)

    averaged over `num_samples` draws. The nearer the baseline c to f(b), the smaller the variance; if c is independent
    of b, the estimate stays unbiased. Needs no derivative of f.

    Args:
        f: takes one-hot b `(batch, ..., K)`, returns `(batch,)`. Weights that it reads get their ordinary gradient.
        logits: float tensor `(batch, ..., K)`, finite: for each sample one or more independent variables.
        baseline: `"none"`, c = 0; `"leave_one_out"`, the mean of f over the sample's other draws; or a function of the
            values of f `(num_samples, batch)`, stopped, that returns c in a shape that broadcasts to theirs. It may
            learn from these values, but not return them: see `keras_gen.layers.MovingAverage`. Defaults to `"none"`.
        num_samples: int >= 1. How often f is called, each time with another draw; at least 2 for `"leave_one_out"`.
            Defaults to `1`.
        seed: int or `keras.random.SeedGenerator`. An int gives the same draw at each call; inside a compiled function
            pass a generator that a layer or model holds. Defaults to `None`, Keras's global generator.

    Returns:
        float32 tensor `(batch,)`, the mean of f over the draws.

    Raises:
        ValueError: if an argument is outside its range, or f or the baseline returns another shape.

    Example:

    >>> def loss_per_sample(self, x, y, training):
    ...     f = lambda b: self.reconstruction_loss(x, b)
    ...     baseline = lambda values: self.moving_average(values, training=training)
    ...     return reinforce(f, self.encoder(x), baseline, seed=self.seed_generator)

    Reference: Williams 1992, doi:10.1007/BF00992696; Kool et al. 2019, "Buy 4 REINFORCE samples, get a baseline for
    free!"; https://kexue.fm/archives/6705.
    """
    num_samples = check_integer("num_samples", num_samples)
    leave_one_out = isinstance(baseline, str) and baseline == "leave_one_out"
    if not callable(baseline):
        check_choice("baseline", baseline, ("none", "leave_one_out"))
        check(num_samples >= 2 or not leave_one_out, "num_samples", "be >= 2 for leave_one_out", num_samples)
    logits = check_logits(logits)
    fixed = ops.stop_gradient(logits)
    b = draw(fixed, gumbel_noise((num_samples, *ops.shape(logits)), seed))
    values = ops.stack([evaluate("f", f, b[k]) for k in range(num_samples)])
    weights = ops.stop_gradient(values)
    if leave_one_out:  # f(b_k) minus the mean of the others
        weights = (weights - ops.mean(weights, axis=0)) * (num_samples / (num_samples - 1))
    elif callable(baseline):
        weights = weights - ops.stop_gradient(ops.cast(baseline(weights), "float32"))
        received = f"a function that leads to shape {tuple(weights.shape)}"
        holds = tuple(weights.shape) == tuple(values.shape)
        check(holds, "baseline", f"return what broadcasts to shape {tuple(values.shape)}", received)
    estimate = ops.mean(expand_like(weights, b) * (b - ops.softmax(fixed, axis=-1)), axis=0)
    return with_gradient(ops.mean(values, axis=0), logits, estimate)
