"""What all image networks read: `x_t`, `t` and perhaps a condition; the last two become one vector."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from keras_gen.core.checks import check, check_integer
from keras_gen.diffusion.sinusoidal_embedding import SinusoidalEmbedding


def network_inputs(
    image_shape: Sequence[int | None], num_classes: int | None = None, condition_dim: int | None = None
) -> list[Any]:
    """Returns the symbolic inputs of a network of images: two, or three with a condition.

    Args:
        image_shape: `(height, width, channels)`.
        num_classes: int >= 1 or `None`. Then the condition is a label in 0 .. num_classes - 1, or the null class
            `num_classes`.
        condition_dim: int >= 1 or `None`. Then the condition is a vector of this size; the null condition is zero.
    """
    # Real, since continuous schedules pass real times; a functional model converts integers.
    inputs = [keras.Input(tuple(image_shape), name="x_t"), keras.Input((), dtype="float32", name="t")]
    if num_classes is not None:
        check_integer("num_classes", num_classes)
        check(condition_dim is None, "condition_dim", "be None where num_classes is given", condition_dim)
        inputs.append(keras.Input((), dtype="int32", name="labels"))
    if condition_dim is not None:
        check_integer("condition_dim", condition_dim)
        inputs.append(keras.Input((int(condition_dim),), dtype="float32", name="condition"))
    return inputs


def embed(
    inputs: Sequence[Any],
    frequencies: int,
    width: int,
    num_classes: int | None = None,
    max_period: float = 10000.0,
    dtype: Any = None,
) -> Any:
    """Returns the embedding `(batch, width)` of the time, to which that of the condition is added.

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
    if len(inputs) == 2:
        return embedding
    if num_classes is not None:
        # One row more than there are classes: that of the null class.
        condition = layers.Embedding(num_classes + 1, width, name="label_embedding", **options)(inputs[2])
    else:
        # Without a bias, so that the null condition adds nothing.
        condition = layers.Dense(width, use_bias=False, name="condition_dense", **options)(inputs[2])
    return layers.Add(name="time_and_condition", **options)([embedding, condition])
