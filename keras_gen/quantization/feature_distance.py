from typing import Any

import keras
from keras import ops

from keras_gen.core.checks import check, real_tensor, same_shape
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.losses.feature_distance")
def feature_distance(features_a: Any, features_b: Any) -> Any:
    """Computes the perceptual distance of two batches of features, normalized over the channels at each position.

        distance = mean over maps of mean over positions of |a / |a| - b / |b||^2

    It lies in [0, 4], and in [0, 2] for nonnegative features. Features that are all 0 stay 0, with a finite gradient.

    Args:
        features_a: float tensor `(batch, ..., channels)`, or a list of such maps, as returned by a Keras model.
        features_b: features of the same shapes, of the images to compare with.

    Returns:
        float32 tensor `(batch,)`.

    Raises:
        ValueError: if the shapes of the two differ, or a map has no channel axis.

    Reference: Zhang et al. 2018, arXiv:1801.03924, with equal weights of all channels.
    """
    maps_a, maps_b = (keras.tree.flatten(features) for features in (features_a, features_b))
    maps_a, maps_b = (
        [real_tensor(name, features) for features in maps]
        for name, maps in (("features_a", maps_a), ("features_b", maps_b))
    )
    shapes_a, shapes_b = ([tuple(features.shape) for features in maps] for maps in (maps_a, maps_b))
    is_maps = len(shapes_a) > 0 and all(len(shape) >= 2 for shape in shapes_a)
    check(is_maps, "features_a", "be feature maps (batch, ..., channels)", f"shapes {shapes_a}")
    is_same = len(shapes_a) == len(shapes_b) and all(same_shape(a, b) for a, b in zip(shapes_a, shapes_b, strict=True))
    check(is_same, "features_b", f"have the shapes of features_a, {shapes_a}", f"shapes {shapes_b}")
    distances = [_map_distance(a, b) for a, b in zip(maps_a, maps_b, strict=True)]
    return sum(distances) / len(distances)


def _map_distance(a: Any, b: Any) -> Any:
    squares = ops.sum(ops.square(_unit_norm(a) - _unit_norm(b)), axis=-1)
    return ops.mean(ops.reshape(squares, (ops.shape(squares)[0], -1)), axis=1)


def _unit_norm(features: Any) -> Any:
    features = ops.cast(features, "float32")
    # Epsilon inside the root: the gradient of a norm at 0 is NaN.
    return features * ops.rsqrt(ops.sum(ops.square(features), axis=-1, keepdims=True) + 1e-10)
