"""Inputs of the image networks, and the joint embedding of time and condition."""

import math
from collections.abc import Sequence
from typing import Any, TypeGuard

import keras
import numpy as np
from keras import layers, ops

from keras_gen.core.checks import check, check_greater, check_integer, is_integer
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.layers.SinusoidalEmbedding")
class SinusoidalEmbedding(keras.layers.Layer):
    """Sinusoidal time embedding: sines and cosines of decreasing frequencies.

        f_i = max_period^(-i / (dim / 2)),   output = [sin(t f_0), sin(t f_1), ..., cos(t f_0), cos(t f_1), ...]

    Computed in float32 under any dtype policy: half precision cannot distinguish times 999 and 1000.

    Args:
        dim: even int >= 2. Width of the embedding.
        max_period: float > 1. The longest period is `2 pi max_period`. Defaults to `10000.0`.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        t: `(batch,)`, integer or real times.

    Returns:
        `(batch, dim)`, in the layer's compute dtype.

    Raises:
        ValueError: if an argument is outside its range.

    Reference: Vaswani et al. 2017, arXiv:1706.03762, section 3.5; Ho et al. 2020, arXiv:2006.11239, appendix B.
    """

    def __init__(self, dim: int, max_period: float = 10000.0, **kwargs: Any):
        # A layer casts its float inputs to its compute dtype, in which 999 and 1000 may be equal.
        super().__init__(autocast=False, **kwargs)
        self.dim = check_integer("dim", dim, at_least=2)
        check(dim % 2 == 0, "dim", "be even", dim)
        self.max_period = check_greater("max_period", max_period, 1)

    def call(self, t: Any) -> Any:
        half = self.dim // 2
        frequencies = np.exp(np.arange(half) * (-math.log(self.max_period) / half))
        angles = ops.expand_dims(ops.cast(t, "float32"), -1) * ops.convert_to_tensor(frequencies, "float32")
        return ops.cast(ops.concatenate([ops.sin(angles), ops.cos(angles)], axis=-1), self.compute_dtype)

    def compute_output_shape(self, t_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*t_shape, self.dim)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "dim": self.dim, "max_period": self.max_period}


ConditionDim = int | tuple[int | None, int] | None


def network_inputs(
    image_shape: Sequence[int | None],
    num_classes: int | None = None,
    condition_dim: ConditionDim = None,
    attends: bool = False,
) -> list[Any]:
    """Returns the symbolic inputs of an image network: two, or three with a condition.

    Args:
        image_shape: `(height, width, channels)`.
        num_classes: int >= 1 or `None`. If given, the condition is a label in 0 .. num_classes - 1, or the null
            class `num_classes`.
        condition_dim: int >= 1 or `None`. If given, the condition is a vector of this size; the null condition is zero.
            Or a pair `(tokens, dim)`: a sequence of vectors, of any length if `tokens` is `None`.
        attends: bool. Whether the network supports such tokens. Defaults to `False`.
    """
    # Float, since continuous schedules pass real times; a functional model casts integers.
    inputs = [keras.Input(tuple(image_shape), name="x_t"), keras.Input((), dtype="float32", name="t")]
    if num_classes is not None:
        check_integer("num_classes", num_classes)
        check(condition_dim is None, "condition_dim", "be None where num_classes is given", condition_dim)
        inputs.append(keras.Input((), dtype="int32", name="labels"))
    if condition_dim is not None:
        shape = condition_shape(condition_dim, attends)
        inputs.append(keras.Input(shape, dtype="float32", name="condition"))
    return inputs


def is_pair(condition_dim: Any) -> TypeGuard[tuple[int | None, int]]:
    """Returns whether `condition_dim` is the shape of tokens, not the size of a vector."""
    return isinstance(condition_dim, tuple | list)


def condition_shape(condition_dim: Any, attends: bool) -> tuple[int | None, ...]:
    """Returns the shape of one condition, a vector or tokens."""
    if not is_pair(condition_dim):
        return (check_integer("condition_dim", condition_dim),)
    rule = "be an integer >= 1: a pair is for networks with cross-attention, such as `UNet`"
    check(attends, "condition_dim", rule, condition_dim)
    is_shape = len(condition_dim) == 2 and is_integer(condition_dim[1]) and condition_dim[1] >= 1
    is_shape = is_shape and (condition_dim[0] is None or (is_integer(condition_dim[0]) and condition_dim[0] >= 1))
    rule = "be an integer >= 1, or (tokens, dim), integers >= 1 or None for tokens"
    check(is_shape, "condition_dim", rule, condition_dim)
    return tuple(None if size is None else int(size) for size in condition_dim)


def embed(
    inputs: Sequence[Any],
    frequencies: int,
    width: int,
    num_classes: int | None = None,
    max_period: float = 10000.0,
    dtype: Any = None,
) -> Any:
    """Returns the embedding `(batch, width)` of the time, plus that of the condition unless it consists of tokens.

    Args:
        inputs: the result of `network_inputs`.
        frequencies: int >= 1. Number of sines and cosines, rounded up to an even number.
        width: int >= 1.
        num_classes: as given to `network_inputs`.
        max_period: float > 1, see `SinusoidalEmbedding`.
        dtype: the layers' dtype policy.
    """
    options = {"dtype": dtype}
    embedding = SinusoidalEmbedding(frequencies + frequencies % 2, max_period, name="time", **options)(inputs[1])
    embedding = layers.Dense(width, activation="silu", name="time_dense_1", **options)(embedding)
    embedding = layers.Dense(width, name="time_dense_2", **options)(embedding)
    if len(inputs) == 2 or len(inputs[2].shape) == 3:
        return embedding
    if num_classes is not None:
        # One additional row, for the null class.
        condition = layers.Embedding(num_classes + 1, width, name="label_embedding", **options)(inputs[2])
    else:
        # Without a bias, so that the null condition adds nothing.
        condition = layers.Dense(width, use_bias=False, name="condition_dense", **options)(inputs[2])
    return layers.Add(name="time_and_condition", **options)([embedding, condition])
