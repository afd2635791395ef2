"""A step of Adam or AdamW on PyTorch in few passes over the weights, with the results of Keras.

Keras passes over all weights eleven times for the update, and clips and averages them one by one, in a dozen operations
each. On a GPU, each operation launches a kernel; on a CPU, it reads and writes the weights.
"""

import contextlib
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras

from keras_gen.core.averages import optimizers_in
from keras_gen.core.torch.switch import takes_fast_paths


@contextlib.contextmanager
def few_passes(optimizer: Any) -> Iterator[None]:
    """Context in which Keras's Adam and AdamW update, clip and average all weights at once, on PyTorch.

    The optimizer's variables and their values are those of Keras, up to rounding. Optimizers of other classes, also
    those derived from Adam, are left as they are.

    Args:
        optimizer: the optimizer of a model, or one that holds others, such as a `LossScaleOptimizer`; or `None`.
    """
    parts = [part for part in optimizers_in(optimizer) if _is_adam(part)] if _applies() else []
    for part in parts:
        for name, method in METHODS.items():
            setattr(part, name, functools.partial(method, part, getattr(part, name)))
    try:
        yield
    finally:
        for part in parts:
            for name in METHODS:
                delattr(part, name)


def _applies() -> bool:
    if not takes_fast_paths():
        return False
    import torch

    return hasattr(torch, "_fused_adam_") and not torch.compiler.is_compiling()


def _is_adam(optimizer: Any) -> bool:
    """Returns whether an optimizer is Keras's own Adam or AdamW, with the methods replaced here."""
    is_own = type(optimizer).__module__.split(".")[0] == "keras"
    return is_own and isinstance(optimizer, keras.optimizers.Adam) and all(hasattr(optimizer, name) for name in METHODS)


def _update(optimizer: Any, plain: Any, gradients: Sequence[Any], variables: Sequence[Any], learning_rate: Any) -> None:
    """Updates variables and moments by PyTorch's fused kernel."""
    import torch

    places = [optimizer._get_variable_index(variable) for variable in variables]
    states = [optimizer._momentums, optimizer._velocities, *([optimizer._velocity_hats] if optimizer.amsgrad else [])]
    moments = [[state[place].value for place in places] for state in states]
    lists = [[variable.value for variable in variables], list(gradients), *moments]
    if not _are_plain(*lists):
        plain(gradients, variables, learning_rate)
        return
    alpha = _step_size(optimizer, learning_rate)
    # Keras adds epsilon before it corrects the bias of the moments, PyTorch after it. PyTorch is therefore told that
    # there is no bias, as after infinitely many steps: alpha holds both corrections. Keras has applied weight decay.
    options: dict[str, Any] = {
        "state_steps": [torch.full_like(alpha, math.inf)] * len(places),
        "lr": alpha,
        "beta1": optimizer.beta_1,
        "beta2": optimizer.beta_2,
        "eps": optimizer.epsilon,
        "amsgrad": optimizer.amsgrad,
        "weight_decay": 0.0,
        "maximize": False,
    }
    values, gradients, momentums, velocities, largest = lists if optimizer.amsgrad else [*lists, []]
    with torch.no_grad():
        torch._fused_adam_(values, gradients, momentums, velocities, largest, **options)


def _step_size(optimizer: Any, learning_rate: Any) -> Any:
    """Returns alpha = lr sqrt(1 - beta_2^t) / (1 - beta_1^t), in Keras's float32, on the device."""
    import torch

    t = (keras.ops.convert_to_tensor(optimizer.iterations) + 1).to(torch.float32)
    learning_rate = keras.ops.cast(learning_rate, "float32")
    return learning_rate * torch.sqrt(1 - optimizer.beta_2**t) / (1 - optimizer.beta_1**t)


def _clip(optimizer: Any, plain: Any, gradients: Sequence[Any]) -> Sequence[Any]:
    """Clips the gradients, by their common norm, each by its own norm, or by value."""
    import torch

    gradients = list(gradients)
    if not _are_plain(gradients):
        return plain(gradients)
    with torch.no_grad():
        if (optimizer.clipnorm or 0) > 0:
            norms = torch._foreach_clamp_min(torch._foreach_norm(gradients), optimizer.clipnorm)
            return torch._foreach_div(torch._foreach_mul(gradients, optimizer.clipnorm), norms)
        if (optimizer.global_clipnorm or 0) > 0:
            norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
            scale = optimizer.global_clipnorm * torch.clamp_max(1 / norm, 1 / optimizer.global_clipnorm)
            return torch._foreach_mul(gradients, scale + (norm - norm))  # NaN where the norm is not finite, as in Keras
        if (optimizer.clipvalue or 0) > 0:
            lowest = torch._foreach_clamp_min(gradients, -optimizer.clipvalue)
            return torch._foreach_clamp_max(lowest, optimizer.clipvalue)
    return gradients


def _average(optimizer: Any, plain: Any, variables: Sequence[Any]) -> None:
    """Moves the averages to the variables: average = m average + (1 - m) variable, with m = 0 in the first step."""
    import torch

    kept = zip(variables, optimizer._model_variables_moving_average, strict=True)
    pairs = [(variable.value, average.value) for variable, average in kept if average is not None]
    values, averages = [value for value, _ in pairs], [average for _, average in pairs]
    if not _are_plain(values, averages):
        plain(variables)
        return
    momentum = (keras.ops.convert_to_tensor(optimizer.iterations) != 0).to(torch.float32) * optimizer.ema_momentum
    with torch.no_grad():
        torch._foreach_mul_(averages, momentum)
        torch._foreach_add_(averages, torch._foreach_mul(values, 1 - momentum))


METHODS: dict[str, Callable[..., Any]] = {
    "_backend_update_step": _update,
    "_clip_gradients": _clip,
    "_update_model_variables_moving_average": _average,
}


def _are_plain(*lists: Sequence[Any]) -> bool:
    """Returns whether a fused kernel takes all tensors, which it reads in the order of memory, on one device."""
    import torch

    devices = {x.device for x in itertools.chain(*lists)}
    return len(devices) == 1 and all(
        type(x) in (torch.Tensor, torch.nn.Parameter)
        and x.layout is torch.strided
        and x.dtype is torch.float32
        and x.is_contiguous()
        and (x.is_cpu or x.is_cuda)
        for x in itertools.chain(*lists)
    )
