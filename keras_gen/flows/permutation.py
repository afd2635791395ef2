from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_gen.core.checks import check, is_integer
from keras_gen.core.per_sample import for_each_sample
from keras_gen.core.random import fixed_seed
from keras_gen.export import keras_gen_export
from keras_gen.flows.bijector import Bijector


@keras_gen_export("keras_gen.layers.Permutation")
class Permutation(Bijector):
    """Reorders the last axis: features of vectors, channels of images.

        y_i = x_{order(i)},   log_det = 0

    The order is a weight that is not trained: it is drawn once and saved.

    Args:
        order: `"random"`, `"reverse"`, or a sequence of the integers 0 .. features - 1. Defaults to `"random"`.
        seed: int or `None`. Seeds the random order. Defaults to `None`, another order for each layer.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        x: `(batch, ..., features)`.
        condition: is ignored. Defaults to `None`.
        inverse: bool. Defaults to `False`.
        training: bool. Defaults to `False`.

    Returns:
        y: a float32 tensor like `x`.
        log_det: float32 `(batch,)`, zeros.

    Raises:
        ValueError: if `order` is not a permutation, or not of as many features as `x` has.

    Example:

    >>> y, log_det = keras_gen.layers.Permutation(seed=0)(x)

    Reference: https://kexue.fm/archives/5776; Dinh et al. 2014, arXiv:1410.8516, section 5.1.
    """

    def __init__(self, order: str | Sequence[int] = "random", seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        if isinstance(order, str):
            check(order in ("random", "reverse"), "order", "be 'random', 'reverse' or a permutation", repr(order))
        else:
            whole = isinstance(order, list | tuple | np.ndarray) and all(is_integer(i) for i in order)
            check(whole, "order", "be 'random', 'reverse' or a permutation", order)
            order = [int(i) for i in order]
            check(sorted(order) == list(range(len(order))), "order", "hold each of 0 .. features - 1 once", order)
        self.order = order
        self.seed = None if seed is None else fixed_seed(seed)

    def build(self, x_shape: Any, condition_shape: Any = None) -> None:
        size = x_shape[-1]
        if isinstance(self.order, list):
            check(len(self.order) == size, "order", f"have as many entries as x has features, {size}", self.order)
            order = np.array(self.order)
        elif self.order == "reverse":
            order = np.arange(size)[::-1]
        else:
            order = np.random.default_rng(fixed_seed(self.seed)).permutation(size)
        self.indices = self.add_weight(
            name="indices",
            shape=(size,),
            initializer=lambda shape, dtype: ops.convert_to_tensor(order.astype("int32"), dtype),
            dtype="int32",
            trainable=False,
        )

    def forward_and_log_det(self, x: Any, condition: Any = None, training: bool = False) -> tuple[Any, Any]:
        return self._reorder(x, ops.convert_to_tensor(self.indices))

    def inverse_and_log_det(self, y: Any, condition: Any = None, training: bool = False) -> tuple[Any, Any]:
        return self._reorder(y, ops.argsort(ops.convert_to_tensor(self.indices)))

    def _reorder(self, x: Any, order: Any) -> tuple[Any, Any]:
        return ops.take(x, order, axis=-1), for_each_sample(0, x)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "order": self.order, "seed": self.seed}
