"""Group normalization."""

from typing import Any

import keras
from keras import ops

from keras_gen.core.checks import check, check_divides, check_integer, check_positive, known_size
from keras_gen.core.torch.kernels import normalize_groups
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.layers.GroupNorm")
class GroupNorm(keras.layers.Layer):
    """Group normalization: `y = gamma (x - mean) / sqrt(var + epsilon) + beta`, per sample and group of channels.

    Equivalent to `keras.layers.GroupNormalization(axis=-1)`, but faster on every backend: statistics are summed per
    channel, and normalization becomes one multiply-add per pixel; PyTorch uses its native kernel. Statistics are
    float32 under any dtype policy.

    Args:
        groups: int >= 1. Must divide the number of channels. Groups consist of adjacent channels. Defaults to `8`.
        epsilon: float > 0. Added to the variance. Defaults to `1e-5`.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        x: `(batch, ..., channels)`.

    Returns:
        A tensor like `x`.

    Raises:
        ValueError: if an argument is outside its range, `groups` does not divide the number of channels, or `x` has no
            axis between batch and channels.

    Reference: Wu and He 2018, arXiv:1803.08494.
    """

    def __init__(self, groups: int = 8, epsilon: float = 1e-5, **kwargs: Any):
        super().__init__(**kwargs)
        self.groups = check_integer("groups", groups)
        self.epsilon = check_positive("epsilon", epsilon)

    def build(self, x_shape: tuple[int | None, ...]) -> None:
        check(len(x_shape) > 2, "x", "have shape (batch, ..., channels)", f"shape {tuple(x_shape)}")
        channels = known_size("x", x_shape)
        check_divides("groups", self.groups, channels)
        self.gamma = self.add_weight(name="gamma", shape=(channels,), initializer="ones")
        self.beta = self.add_weight(name="beta", shape=(channels,), initializer="zeros")

    def call(self, x: Any) -> Any:
        x, gamma, beta = (ops.cast(tensor, "float32") for tensor in (x, self.gamma, self.beta))
        return ops.cast(normalize_groups(x, gamma, beta, self.groups, self.epsilon), self.compute_dtype)

    def compute_output_shape(self, x_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return x_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "groups": self.groups, "epsilon": self.epsilon}


def groups_for(channels: int) -> int:
    """Returns the number of groups: 8, or fewer if 8 does not divide `channels` or leaves less than 4 channels each.

    A group of one channel would cancel any constant added to the channel, such as the time embedding.
    """
    return next((groups for groups in (8, 4, 2) if channels % groups == 0 and channels // groups >= 4), 1)
