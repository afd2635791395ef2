"""Coupling layers: one half of the dimensions parametrizes an elementwise transform of the other half."""

import abc
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from keras_gen.core.arrays import broadcast_to_batch, sum_per_sample
from keras_gen.core.checks import check, check_choice, check_units
from keras_gen.export import keras_gen_export
from keras_gen.flows.bijector import Bijector
from keras_gen.flows.conditioner import Conditioner


class LastAxisSplit:
    """The first and the second half of the last axis: features of vectors, channels of images."""

    rank = None
    axis = -1
    rule = "have an even size on the last axis (and at least 2)"

    def check(self, shape: Any) -> None:
        """Refuses data that cannot be halved."""
        fits = self.rank is None or len(shape) == self.rank
        check(fits and len(shape) > 1, "x", "be images (batch, height, width, channels)", f"shape {tuple(shape)}")
        size = shape[self.axis]
        check(size is not None and size % 2 == 0, "x", self.rule, f"shape {tuple(shape)}")

    def half_shape(self, shape: Any) -> tuple[Any, ...]:
        """Returns the shape of each half."""
        half = list(shape)
        half[self.axis] //= 2
        return tuple(half)

    def seen_shape(self, shape: Any) -> tuple[Any, ...]:
        """Returns the shape of what a conditioner sees."""
        return self.half_shape(shape)

    def parts(self, x: Any) -> tuple[Any, Any]:
        """Returns the two halves."""
        a, b = ops.split(x, 2, axis=-1)
        return a, b

    def join(self, a: Any, b: Any) -> Any:
        """Puts the halves together."""
        return ops.concatenate([a, b], axis=-1)

    def seen(self, a: Any, first: bool) -> Any:
        """Returns what a conditioner sees of the half `a`, the first or the second one."""
        return a

    def half_of_seen(self, output: Any, first: bool) -> Any:
        """Returns what a conditioner's output says about the other half."""
        return output


class ChannelSplit(LastAxisSplit):
    """The first and the second half of the channels of images."""

    rank = 4


