"""What a diffusion model asks of its network: `network([x_t, t])` or `network([x_t, t, condition])`, output like `x_t`.

`t` is what the schedule tells it, integers in discrete time and else real numbers. The number of a functional model's
inputs tells whether it takes a condition; any other layer is taken to need none. If the network has a `num_classes`,
conditions are class labels 0 .. num_classes - 1, and num_classes is the null class of classifier-free guidance; the
null condition of a network that takes vectors, or several as tokens, is zero. If it has a `num_steps`, it knows the
times 0 .. num_steps - 1.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.checks import as_labels, batch_of, check


def inputs_of(network: keras.Layer) -> list[Any]:
    """Returns the symbolic inputs of a functional model, an empty list for any other layer."""
    return list(getattr(network, "inputs", None) or [])


def takes_condition(network: keras.Layer) -> bool:
    """Returns whether the network takes a condition."""
    return len(inputs_of(network)) == 3


def fits(expected: Any, shape: Any) -> bool:
    """Returns whether `shape` is the `expected` one, in which `None` stands for any size."""
    return len(expected) == len(shape) and all(a in (None, b) for a, b in zip(expected, shape, strict=True))


def knows_null(network: keras.Layer) -> bool:
    """Returns whether there is a null condition: a class of its own, or the zero vector."""
    if getattr(network, "num_classes", None) is not None:
        return True
    return takes_condition(network) and keras.backend.is_float_dtype(inputs_of(network)[2].dtype)


def null_condition(network: keras.Layer, condition: Any) -> Any:
    """Returns the null condition for each sample of `condition`, a tensor."""
    classes = getattr(network, "num_classes", None)
    return ops.zeros_like(condition) if classes is None else ops.full_like(condition, classes)


def check_network(
    network: keras.Layer, data_shape: tuple[int | None, ...], outputs_per_channel: int, real_times: bool = False
) -> None:
    """Refuses data that the network cannot take, and a network whose output does not fit. Builds the network.

    Args:
        network: the network.
        data_shape: shape of one image, without the batch.
        outputs_per_channel: how many output channels each channel of the data needs.
        real_times: bool. Whether times are real numbers. Defaults to `False`.
    """
    inputs = [keras.Input(data_shape), keras.Input((), dtype="float32" if real_times else "int32")]
    own = inputs_of(network)
    if own:
        check(len(own) in (2, 3), "network", "take x_t, t and perhaps a condition", f"{len(own)} inputs")
        exact = not real_times or keras.backend.is_float_dtype(own[1].dtype)
        check(exact, "network", "take real times, in a float input t", f"t of dtype {own[1].dtype}")
        expected = own[0].shape[1:]
        holds = fits(expected, data_shape)
        check(holds, "x", f"be images of shape {expected}, the network's input", f"images of shape {data_shape}")
        inputs += [keras.Input(extra.shape[1:], dtype=extra.dtype) for extra in own[2:]]
    output_shape = network(inputs).shape[1:]
    needed = (*data_shape[:-1], data_shape[-1] * outputs_per_channel)
    check(output_shape == needed, "network", f"give outputs of shape {needed}", f"outputs of shape {output_shape}")


def prepare_condition(network: keras.Layer, condition: Any, n: int, name: str = "condition") -> np.ndarray | None:
    """Returns the condition of `n` images as an array `(n, ...)`, or `None` for a network that takes none.

    Args:
        network: the network.
        condition: `None`, one value for all, or an array `(n, ...)`.
        n: int. Number of images.
        name: str. What the caller names the condition. Defaults to `"condition"`.
    """
    if condition is None:
        check(not takes_condition(network), name, "be given: the network takes a condition", None)
        return None
    check(takes_condition(network), name, "be None: the network takes no condition", "a value")
    if getattr(network, "num_classes", None) is not None:
        return as_labels(name, condition, n, network.num_classes)
    condition = np.asarray(ops.convert_to_numpy(condition))
    if condition.ndim == 0:
        condition = np.full(n, condition)
    check(len(condition) == n, name, f"have one entry for each of {n} images", f"shape {condition.shape}")
    expected = inputs_of(network)[2]
    if keras.backend.is_float_dtype(expected.dtype):
        one = tuple(expected.shape[1:])
        check(fits(one, condition.shape[1:]), name, f"have shape {batch_of(one)}", f"shape {condition.shape}")
    return condition
