"""Compositions of bijectors."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.checks import check, known_size
from keras_gen.export import keras_gen_export
from keras_gen.flows.bijector import Bijector, build_layer, build_shape_preserving, check_bijector, sample_shape
from keras_gen.flows.coupling import LastAxisSplit


def check_bijectors(name: str, bijectors: Any) -> list[Bijector]:
    """Returns the bijectors as a list; rejects anything else."""
    check(isinstance(bijectors, list | tuple) and len(bijectors) > 0, name, "be a list of bijectors", bijectors)
    for bijector in bijectors:
        check_bijector(name, bijector, "contain only bijectors")
    return list(bijectors)


@keras_gen_export("keras_gen.layers.Chain", also=("keras_gen.bijectors.Chain",))
class Chain(Bijector):
    """Composition of bijectors, applied in sequence.

        y = f_n(... f_2(f_1(x))),   log_det = sum of all log_dets

    Args:
        bijectors: non-empty sequence of bijectors; the first one acts on the data.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        x: `(batch, ...)`.
        condition: `(batch, ...)` or `None`. Passed to each bijector. Defaults to `None`.
        inverse: bool. Defaults to `False`.
        training: bool. Defaults to `False`.

    Returns:
        y: `(batch, ...)`.
        log_det: float32 `(batch,)`.

    Raises:
        ValueError: if `bijectors` is not a non-empty list of bijectors.

    Example:

    >>> coupling = keras_gen.layers.AdditiveCoupling
    >>> chain = keras_gen.layers.Chain([coupling(units=[64], flip=flip) for flip in (False, True)])
    >>> y, log_det = chain(x)

    Reference: https://kexue.fm/archives/5776.
    """

    def __init__(self, bijectors: Sequence[Bijector], **kwargs: Any):
        super().__init__(**kwargs)
        self.bijectors = check_bijectors("bijectors", bijectors)

    def build(self, x_shape: Any, condition_shape: Any = None) -> None:
        for bijector in self.bijectors:
            build_layer(bijector, x_shape, condition_shape)
            x_shape = bijector.output_shape(x_shape)

    def forward_and_log_det(self, x: Any, condition: Any = None, training: bool = False) -> tuple[Any, Any]:
        return self._run(self.bijectors, x, condition, inverse=False, training=training)

    def inverse_and_log_det(self, y: Any, condition: Any = None, training: bool = False) -> tuple[Any, Any]:
        return self._run(self.bijectors[::-1], y, condition, inverse=True, training=training)

    @property
    def takes_noise(self) -> bool:
        return self.bijectors[0].takes_noise

    def forward_with_noise(self, x: Any, noise: Any, condition: Any = None) -> tuple[Any, Any]:
        first, *others = self.bijectors
        x, log_det = first.forward_with_noise(x, noise, condition)
        x, other_log_dets = self._run(others, x, condition, inverse=False, training=False)
        return x, log_det + other_log_dets

    def _run(
        self, bijectors: Sequence[Bijector], x: Any, condition: Any, inverse: bool, training: bool
    ) -> tuple[Any, Any]:
        log_dets = []
        for bijector in bijectors:
            x, log_det = bijector(x, condition, inverse=inverse, training=training)
            log_dets.append(log_det)
        return x, sum(log_dets)

    def check_data(self, name: str, x: np.ndarray) -> None:
        self.bijectors[0].check_data(name, x)

    def output_shape(self, x_shape: Any) -> tuple[int | None, ...]:
        for bijector in self.bijectors:
            x_shape = bijector.output_shape(x_shape)
        return x_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "bijectors": [keras.saving.serialize_keras_object(b) for b in self.bijectors]}


@keras_gen_export("keras_gen.layers.Invert", also=("keras_gen.bijectors.Invert",))
class Invert(Bijector):
    """Inverse of a bijector, with shared weights.

        y = f^{-1}(x)

    `Invert(MaskedAutoregressive(...))` is an inverse autoregressive flow (IAF): sampling is the fast direction.

    Args:
        bijector: the bijector f; it must preserve the shape of its input.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        x: `(batch, ...)`.
        condition: `(batch, ...)` or `None`. Passed to `bijector`. Defaults to `None`.
        inverse: bool. Defaults to `False`.
        training: bool. Defaults to `False`.

    Returns:
        y: a tensor like `x`.
        log_det: float32 `(batch,)`.

    Raises:
        ValueError: if `bijector` is not a bijector, or changes the shape of `x`.

    Example:

    >>> inverse_autoregressive = keras_gen.layers.Invert(keras_gen.layers.MaskedAutoregressive([64]))

    Reference: Kingma et al. 2016, arXiv:1606.04934; Papamakarios et al. 2017, arXiv:1705.07057.
    """

    def __init__(self, bijector: Bijector, **kwargs: Any):
        super().__init__(**kwargs)
        check_bijector("bijector", bijector)
        self.bijector = bijector

    def build(self, x_shape: Any, condition_shape: Any = None) -> None:
        build_shape_preserving(self.bijector, x_shape, condition_shape)

    def forward_and_log_det(self, x: Any, condition: Any = None, training: bool = False) -> tuple[Any, Any]:
        return self.bijector(x, condition, inverse=True, training=training)

    def inverse_and_log_det(self, y: Any, condition: Any = None, training: bool = False) -> tuple[Any, Any]:
        return self.bijector(y, condition, training=training)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "bijector": keras.saving.serialize_keras_object(self.bijector)}


@keras_gen_export("keras_gen.layers.MultiScale", also=("keras_gen.bijectors.MultiScale",))
class MultiScale(Bijector):
    """Multi-scale architecture: after each level but the last, half of the channels are factored out.

        h_0 = x;   (z_i, h_i) = halves(f_i(h_{i-1}));   y = (z_1, ..., z_{n-1}, f_n(h_{n-1})) as one vector

    Of an odd number of channels, one more is kept than is factored out.

    End a level with an `AffineCoupling(..., split="channel", flip=True)` to make the factored-out half Gaussian, with
    mean and scale predicted from the remaining half (learned prior).

    Args:
        levels: sequence of bijectors f, such as a `Chain` that starts with `Squeeze`; the first one acts on the data.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        x: `(batch, ..., channels)`.
        condition: `(batch, ...)` or `None`. Passed to each level. Defaults to `None`.
        inverse: bool. Defaults to `False`.
        training: bool. Defaults to `False`.

    Returns:
        y: float32 `(batch, dimensions)`, flattened.
        log_det: float32 `(batch,)`.

    Raises:
        ValueError: if `levels` is not a non-empty list of bijectors, or a level before the last outputs a single
            channel.

    Example:

    >>> levels = [keras_gen.layers.Chain([keras_gen.layers.Squeeze(), ...]) for _ in range(2)]
    >>> z, log_det = keras_gen.layers.MultiScale(levels)(images)

    Reference: https://kexue.fm/archives/5807; Dinh et al. 2016, arXiv:1605.08803, section 3.6.
    """

    def __init__(self, levels: Sequence[Bijector], **kwargs: Any):
        super().__init__(**kwargs)
        self.levels = check_bijectors("levels", levels)

    def build(self, x_shape: Any, condition_shape: Any = None) -> None:
        sample_shape(x_shape)
        self.halves = LastAxisSplit()
        self.part_shapes = []
        for level in self.levels[:-1]:
            build_layer(level, x_shape, condition_shape)
            y_shape = level.output_shape(x_shape)
            self.halves.check(y_shape)
            is_wide = known_size("x", y_shape) > 1
            check(is_wide, "x", "have at least 2 channels before half are factored out", f"shape {y_shape}")
            part_shape, x_shape = self.halves.half_shapes(y_shape)
            self.part_shapes.append(part_shape[1:])
        build_layer(self.levels[-1], x_shape, condition_shape)
        self.part_shapes.append(self.levels[-1].output_shape(x_shape)[1:])

    def forward_and_log_det(self, x: Any, condition: Any = None, training: bool = False) -> tuple[Any, Any]:
        parts, log_dets = [], []
        for i, level in enumerate(self.levels):
            x, log_det = level(x, condition, training=training)
            log_dets.append(log_det)
            part, x = self.halves.parts(x) if i < len(self.levels) - 1 else (x, None)
            parts.append(ops.reshape(part, (-1, math.prod(self.part_shapes[i]))))
        return ops.concatenate(parts, axis=1), sum(log_dets)

    def inverse_and_log_det(self, y: Any, condition: Any = None, training: bool = False) -> tuple[Any, Any]:
        ends = np.cumsum([math.prod(shape) for shape in self.part_shapes])[:-1]
        parts = ops.split(y, [int(end) for end in ends], axis=1) if len(ends) else [y]
        x, log_dets = None, []
        for level, shape, part in zip(self.levels[::-1], self.part_shapes[::-1], parts[::-1], strict=True):
            part = ops.reshape(part, (-1, *shape))
            y = part if x is None else self.halves.join(part, x)
            x, log_det = level(y, condition, inverse=True, training=training)
            log_dets.append(log_det)
        return x, sum(log_dets)

    def check_data(self, name: str, x: np.ndarray) -> None:
        self.levels[0].check_data(name, x)

    def output_shape(self, x_shape: Any) -> tuple[int | None, ...]:
        return x_shape[0], math.prod(x_shape[1:])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "levels": [keras.saving.serialize_keras_object(b) for b in self.levels]}
