"""Drawing one code after the other, in one compiled loop."""

import functools
from typing import Any

import numpy as np
from keras import ops

from keras_gen.autoregressive.next_code import next_code
from keras_gen.core.batches import even_batches
from keras_gen.core.compiled import as_tensor
from keras_gen.core.loop import progress_bar, run_in_parts, sequential_loop


def ancestral_sampling(
    model: Any,
    noise: np.ndarray,
    given: dict[str, np.ndarray],
    *,
    condition: np.ndarray | None = None,
    guidance: float | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    batch_size: int = 256,
    verbose: str | int = "auto",
) -> np.ndarray:
    """Draws x_1 ~ p(x_1), x_2 ~ p(x_2 | x_1), ... for each row of uniform numbers; see `AutoregressiveModel.sample`.

    The loop is compiled once for each batch shape: noise, condition, temperature and so on are its arguments.

    Args:
        model: an `AutoregressiveModel`.
        noise: float32 `(n, length)`.
        given: further arrays that `model.next_logits` is to find.
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
    numbers = {"temperature": temperature, "guidance": guidance, "top_p": top_p}
    numbers = {name: as_tensor(np.float32(value)) for name, value in numbers.items() if value is not None}
    given = {name: as_tensor(np.asarray(value)) for name, value in given.items()}

    def loop(inputs: dict[str, Any], state: Any, start: Any, stop: Any) -> Any:
        def step(i: Any, state: Any) -> Any:
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
            return ops.where(ops.arange(length) == position, drawn[:, None], codes), cache

        return sequential_loop(start, stop, step, state)

    batches = list(even_batches(n, batch_size))
    size = len(batches[0])
    rows = size if guidance is None else 2 * size
    program = model.program(("sample", size, length, top_k, *sorted([*numbers, *given]), condition is None), loop)
    bar = progress_bar(len(batches) * length, verbose)
    codes = np.empty((n, length), "int32")
    for index in batches:
        inputs = {"noise": as_tensor(noise[index]), **numbers, **given}
        if condition is not None:
            chosen = condition[index]
            both = chosen if guidance is None else np.concatenate([chosen, model.null_condition(chosen)])
            inputs["condition"] = as_tensor(both)
        state = (ops.zeros((size, length), "int32"), model.empty_cache(rows, length))
        for _, (drawn, _) in run_in_parts(functools.partial(program, inputs), state, length, (length,), bar):
            codes[index] = ops.convert_to_numpy(drawn)
    return codes
