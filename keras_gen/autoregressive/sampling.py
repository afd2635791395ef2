"""Ancestral sampling: one code at a time, in a compiled loop."""

from typing import Any

import numpy as np
from keras import ops

from keras_gen.core.compiled import as_tensor, sequential_loop
from keras_gen.core.torch.trace import traced_step

LOWEST = 1e-30  # a lower temperature or `top_p` would be 0 in float32, or make the division overflow
MASKED = -1e30  # logit of an excluded code
LARGEST = 1 - 1e-6  # a larger uniform value would be rounded to 1 in the product, beyond the last code


def next_code(logits: Any, uniform: Any, temperature: Any = 1.0, top_k: int | None = None, top_p: Any = None) -> Any:
    """Draws codes by inverse transform sampling: the first code k with P(0) + .. + P(k) > u.

    Args:
        logits: float32 `(batch, num_codes)`.
        uniform: float32 `(batch,)`, values u in [0, 1).
        temperature: float or scalar tensor > 0, by which logits are divided. Defaults to `1.0`.
        top_k: int or `None`. Only the k most likely codes are drawn. Defaults to `None`.
        top_p: float or scalar tensor, or `None`. Only the most likely codes with this total probability are drawn.
            Defaults to `None`.

    Returns:
        int32 `(batch,)`.
    """
    logits = (logits - ops.max(logits, axis=-1, keepdims=True)) / ops.maximum(temperature, LOWEST)
    if top_k is not None:
        logits = _at_least(logits, ops.sort(logits, axis=-1)[:, -top_k, None])
    if top_p is not None:
        descending = ops.flip(ops.sort(logits, axis=-1), axis=-1)
        p = ops.softmax(descending)
        # A code belongs to the nucleus if the more likely codes have a total probability below top_p.
        inside = ops.cumsum(p, axis=-1) - p < ops.maximum(top_p, LOWEST)
        logits = _at_least(logits, ops.min(ops.where(inside, descending, -MASKED), axis=-1, keepdims=True))
    p = ops.softmax(logits)
    # On JAX, by rounding, the sum may increase at codes of probability 0: they are excluded explicitly.
    cumulative = ops.where(p > 0, ops.cumsum(p, axis=-1), 0.0)
    passed = ops.minimum(uniform, LARGEST)[:, None] * ops.max(cumulative, axis=-1, keepdims=True)
    return ops.cast(ops.argmax(ops.cast(cumulative > passed, "int32"), axis=-1), "int32")


def _at_least(logits: Any, least: Any) -> Any:
    return ops.where(logits >= least, logits, MASKED)


def ancestral_sampling(
    model: Any,
    noise: np.ndarray,
    extra_inputs: dict[str, np.ndarray | np.generic],
    *,
    condition: np.ndarray | None = None,
    guidance: float | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    batch_size: int = 256,
    verbose: str | int = "auto",
) -> np.ndarray:
    """Draws x_1 ~ p(x_1), x_2 ~ p(x_2 | x_1), ... for each row of uniform values; see `AutoregressiveModel.sample`.

    The loop is compiled once for each batch shape: noise, condition, temperature etc. are its arguments. On PyTorch a
    step of it is traced.

    Args:
        model: an `AutoregressiveModel`.
        noise: float32 `(n, length)`.
        extra_inputs: further arrays for the `inputs` of `model.next_logits`.
        condition: `(n, ...)` or `None`.
        guidance: float or `None`.
        temperature: float.
        top_k: int or `None`.
        top_p: float or `None`.
        batch_size: int.
        verbose: `"auto"`, 0 or 1.

    Returns:
        int32 array `(n, length)`.
    """
    n, length = noise.shape
    scalars = {"temperature": temperature, "guidance": guidance, "top_p": top_p}
    scalars = {name: as_tensor(np.float32(value)) for name, value in scalars.items() if value is not None}
    extra_inputs = {name: as_tensor(np.asarray(value)) for name, value in extra_inputs.items()}
    arrays = {"noise": noise}
    if condition is not None:
        arrays["condition"] = condition
        if guidance is not None:
            arrays["null"] = model.null_condition(condition)

    def step(i: Any, inputs: dict[str, Any], state: Any) -> Any:
        codes, cache = state
        seen = ops.concatenate([codes, codes]) if "guidance" in inputs else codes
        logits, cache = model.next_logits(i, seen, cache, inputs)
        if "guidance" in inputs:
            conditional, unconditional = ops.split(logits, 2)
            logits = unconditional + inputs["guidance"] * (conditional - unconditional)
        uniform, position = inputs["noise"], model.position(i, inputs)
        drawn = next_code(
            logits, ops.take(uniform, position, axis=1), inputs["temperature"], top_k, inputs.get("top_p")
        )
        return ops.where(ops.arange(length, dtype="int32") == position, drawn[:, None], codes), cache

    fast_step = traced_step(model, step)

    def loop(inputs: dict[str, Any], state: Any, first: Any, last: Any) -> Any:
        if "null" in inputs:
            inputs = {**inputs, "condition": ops.concatenate([inputs["condition"], inputs["null"]])}
        return sequential_loop(first, last, lambda i, state: fast_step(i, inputs, state), state)

    def start(inputs: dict[str, Any]) -> Any:
        size = inputs["noise"].shape[0]
        cache = model.empty_cache(size if guidance is None else 2 * size, length)
        return ops.zeros((size, length), "int32"), cache

    codes = np.empty((n, length), "int32")
    states = model.run_steps(
        ("sample", top_k, *sorted([*scalars, *extra_inputs])),
        loop,
        arrays,
        start,
        steps=length,
        batch_size=batch_size,
        verbose=verbose,
        shared={**scalars, **extra_inputs},
        read=lambda state: state[0],
    )
    for index, _, drawn in states:
        codes[index] = drawn
    return codes
