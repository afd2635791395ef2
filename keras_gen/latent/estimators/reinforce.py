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
    """Estimates `E f(b)`, `b ~ Categorical(softmax(logits))`, with the REINFORCE gradient: unbiased for any f.

        (f(b) - c) grad log p(b),   grad log p(b) = b - softmax(logits)

    This score function estimator is averaged over `num_samples` draws. The closer the baseline c is to f(b), the
    smaller the variance; if c is independent of b, the estimate stays unbiased. f need not be differentiable.

    Args:
        f: takes one-hot b `(batch, ..., K)`, returns `(batch,)`. Weights in it get their ordinary gradient.
        logits: float tensor `(batch, ..., K)`, of one or more independent variables; -inf rules a category out.
        baseline: `"none"`, c = 0; `"leave_one_out"`, the mean of f over the sample's other draws; or a function of the
            stopped values of f, `(num_samples, batch)`, that returns c in a shape that broadcasts to theirs. It may be
            trained on these values, but must not return them: see `keras_gen.layers.MovingAverage`. Defaults to
            `"none"`.
        num_samples: int >= 1. Number of draws, each with a call of f; at least 2 for `"leave_one_out"`. Defaults to
            `1`.
        seed: int or `keras.random.SeedGenerator`. An int gives the same draw in each call; inside a compiled function
            pass a generator that belongs to a layer or model. Defaults to `None`, Keras's global generator.

    Returns:
        float32 tensor `(batch,)`, the mean of f over the draws.

    Raises:
        ValueError: if an argument is outside its range, or f or the baseline returns a different shape.

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
    if leave_one_out:  # f(b_k) minus the mean over the other draws
        weights = (weights - ops.mean(weights, axis=0)) * (num_samples / (num_samples - 1))
    elif callable(baseline):
        weights = weights - ops.stop_gradient(ops.cast(baseline(weights), "float32"))
        received = f"a function that leads to shape {tuple(weights.shape)}"
        is_broadcast = tuple(weights.shape) == tuple(values.shape)
        check(is_broadcast, "baseline", f"return a tensor that broadcasts to shape {tuple(values.shape)}", received)
    estimate = ops.mean(expand_like(weights, b) * (b - ops.softmax(fixed, axis=-1)), axis=0)
    return with_gradient(ops.mean(values, axis=0), logits, estimate)
