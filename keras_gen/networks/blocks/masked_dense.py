from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.checks import check, is_integer
from keras_gen.core.torch.product import product
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.layers.MaskedDense")
class MaskedDense(keras.layers.Layer):
    """Dense layer in which an output sees only the inputs of lesser degree: the part that MADE is made of.

        y = x (W * M) + b,   M_{ij} = [degree of output j >= degree of input i]   (> if `strict`)

    Args:
        input_degrees: sequence of ints, the degree of each input.
        output_degrees: sequence of ints, the degree of each output.
        strict: bool. Whether equal degrees are hidden too, as in MADE's last layer. Defaults to `False`.
        kernel_initializer: initializer of W. Defaults to `"glorot_uniform"`.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        x: `(batch, ..., len(input_degrees))`.
        degrees: pair of int tensors, the degrees of inputs and outputs, instead of the layer's own. Defaults to `None`.

    Returns:
        A tensor `(batch, ..., len(output_degrees))`.

    Raises:
        ValueError: if the degrees are not integers, or x has not as many features.

    Example:

    >>> hidden = keras_gen.layers.MaskedDense([1, 2, 3], [1, 2, 1, 2])(x)
    >>> outputs = keras_gen.layers.MaskedDense([1, 2, 1, 2], [1, 2, 3], strict=True)(hidden)

    Reference: Germain et al. 2015, arXiv:1502.03509, section 4.
    """

    def __init__(
        self,
        input_degrees: Sequence[int],
        output_degrees: Sequence[int],
        strict: bool = False,
        kernel_initializer: Any = "glorot_uniform",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.input_degrees = _check_degrees("input_degrees", input_degrees)
        self.output_degrees = _check_degrees("output_degrees", output_degrees)
        self.strict = bool(strict)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape: Any) -> None:
        inputs, outputs = len(self.input_degrees), len(self.output_degrees)
        check(input_shape[-1] == inputs, "x", f"have {inputs} features", f"shape {tuple(input_shape)}")
        self.mask = self._mask(np.array(self.input_degrees), np.array(self.output_degrees)).astype("float32")
        self.kernel = self.add_weight(name="kernel", shape=self.mask.shape, initializer=self.kernel_initializer)
        self.bias = self.add_weight(name="bias", shape=(outputs,), initializer="zeros")

    def call(self, x: Any, degrees: Any = None) -> Any:
        kernel = ops.convert_to_tensor(self.kernel)
        mask = self.mask if degrees is None else self._mask(*degrees)
        # `@`, not Keras's matmul, which makes float64 float32 on JAX and torch.
        return product(x, kernel * ops.cast(mask, kernel.dtype)) + ops.convert_to_tensor(self.bias)

    def _mask(self, inputs: Any, outputs: Any) -> Any:
        return outputs > inputs[:, None] if self.strict else outputs >= inputs[:, None]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "input_degrees": self.input_degrees,
            "output_degrees": self.output_degrees,
            "strict": self.strict,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


def spread_degrees(units: int, highest: int) -> np.ndarray:
    """Returns degrees 1 .. highest for hidden units: each in turn, or evenly spread where there are fewer units."""
    if units < highest:
        return np.arange(units) * highest // units + 1
    return np.arange(units) % highest + 1


def _check_degrees(name: str, degrees: Any) -> list[int]:
    whole = isinstance(degrees, list | tuple | np.ndarray) and all(is_integer(degree) for degree in degrees)
    check(whole and len(degrees) > 0, name, "be a list of integers", degrees)
    return [int(degree) for degree in degrees]
