"""Bijectors that rearrange values: reshaping, squeezing, permutation."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_gen.core.arrays import broadcast_to_batch, constant, reordered
from keras_gen.core.checks import check, check_integer, is_integer
from keras_gen.core.random import check_seed, fixed_seed
from keras_gen.export import keras_gen_export
from keras_gen.flows.bijector import Bijector, sample_shape
from keras_gen.networks.blocks.upsampling import shuffle, unshuffle


@keras_gen_export("keras_gen.layers.Reshape", also=("keras_gen.bijectors.Reshape",))
class Reshape(Bijector):
    """Reshaping of samples, by default flattening of images to vectors. `log_det = 0`.

    Args:
        target_shape: sequence of ints, the new shape without the batch; one may be -1. Defaults to `(-1,)`.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        x: `(batch, ...)`.
        condition: ignored. Defaults to `None`.
        inverse: bool. Defaults to `False`.
        training: bool. Defaults to `False`.

    Returns:
        y: float32 `(batch, *target_shape)`.
        log_det: float32 `(batch,)`, zeros.

    Raises:
        ValueError: if `target_shape` is not a valid shape, or does not match the size of a sample.

    Example:

    >>> y, log_det = keras_gen.layers.Reshape()(images)        # (n, 28, 28, 1) -> (n, 784)

    Reference: https://kexue.fm/archives/5776 (NICE flattens images).
    """

    def __init__(self, target_shape: Sequence[int] = (-1,), **kwargs: Any):
        super().__init__(**kwargs)
        is_shape = isinstance(target_shape, list | tuple) and len(target_shape) > 0
        is_shape = is_shape and all(is_integer(size) and (size > 0 or size == -1) for size in target_shape)
        rule = "be positive integers, except for at most one -1"
        check(is_shape and list(target_shape).count(-1) <= 1, "target_shape", rule, target_shape)
        self.target_shape = tuple(int(size) for size in target_shape)

    def build(self, x_shape: Any, condition_shape: Any = None) -> None:
        self.x_shape = tuple(x_shape[1:])
        self.y_shape = self.output_shape(x_shape)[1:]

    def forward_and_log_det(self, x: Any, condition: Any = None, training: bool = False) -> tuple[Any, Any]:
        return ops.reshape(x, (-1, *self.y_shape)), broadcast_to_batch(0, x)

    def inverse_and_log_det(self, y: Any, condition: Any = None, training: bool = False) -> tuple[Any, Any]:
        return ops.reshape(y, (-1, *self.x_shape)), broadcast_to_batch(0, y)

    def output_shape(self, x_shape: Any) -> tuple[int | None, ...]:
        size = math.prod(sample_shape(x_shape))
        known = math.prod(n for n in self.target_shape if n != -1)
        is_compatible = size % known == 0 if -1 in self.target_shape else size == known
        check(is_compatible, "target_shape", f"hold the {size} values of a sample", self.target_shape)
        return (x_shape[0], *(size // known if n == -1 else n for n in self.target_shape))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "target_shape": self.target_shape}


@keras_gen_export("keras_gen.layers.Squeeze", also=("keras_gen.bijectors.Squeeze",))
class Squeeze(Bijector):
    """Squeezing of images (space to depth): `(h, w, c)` becomes `(h / f, w / f, f f c)`.

        y[i, j, (a f + b) c + k] = x[i f + a, j f + b, k],   log_det = 0

    Args:
        factor: int >= 2, the side length f of the squares that become channels. Defaults to `2`.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        x: `(batch, height, width, channels)`.
        condition: ignored. Defaults to `None`.
        inverse: bool. Defaults to `False`.
        training: bool. Defaults to `False`.

    Returns:
        y: float32 `(batch, height / factor, width / factor, factor^2 channels)`.
        log_det: float32 `(batch,)`, zeros.

    Raises:
        ValueError: if `factor` is less than 2, or does not divide height and width.

    Example:

    >>> y, log_det = keras_gen.layers.Squeeze()(images)        # (n, 28, 28, 1) -> (n, 14, 14, 4)

    Reference: https://kexue.fm/archives/5807; Dinh et al. 2016, arXiv:1605.08803, section 3.6.
    """

    def __init__(self, factor: int = 2, **kwargs: Any):
        super().__init__(**kwargs)
        self.factor = check_integer("factor", factor, at_least=2)

    def build(self, x_shape: Any, condition_shape: Any = None) -> None:
        check(len(x_shape) == 4, "x", "be images (batch, height, width, channels)", f"shape {tuple(x_shape)}")
        f, sides = self.factor, x_shape[1:3]
        divisible = all(side is not None and side % f == 0 for side in sides)
        check(divisible, "x", f"have height and width divisible by {f}", f"shape {tuple(x_shape)}")

    def forward_and_log_det(self, x: Any, condition: Any = None, training: bool = False) -> tuple[Any, Any]:
        return unshuffle(x, self.factor, "dcr"), broadcast_to_batch(0, x)

    def inverse_and_log_det(self, y: Any, condition: Any = None, training: bool = False) -> tuple[Any, Any]:
        return shuffle(y, self.factor, "dcr"), broadcast_to_batch(0, y)

    def output_shape(self, x_shape: Any) -> tuple[int | None, ...]:
        batch, h, w, c = x_shape
        return batch, h // self.factor, w // self.factor, c * self.factor**2

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "factor": self.factor}


@keras_gen_export("keras_gen.layers.Permutation", also=("keras_gen.bijectors.Permutation",))
class Permutation(Bijector):
    """Permutation of the last axis: features of vectors, channels of images.

        y_i = x_{order(i)},   log_det = 0

    The order is a non-trainable weight: it is drawn once and saved.

    Args:
        order: `"random"`, `"reverse"`, or a sequence of the integers 0 .. features - 1. Defaults to `"random"`.
        seed: int or `None`. Seeds the random order. Defaults to `None`, a different order for each layer.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        x: `(batch, ..., features)`.
        condition: ignored. Defaults to `None`.
        inverse: bool. Defaults to `False`.
        training: bool. Defaults to `False`.

    Returns:
        y: a float32 tensor like `x`.
        log_det: float32 `(batch,)`, zeros.

    Raises:
        ValueError: if `order` is not a permutation, or does not match the features of `x`.

    Example:

    >>> y, log_det = keras_gen.layers.Permutation(seed=0)(x)

    Reference: https://kexue.fm/archives/5776; Dinh et al. 2014, arXiv:1410.8516, section 5.1.
    """

    def __init__(self, order: str | Sequence[int] = "random", seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        if isinstance(order, str):
            check(order in ("random", "reverse"), "order", "be 'random', 'reverse' or a permutation", repr(order))
        else:
            is_integers = isinstance(order, list | tuple | np.ndarray) and all(is_integer(i) for i in order)
            check(is_integers, "order", "be 'random', 'reverse' or a permutation", order)
            order = [int(i) for i in order]
            check(sorted(order) == list(range(len(order))), "order", "contain each of 0 .. features - 1 once", order)
        self.order = order
        self.seed = check_seed(seed)

    def build(self, x_shape: Any, condition_shape: Any = None) -> None:
        size = x_shape[-1]
        if isinstance(self.order, list):
            check(len(self.order) == size, "order", f"have one entry per feature of x, {size}", self.order)
            order = np.array(self.order)
        elif self.order == "reverse":
            order = np.arange(size)[::-1]
        else:
            order = np.random.default_rng(fixed_seed(self.seed)).permutation(size)
        self.indices = self.add_weight(
            name="indices", shape=(size,), initializer=constant(order), dtype="int32", trainable=False
        )

    def forward_and_log_det(self, x: Any, condition: Any = None, training: bool = False) -> tuple[Any, Any]:
        return self._reorder(x, ops.convert_to_tensor(self.indices))

    def inverse_and_log_det(self, y: Any, condition: Any = None, training: bool = False) -> tuple[Any, Any]:
        return self._reorder(y, ops.argsort(ops.convert_to_tensor(self.indices)))

    def _reorder(self, x: Any, order: Any) -> tuple[Any, Any]:
        return reordered(x, order), broadcast_to_batch(0, x)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "order": self.order, "seed": self.seed}
