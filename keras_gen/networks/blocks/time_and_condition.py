"""What all image networks read: `x_t`, `t` and perhaps a condition; the last two become one vector.

A condition of tokens does not: it is read by attention.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from keras_gen.core.checks import check, check_integer, is_integer
from keras_gen.networks.blocks.sinusoidal_embedding import SinusoidalEmbedding

ConditionDim = int | tuple[int | None, int] | None


def network_inputs(
    image_shape: Sequence[int | None],
    num_classes: int | None = None,
    condition_dim: ConditionDim = None,
    attends: bool = False,
) -> list[Any]:
    """Returns the symbolic inputs of a network of images: two, or three with a condition.

    Args:
        image_shape: `(height, width, channels)`.
        num_classes: int >= 1 or `None`. Then the condition is a label in 0 .. num_classes - 1, or the null class
            `num_classes`.
        condition_dim: int >= 1 or `None`. Then the condition is a vector of this size; the null condition is zero. Or
            a pair `(tokens, dim)`, see `is_pair`: then it is so many vectors, or any number for `None`.
        attends: bool. Whether the network can read such tokens. Defaults to `False`.
    """
    # Real, since continuous schedules pass real times; a functional model converts integers.
    inputs = [keras.Input(tuple(image_shape), name="x_t"), keras.Input((), dtype="float32", name="t")]
    if num_classes is not None:
        check_integer("num_classes", num_classes)
        check(condition_dim is None, "condition_dim", "be None where num_classes is given", condition_dim)
        inputs.append(keras.Input((), dtype="int32", name="labels"))
    if condition_dim is not None:
        shape = condition_shape(condition_dim, attends)
        inputs.append(keras.Input(shape, dtype="float32", name="condition"))
    return inputs


def is_pair(condition_dim: Any) -> bool:
    """Returns whether `condition_dim` stands for tokens, not for one vector."""
    return isinstance(condition_dim, tuple | list)


def condition_shape(condition_dim: Any, attends: bool) -> tuple[int | None, ...]:
    """Returns the shape of one condition, a vector or tokens."""
    if not is_pair(condition_dim):
        return (check_integer("condition_dim", condition_dim),)
    rule = "be an integer >= 1: a pair is for networks with cross-attention, such as `UNet`"
    check(attends, "condition_dim", rule, condition_dim)
    valid = len(condition_dim) == 2 and is_integer(condition_dim[1]) and condition_dim[1] >= 1
    valid = valid and (condition_dim[0] is None or (is_integer(condition_dim[0]) and condition_dim[0] >= 1))
    check(
        valid, "condition_dim", "be an integer >= 1, or (tokens, dim), integers >= 1 or None for tokens", condition_dim
    )
    return tuple(None if size is None else int(size) for size in condition_dim)


def embed(
    inputs: Sequence[Any],
    frequencies: int,
    width: int,
    num_classes: int | None = None,
    max_period: float = 10000.0,
    dtype: Any = None,
) -> Any:
    """Returns the embedding `(batch, width)` of the time, to which that of the condition is added unless it is tokens.

    Args:
        inputs: what `network_inputs` returned.
        frequencies: int >= 1. Number of sines and cosines, rounded up to an even number.
        width: int >= 1.
        num_classes: as given to `network_inputs`.
        max_period: float > 1, of the sines and cosines.
        dtype: the layers' dtype policy.
    """
    options = {"dtype": dtype}
    embedding = SinusoidalEmbedding(frequencies + frequencies % 2, max_period, name="time", **options)(inputs[1])
    embedding = layers.Dense(width, activation="silu", name="time_dense_1", **options)(embedding)
    embedding = layers.Dense(width, name="time_dense_2", **options)(embedding)
    if len(inputs) == 2 or len(inputs[2].shape) == 3:
        return embedding
    if num_classes is not None:
        # One row more than there are classes: that of the null class.
        condition = layers.Embedding(num_classes + 1, width, name="label_embedding", **options)(inputs[2])
    else:
        # Without a bias, so that the null condition adds nothing.
        condition = layers.Dense(width, use_bias=False, name="condition_dense", **options)(inputs[2])
    return layers.Add(name="time_and_condition", **options)([embedding, condition])
