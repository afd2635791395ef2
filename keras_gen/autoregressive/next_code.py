"""The draw of one code from its conditional distribution."""

from typing import Any

from keras import ops

LOWEST_TEMPERATURE = 1e-30  # a lower one would be 0, or make the division overflow
MASKED = -1e30  # the logit of a code that is not drawn
LARGEST = 1 - 1e-6  # a uniform number above would be 1 once it is multiplied, and pass the last code


def next_code(logits: Any, uniform: Any, temperature: Any = 1.0, top_k: int | None = None, top_p: Any = None) -> Any:
    """Draws codes by inverting their cumulative distribution: the first code k with P(0) + .. + P(k) > u.

    Args:
        logits: float32 `(batch, num_codes)`.
        uniform: float32 `(batch,)`, numbers u in [0, 1).
        temperature: float or scalar tensor > 0, by which logits are divided. Defaults to `1.0`.
        top_k: int or `None`. Only the k most likely codes are drawn. Defaults to `None`.
        top_p: float or scalar tensor, or `None`. Only the most likely codes that together have this probability are
            drawn. Defaults to `None`.

    Returns:
        int32 `(batch,)`.
    """
    logits = (logits - ops.max(logits, axis=-1, keepdims=True)) / ops.maximum(temperature, LOWEST_TEMPERATURE)
    if top_k is not None:
        logits = _at_least(logits, ops.sort(logits, axis=-1)[:, -top_k, None])
    if top_p is not None:
        falling = ops.flip(ops.sort(logits, axis=-1), axis=-1)
        p = ops.softmax(falling)
        # The likelier codes before one have less than top_p together: it belongs to the set.
        inside = ops.cumsum(p, axis=-1) - p < top_p
        logits = _at_least(logits, ops.min(ops.where(inside, falling, -MASKED), axis=-1, keepdims=True))
    p = ops.softmax(logits)
    # On JAX the sum may step at codes of probability 0, by rounding: they are left out by name.
    cumulative = ops.where(p > 0, ops.cumsum(p, axis=-1), 0.0)
    passed = ops.minimum(uniform, LARGEST)[:, None] * ops.max(cumulative, axis=-1, keepdims=True)
    return ops.cast(ops.argmax(ops.cast(cumulative > passed, "int32"), axis=-1), "int32")


def _at_least(logits: Any, least: Any) -> Any:
    return ops.where(logits >= least, logits, MASKED)