class InterleavedSplit(LastAxisSplit):
    """The even and the odd places of the last axis."""

    def parts(self, x: Any) -> tuple[Any, Any]:
        pairs = ops.reshape(x, (*ops.shape(x)[:-1], x.shape[-1] // 2, 2))
        return pairs[..., 0], pairs[..., 1]

    def join(self, a: Any, b: Any) -> Any:
        pairs = ops.stack([a, b], axis=-1)
        return ops.reshape(pairs, (*ops.shape(a)[:-1], 2 * a.shape[-1]))


class CheckerboardSplit(LastAxisSplit):
    """The two colors of a checkerboard laid on images: halves of half the width.

    A conditioner sees the whole image, with zeros on the other color, so that neighbors stay neighbors.
    """

    rank = 4
    axis = 2
    rule = "have an even width"

    def seen_shape(self, shape: Any) -> tuple[Any, ...]:
        return tuple(shape)

    def parts(self, x: Any) -> tuple[Any, Any]:
        shape = ops.shape(x)
        pairs = ops.reshape(x, (shape[0], shape[1], x.shape[2] // 2, 2, x.shape[3]))
        left, right = pairs[:, :, :, 0], pairs[:, :, :, 1]
        even = self._even_rows(x)
        return ops.where(even, left, right), ops.where(even, right, left)

    def join(self, a: Any, b: Any) -> Any:
        even = self._even_rows(a)
        pairs = ops.stack([ops.where(even, a, b), ops.where(even, b, a)], axis=3)
        shape = ops.shape(a)
        return ops.reshape(pairs, (shape[0], shape[1], 2 * a.shape[2], a.shape[3]))

    def seen(self, a: Any, first: bool) -> Any:
        other = ops.zeros_like(a)
        return self.join(a, other) if first else self.join(other, a)

    def half_of_seen(self, output: Any, first: bool) -> Any:
        return self.parts(output)[1 if first else 0]

    def _even_rows(self, x: Any) -> Any:
        return ops.reshape(ops.arange(ops.shape(x)[1]) % 2 == 0, (1, -1, 1, 1))


SPLITS = {
    "half": LastAxisSplit,
    "interleave": InterleavedSplit,
    "checkerboard": CheckerboardSplit,
    "channel": ChannelSplit,
}


class Coupling(Bijector):
    """Base class of couplings: half of the numbers say how the other half is transformed.

        y_a = x_a,   y_b = transform(x_b; conditioner(x_a))

    To write another: define `parameters_per_number` and `transform`, and `get_config` for the arguments of its own.
    The last axis of a conditioner's output holds the parameters of the first number, then those of the second, ...
    """

    def __init__(
        self,
        conditioner: keras.Layer | None = None,
        units: Sequence[int] | None = None,
        split: str = "half",
        flip: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        one = (conditioner is None) != (units is None)
        check(one, "conditioner", "be given, or else `units`", f"{conditioner}, units={units}")
        is_layer = conditioner is None or isinstance(conditioner, keras.Layer)
        check(is_layer, "conditioner", "be a keras.Layer or keras.Model", conditioner)
        check_choice("split", split, SPLITS)
        self.given = conditioner is not None
        self.conditioner = conditioner
        self.units = None if units is None else check_units(units)
        self.split = split
        self.halves = SPLITS[split]()
        self.flip = bool(flip)

    @property
    @abc.abstractmethod
    def parameters_per_number(self) -> int:
        """How many parameters `transform` needs for each number of `x_b`."""

    @abc.abstractmethod
    def transform(self, x: Any, parameters: Any, inverse: bool) -> tuple[Any, Any]:
        """Transforms a half by parameters `(*x.shape, parameters_per_number)`: returns it and the log-determinant."""

    def build(self, x_shape: Any, condition_shape: Any = None) -> None:
        self.halves.check(x_shape)
        seen = self.halves.seen_shape(x_shape)
        if self.conditioner is None:
            outputs = seen[-1] * self.parameters_per_number
            self.conditioner = Conditioner(outputs, self.units, dtype=self.dtype_policy, name="conditioner")
        if not self.conditioner.built:
            self.conditioner.build(seen if condition_shape is None else [seen, tuple(condition_shape)])

    def forward_and_log_det(self, x: Any, condition: Any = None, training: bool = False) -> tuple[Any, Any]:
        return self._couple(x, condition, training, inverse=False)

    def inverse_and_log_det(self, y: Any, condition: Any = None, training: bool = False) -> tuple[Any, Any]:
        return self._couple(y, condition, training, inverse=True)

    def _couple(self, x: Any, condition: Any, training: bool, inverse: bool) -> tuple[Any, Any]:
        a, b = self.halves.parts(x)
        if self.flip:
            a, b = b, a
        b, log_det = self.transform(b, self._conditioned(a, b, condition, training), inverse)
        return self.halves.join(*((b, a) if self.flip else (a, b))), log_det

    def _conditioned(self, a: Any, b: Any, condition: Any, training: bool) -> Any:
        seen = self.halves.seen(a, first=not self.flip)
        output = self.conditioner(seen if condition is None else [seen, condition], training=training)
        width = a.shape[-1] * self.parameters_per_number
        expected = (*seen.shape[1:-1], width)
        fits = tuple(output.shape[1:]) == expected or (None in seen.shape[1:-1] and output.shape[-1] == width)
        check(fits, "conditioner", f"give outputs of shape (batch, {', '.join(map(str, expected))})", output.shape)
        output = self.halves.half_of_seen(ops.cast(output, self.bijection_dtype), first=not self.flip)
        return ops.reshape(output, (*ops.shape(b), self.parameters_per_number))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "conditioner": keras.saving.serialize_keras_object(self.conditioner) if self.given else None,
            "units": self.units,
            "split": self.split,
            "flip": self.flip,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Coupling":
        return cls(**keras.saving.deserialize_keras_object(config))


@keras_gen_export("keras_gen.layers.AdditiveCoupling", also=("keras_gen.bijectors.AdditiveCoupling",))
class AdditiveCoupling(Coupling):
    """Additive coupling of NICE: adds to one half what a network makes of the other.

        y_a = x_a,   y_b = x_b + m(x_a),   log_det = 0

    Args:
        conditioner: a Keras layer or model `m`. It is called with the half `x_a`, or with a list of it and the
            condition, and its output is added to `x_b`. Defaults to `None`, a `Conditioner` with `units`.
        units: sizes of the hidden layers of the default conditioner. Defaults to `None`.
        split: `"half"`, `"interleave"`, of the last axis; for images also `"channel"`, `"checkerboard"`. Defaults to
            `"half"`.
        flip: bool. Whether the second half is the unchanged one. Defaults to `False`.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        x: `(batch, features)` or `(batch, height, width, channels)`.
        condition: `(batch, ...)` or `None`. Goes to the conditioner. Defaults to `None`.
        inverse: bool. Defaults to `False`.
        training: bool. Defaults to `False`.

    Returns:
        y: a float32 tensor like `x`.
        log_det: float32 `(batch,)`, zeros.

    Raises:
        ValueError: if not exactly one of `conditioner` and `units` is given, the data cannot be halved, or the
            conditioner's output has not the shape of a half.

    Example:

    >>> y, log_det = keras_gen.layers.AdditiveCoupling(units=[64, 64], split="interleave")(x)

    Reference: https://kexue.fm/archives/5776; Dinh et al. 2014, arXiv:1410.8516, section 3.2.
    """

    parameters_per_number = 1

    def transform(self, x: Any, parameters: Any, inverse: bool) -> tuple[Any, Any]:
        shift = parameters[..., 0]
        return (x - shift if inverse else x + shift), broadcast_to_batch(0, x)


SCALE_MAPS = {
    "tanh": lambda s: 4 * ops.sigmoid(s) - 2,  # 2 tanh(s / 2); Keras 3.15 computes tanh in float32 on JAX, always
    "softclip": lambda s: s / (1 + ops.abs(s) / math.log(1000)),
    "sigmoid": lambda s: -ops.softplus(-s - 2),
    "exp": lambda s: s,
}


def get_scale_map(scale_map: Any) -> Callable[[Any], Any]:
    """Returns the map of a name, or a function as it is."""
    known = callable(scale_map) or (isinstance(scale_map, str) and scale_map in SCALE_MAPS)
    check(known, "scale_map", f"be a function or one of {', '.join(map(repr, SCALE_MAPS))}", repr(scale_map))
    return scale_map if callable(scale_map) else SCALE_MAPS[scale_map]


@keras_gen_export("keras_gen.layers.AffineCoupling", also=("keras_gen.bijectors.AffineCoupling",))
class AffineCoupling(Coupling):
    """Affine coupling of RealNVP: scales and shifts one half by what a network makes of the other.

        t, s = conditioner(x_a);   y_a = x_a,   y_b = x_b exp(g(s)) + t,   log_det = sum g(s)

    The scale map `g` bounds the scale, so that neither direction overflows: `"tanh"`, 2 tanh(s / 2), or `"softclip"`,
    s / (1 + |s| / log 1000). `"sigmoid"`, log sigmoid(s + 2), bounds it from above alone, and `"exp"`, s itself, not at
    all.

    Args:
        conditioner: a Keras layer or model. It is called with the half `x_a`, or with a list of it and the condition.
            The last axis of its output is twice that of `x_b`: shift and `s` of the first number, of the second, ...
            Defaults to `None`, a `Conditioner` with `units`.
        units: sizes of the hidden layers of the default conditioner. Defaults to `None`.
        split: `"half"`, `"interleave"`, of the last axis; for images also `"channel"`, `"checkerboard"`. Defaults to
            `"half"`.
        flip: bool. Whether the second half is the unchanged one. Defaults to `False`.
        scale_map: name of the scale map `g`, or a serializable function. Defaults to `"tanh"`.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        x: `(batch, features)` or `(batch, height, width, channels)`.
        condition: `(batch, ...)` or `None`. Goes to the conditioner. Defaults to `None`.
        inverse: bool. Defaults to `False`.
        training: bool. Defaults to `False`.

    Returns:
        y: a float32 tensor like `x`.
        log_det: float32 `(batch,)`.

    Raises:
        ValueError: if not exactly one of `conditioner` and `units` is given, the data cannot be halved, the
            conditioner's output does not fit, or the scale map is unknown.

    Example:

    >>> y, log_det = keras_gen.layers.AffineCoupling(units=[64, 64])(x)

    Reference: https://kexue.fm/archives/5807; Dinh et al. 2016, arXiv:1605.08803, section 3.2.
    """

    parameters_per_number = 2

    def __init__(
        self,
        conditioner: keras.Layer | None = None,
        units: Sequence[int] | None = None,
        split: str = "half",
        flip: bool = False,
        scale_map: Any = "tanh",
        **kwargs: Any,
    ):
        super().__init__(conditioner, units, split, flip, **kwargs)
        self.scale_map = scale_map
        self.log_scale = get_scale_map(scale_map)

    def transform(self, x: Any, parameters: Any, inverse: bool) -> tuple[Any, Any]:
        shift, log_scale = parameters[..., 0], self.log_scale(parameters[..., 1])
        if inverse:
            return (x - shift) * ops.exp(-log_scale), -sum_per_sample(log_scale)
        return x * ops.exp(log_scale) + shift, sum_per_sample(log_scale)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "scale_map": keras.saving.serialize_keras_object(self.scale_map)}
