import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_gen.core.checks import check, check_integer
from keras_gen.export import keras_gen_export
from keras_gen.latent.straight_through import straight_through
from keras_gen.quantization.quantizer import MOST_CODES, Quantizer

MARGIN = 1e-3  # lets the outermost levels be reached by finite x


@keras_gen_export("keras_gen.layers.FiniteScalarQuantizer")
class FiniteScalarQuantizer(Quantizer):
    """Rounds each channel to one of a few fixed levels; the codes are all combinations of them, and nothing is learned.

        output = round(tanh(x + atanh(o / h)) h - o) / floor(L / 2),   h = (L - 1) (1 + 0.001) / 2,   o = 1/2 for even L

    with the gradient of the unrounded value. Outputs lie in [-1, 1]. There is no codebook that could collapse, and no
    loss.

    Args:
        levels: tuple of ints >= 2, the number of levels L of each channel. `(8, 5, 5, 5)` has 1,000 codes.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        x: float tensor `(batch, ..., len(levels))`.
        mask: bool tensor `(batch, ...)` or `None`; positions that are not counted in perplexity and usage.
        training: bool. Makes no difference.

    Returns:
        A tensor like `x`.

    Raises:
        ValueError: if `levels` is empty, has a number less than 2 or makes more than 2^24 codes, or `x` does not have
            one channel for each.

    Example:

    >>> quantizer = keras_gen.layers.FiniteScalarQuantizer((8, 5, 5, 5))

    Reference: Mentzer et al. 2023, arXiv:2309.15505; https://kexue.fm/archives/9826.
    """

    def __init__(self, levels: Sequence[int], **kwargs: Any):
        super().__init__(**kwargs)
        check(isinstance(levels, list | tuple) and len(levels) > 0, "levels", "be a tuple of ints >= 2", levels)
        self.levels = tuple(check_integer("levels", level, at_least=2) for level in levels)
        few = math.prod(self.levels) <= MOST_CODES
        check(few, "levels", f"have a product of at most {MOST_CODES}", self.levels)
        L = np.array(self.levels)
        self.half = ((L - 1) * (1 + MARGIN) / 2).astype("float32")
        self.offset = np.where(L % 2 == 0, 0.5, 0.0).astype("float32")
        self.shift = np.arctanh(self.offset / self.half).astype("float32")
        self.steps = (L // 2).astype("float32")
        # An index is a number whose digits are the levels, the first channel's the lowest.
        self.places = np.cumprod([1, *self.levels[:-1]]).astype("int32")

    @property
    def code_sizes(self) -> tuple[int, ...]:
        return (math.prod(self.levels),)

    def build(self, x_shape: tuple[int | None, ...]) -> None:
        self._check_channels(x_shape)
        super().build(x_shape)

    def assign_codes(self, x: Any, mask: Any, training: bool) -> tuple[Any, Any, dict[str, Any]]:
        bounded = self._bounded(x)
        rounded = ops.round(bounded)
        output = ops.divide(straight_through(rounded, bounded), self.steps)
        return ops.cast(output, self.compute_dtype), self._indices(rounded), {}

    def indices_of(self, x: Any) -> Any:
        self._check_channels(x.shape)
        return self._indices(ops.round(self._bounded(x)))

    def vectors_of(self, indices: Any) -> Any:
        indices = ops.expand_dims(indices, -1)
        digits = ops.mod(ops.floor_divide(indices, self.places), np.array(self.levels, "int32"))
        return ops.divide(ops.cast(digits, "float32"), self.steps) - 1.0

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "levels": list(self.levels)}

    def _check_channels(self, x_shape: Any) -> None:
        check(x_shape[-1] == len(self.levels), "x", f"have {len(self.levels)} channels", f"shape {tuple(x_shape)}")

    def _bounded(self, x: Any) -> Any:
        h = ops.tanh(ops.add(ops.cast(x, "float32"), self.shift))
        return ops.subtract(ops.multiply(h, self.half), self.offset)

    def _indices(self, rounded: Any) -> Any:
        digits = ops.cast(ops.add(ops.stop_gradient(rounded), self.steps), "int32")
        return ops.cast(ops.sum(ops.multiply(digits, self.places), axis=-1), "int32")
