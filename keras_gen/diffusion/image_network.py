from collections.abc import Sequence
from typing import Any

import keras

from keras_gen.core.checks import check, check_integer, is_integer


class ImageNetwork(keras.Model):
    """Base class of U-Nets: a functional model that halves an image's size once for each level but the first.

    To write another: check the arguments with `check_levels`, call layers on `keras.Input`s, hand inputs and outputs to
    `super().__init__`, and add the arguments of its own to `super().get_config()`.
    """

    def __init__(
        self,
        inputs: Sequence[Any],
        outputs: Any,
        image_shape: Sequence[int | None],
        widths: Sequence[int],
        blocks_per_level: int,
        dtype: Any,
        **kwargs: Any,
    ):
        super().__init__(inputs=inputs, outputs=outputs, **kwargs)
        if dtype is not None:
            self.dtype_policy = keras.dtype_policies.get(dtype)
        self.image_shape = tuple(image_shape)
        self.widths = tuple(widths)
        self.blocks_per_level = int(blocks_per_level)

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        # Here, not in `call`: a functional model passes by `call` when it is called on symbolic inputs.
        check_image_shape("x_t", tuple(inputs[0].shape[1:]), len(self.widths))
        return super().__call__(inputs, *args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "trainable": self.trainable,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
            "image_shape": self.image_shape,
            "widths": self.widths,
            "blocks_per_level": self.blocks_per_level,
        }


def check_levels(image_shape: Sequence[int | None], widths: Sequence[int], blocks_per_level: int) -> tuple[int, ...]:
    """Returns `widths` as Python integers, and refuses arguments of which no U-Net can be made."""
    valid = isinstance(widths, Sequence) and len(widths) > 0 and all(is_integer(w) and w >= 1 for w in widths)
    check(valid, "widths", "be a non-empty sequence of integers >= 1", widths)
    check_image_shape("image_shape", image_shape, len(widths))
    check_integer("blocks_per_level", blocks_per_level)
    return tuple(int(width) for width in widths)


def check_image_shape(name: str, shape: Sequence[int | None], levels: int) -> None:
    """Refuses an image shape that `levels` levels cannot halve."""
    valid = isinstance(shape, Sequence) and len(shape) == 3 and is_integer(shape[2]) and shape[2] >= 1
    check(valid, name, "be images of shape (height, width, channels)", shape)
    multiple = 2 ** (levels - 1)
    fits = all(size is None or (is_integer(size) and size >= 1 and size % multiple == 0) for size in shape[:2])
    check(fits, name, f"have height and width that are multiples of {multiple}, with {levels} levels", shape)
