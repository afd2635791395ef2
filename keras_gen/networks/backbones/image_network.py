from collections.abc import Sequence
from typing import Any

import keras

from keras_gen.core.checks import check, check_integer, is_integer
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
        why: str. The end of the message that refuses other sizes.
        dtype: the dtype policy that the layers have.
        **kwargs: `name`, `trainable`.
    """

    def __init__(
        self,
        inputs: Sequence[Any],
        outputs: Any,
        image_shape: Sequence[int | None],
        multiple: int,
        why: str,
        dtype: Any,
        **kwargs: Any,
    ):
        super().__init__(inputs=inputs, outputs=outputs, **kwargs)
        if dtype is not None:
            self.dtype_policy = keras.dtype_policies.get(dtype)
        self.image_shape = tuple(image_shape)
        self._multiple = multiple, why
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
    check_image_shape("image_shape", image_shape, *halved(widths))
    check_integer("blocks_per_level", blocks_per_level)
    return tuple(int(width) for width in widths)


def halved(widths: Sequence[int]) -> tuple[int, str]:
    """Returns the multiple that an image's size must be to be halved from level to level, and why."""
    return 2 ** (len(widths) - 1), f"with {len(widths)} levels"


def check_image_shape(name: str, shape: Sequence[int | None], multiple: int, why: str) -> None:
    """Refuses a shape that is not an image's, or whose height or width is known and no such multiple."""
    valid = isinstance(shape, Sequence) and len(shape) == 3 and is_integer(shape[2]) and shape[2] >= 1
    check(valid, name, "be images of shape (height, width, channels)", shape)
    fits = all(size is None or (is_integer(size) and size >= 1 and size % multiple == 0) for size in shape[:2])
    check(fits, name, f"have height and width that are multiples of {multiple}, {why}", shape)
