"""The interface of a denoising network, and the base class of ours.

A denoising network is called as `network([x_t, t])` or `network([x_t, t, condition])`; its output is like `x_t`. `t` is
int32 in discrete time, float32 otherwise. The number of a functional model's inputs tells whether it takes a condition;
any other layer is taken to need none. If the network has a `num_classes`, conditions are class labels
0 .. num_classes - 1, and num_classes is the null class of classifier-free guidance; the null condition of a network
that takes vectors, or several as tokens, is zero. If it has a `num_steps`, it knows the times 0 .. num_steps - 1.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.checks import as_labels, batch_of, check, check_image_shape, check_integer, is_integer
from keras_gen.core.torch.trace import Trace, traceable


class ImageNetwork(keras.Model):
    """Base class of networks of images: a functional model of images whose height and width are certain multiples.

    To write another: check the arguments with `check_image_shape`, call layers on `keras.Input`s, hand inputs and
    outputs to `super().__init__`, and add the arguments of its own to `super().get_config()`. Its layers may draw
    random numbers or keep state, but have no branches: on PyTorch its calls are traced, see `Trace`.

    Args:
        inputs: list of the symbolic inputs, `x_t` first.
        outputs: the symbolic output.
        image_shape: `(height, width, channels)`.
        multiple: int >= 1. What must divide an image's height and width.
        reason: str. The end of the message that refuses other sizes.
        dtype: the dtype policy that the layers have.
        **kwargs: `name`, `trainable`.
    """

    def __init__(
        self,
        inputs: Sequence[Any],
        outputs: Any,
        image_shape: Sequence[int | None],
        multiple: int,
        reason: str,
        dtype: Any,
        **kwargs: Any,
    ):
        super().__init__(inputs=inputs, outputs=outputs, **kwargs)
        if dtype is not None:
            self.dtype_policy = keras.dtype_policies.get(dtype)
        self.image_shape = tuple(image_shape)
        self._multiple = multiple, reason
        self._trace = Trace(self, super().__call__)

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        # Here, not in `call`: a functional model passes by `call` when it is called on symbolic inputs.
        check_image_shape("x_t", tuple(inputs[0].shape[1:]), *self._multiple)
        known = not args and kwargs.keys() == {"training"} and isinstance(kwargs["training"], bool)
        if known and self._is_traceable and traceable(inputs):
            return self._trace(list(inputs), kwargs["training"])
        return super().__call__(inputs, *args, **kwargs)

    @property
    def _is_traceable(self) -> bool:
        # With two dtypes, which one the weights have depends on who calls; with `remat`, autograd calls once more.
        return self.compute_dtype == self.variable_dtype and not getattr(self, "remat", False)

    def get_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "trainable": self.trainable,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
            "image_shape": self.image_shape,
        }


def check_levels(image_shape: Sequence[int | None], widths: Sequence[int], blocks_per_level: int) -> tuple[int, ...]:
    """Returns `widths` as Python integers, and refuses arguments of which no U-Net can be made."""
    valid = isinstance(widths, Sequence) and len(widths) > 0 and all(is_integer(w) and w >= 1 for w in widths)
    check(valid, "widths", "be a non-empty sequence of integers >= 1", widths)
    check_image_shape("image_shape", image_shape, *downsampling_multiple(widths))
    check_integer("blocks_per_level", blocks_per_level)
    return tuple(int(width) for width in widths)


def downsampling_multiple(widths: Sequence[int]) -> tuple[int, str]:
    """Returns the multiple that an image's size must be to be halved from level to level, and the reason."""
    return 2 ** (len(widths) - 1), f"with {len(widths)} levels"


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
