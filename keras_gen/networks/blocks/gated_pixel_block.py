from typing import Any

import keras
from keras import ops

from keras_gen.core.checks import check, check_flag, check_integer
from keras_gen.core.frozen import StaysFrozen
from keras_gen.export import keras_gen_export
from keras_gen.networks.blocks.masked import MaskedConv2D
from keras_gen.networks.blocks.recomputing import recomputed


@keras_gen_export("keras_gen.layers.GatedPixelBlock")
class GatedPixelBlock(StaysFrozen, keras.layers.Layer):
    """Block of a gated PixelCNN: a vertical stack for the rows above, a horizontal stack for the row, no blind spot.

        gate(a, b) = tanh(a) sigmoid(b)
        vertical   = gate(conv of the rows up to this one of `vertical` + embedding)
        horizontal = horizontal + 1x1 gate(conv of the pixels up to this one in its row of `horizontal`
                                           + 1x1 conv of the vertical conv + embedding)

    A plain stack of masked convolutions has a blind spot, a wedge of pixels on the upper right. Here the receptive
    field of the vertical stack covers all rows above. In the first block of a network, `strict`, the vertical stack
    sees strictly the rows above and the horizontal one strictly the pixels on the left, without residual connection:
    then pixel i of any later block does not depend on x_i.

    Args:
        filters: int >= 1, channels of both stacks.
        kernel_size: odd int >= 3. Defaults to `3`.
        strict: bool. Whether this is the first block of a network. Defaults to `False`.
        groups: int >= 1. Groups of channels, for pixels with several values; see `MaskedConv2D`. Defaults to `1`.
        remat: bool. Whether to recompute the block in the backward pass instead of storing its activations (gradient
            checkpointing). Defaults to `False`.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        inputs: list of `vertical` and `horizontal`, both `(batch, height, width, channels)`, and, optionally, an
            embedding `(batch, dim)` of a condition.

    Returns:
        `vertical` and `horizontal`, both `(batch, height, width, filters)`.

    Raises:
        ValueError: if an argument is outside its range, or the number or shape of the inputs is wrong.

    Reference: van den Oord et al. 2016, arXiv:1606.05328, figure 2.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int = 3,
        strict: bool = False,
        groups: int = 1,
        remat: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.filters = check_integer("filters", filters)
        self.kernel_size = check_integer("kernel_size", kernel_size, at_least=3)
        check(self.kernel_size % 2 == 1, "kernel_size", "be odd", kernel_size)
        self.strict = check_flag("strict", strict)
        self.groups = check_integer("groups", groups)
        self.remat = check_flag("remat", remat)
        options = {"groups": self.groups, "dtype": self.dtype_policy}
        plain = {"dtype": self.dtype_policy, "data_format": "channels_last"}  # whatever Keras is set to
        row, conv = (1, self.kernel_size), keras.layers.Conv2D
        self.from_left = MaskedConv2D(2 * self.filters, row, self.strict, name="from_left", **options)
        self.output_conv = MaskedConv2D(self.filters, 1, name="output", **options)
        # Padded explicitly, so that no row below is seen.
        rows = (self.kernel_size // 2 + 1, self.kernel_size)
        self.from_above = conv(2 * self.filters, rows, name="from_above", **plain)
        self.down = conv(2 * self.filters, 1, name="down", **plain)
        self.condition: Any = None  # a dense layer, if there is an embedding

    def build(self, inputs_shape: Any) -> None:
        number = len(inputs_shape)
        check(number in (2, 3), "inputs", "be vertical, horizontal and, optionally, an embedding", f"{number} inputs")
        vertical, horizontal = inputs_shape[:2]
        for shape in (vertical, horizontal):
            check(len(shape) == 4, "inputs", "have shape (batch, height, width, channels)", f"shape {tuple(shape)}")
        self.from_above.build((None, None, None, vertical[-1]))  # padding changes the height
        self.down.build((*vertical[:-1], 2 * self.filters))
        self.from_left.build(horizontal)
        self.output_conv.build((*horizontal[:-1], self.filters))
        if number == 3:
            self.condition = keras.layers.Dense(4 * self.filters, dtype=self.dtype_policy, name="condition")
            self.condition.build(inputs_shape[2])

    def call(self, inputs: Any) -> tuple[Any, Any]:
        return recomputed(self._block, self.remat)(*inputs)

    def _block(self, vertical: Any, horizontal: Any, *embeddings: Any) -> tuple[Any, Any]:
        above = self.from_above(self._rows_above(vertical))
        left = self.from_left(horizontal) + self.down(above)
        if embeddings:
            embedding = self.condition(embeddings[0])[:, None, None]
            to_above, to_left = ops.split(embedding, 2, axis=-1)
            above, left = above + to_above, left + to_left
        output = self.output_conv(gate(left))
        return gate(above), output if self.strict else horizontal + output

    def _rows_above(self, x: Any) -> Any:
        """Pads so that a pixel sees the rows up to its own, or up to the one above if `strict`."""
        half = self.kernel_size // 2
        x = x[:, :-1] if self.strict else x
        return ops.pad(x, ((0, 0), (half + self.strict, 0), (half, half), (0, 0)))

    def compute_output_shape(self, inputs_shape: Any) -> Any:
        shape = (*inputs_shape[0][:-1], self.filters)
        return shape, shape

    def get_config(self) -> dict[str, Any]:
        own = {
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strict": self.strict,
            "groups": self.groups,
            "remat": self.remat,
        }
        return {**super().get_config(), **own}


def gate(x: Any) -> Any:
    """Returns `tanh(a) sigmoid(b)` of adjacent channels a, b, which keeps groups of channels contiguous."""
    pairs = ops.reshape(x, (*ops.shape(x)[:-1], x.shape[-1] // 2, 2))
    return ops.tanh(pairs[..., 0]) * ops.sigmoid(pairs[..., 1])
