"""Coupling layers: one half of the dimensions parametrizes an elementwise transform of the other half."""

import abc
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from keras_gen.core.arrays import broadcast_to_batch, sum_per_sample
from keras_gen.core.checks import check, check_choice, check_flag, check_units
from keras_gen.export import keras_gen_export
from keras_gen.flows.bijector import Bijector
from keras_gen.flows.conditioner import Conditioner, check_network


class LastAxisSplit:
    """Split of the last axis into first and second half: features of vectors, channels of images.

    Of an odd size, the second half has one more. Of a size of 1, the first half is empty.
    """

    rank: int | None = None
    axis = -1
    multiple = 1  # divides the size of the axis
    rule = "have a size of at least 1 on the last axis"

    def check(self, shape: Any) -> None:
        """Rejects data that cannot be split into halves."""
        is_valid_rank = len(shape) > 1 and self.rank in (None, len(shape))
        check(is_valid_rank, "x", "be images (batch, height, width, channels)", f"shape {tuple(shape)}")
        size = shape[self.axis]
        is_size = size is not None and size > 0 and size % self.multiple == 0
        check(is_size, "x", self.rule, f"shape {tuple(shape)}")

    def first_size(self, size: int) -> int:
        """Returns the size of the first half of an axis."""
        return size // 2

    def half_shapes(self, shape: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Returns the shapes of both halves."""
        first, second = list(shape), list(shape)
        first[self.axis] = self.first_size(shape[self.axis])
        second[self.axis] -= first[self.axis]
        return tuple(first), tuple(second)

    def conditioner_input_shape(self, shape: Any, first: bool) -> tuple[Any, ...]:
        """Returns the shape of the conditioner's input for the first or the second half of data of `shape`."""
        half = self.half_shapes(shape)[0 if first else 1]
        return (*half[:-1], max(1, half[-1]))

    def parts(self, x: Any) -> tuple[Any, Any]:
        """Splits `x` into its two halves."""
        size = self.first_size(x.shape[-1])  # `ops.split` would lose the sizes of the halves in PyTorch's exporter
        return x[..., :size], x[..., size:]

    def join(self, a: Any, b: Any) -> Any:
        """Merges the two halves."""
        return ops.concatenate([a, b], axis=-1)

    def conditioner_input(self, a: Any, first: bool) -> Any:
        """Returns the conditioner's input for the half `a`, the first or the second one; a constant if it is empty."""
        return a if a.shape[-1] else ops.ones((*ops.shape(a)[:-1], 1), a.dtype)

    def conditioner_output(self, output: Any, first: bool) -> Any:
        """Returns the part of the conditioner's output that belongs to the other half."""
        return output


class ChannelSplit(LastAxisSplit):
    """Split of image channels into first and second half."""

    rank = 4


class InterleavedSplit(LastAxisSplit):
    """Split of the last axis into even and odd positions, counted from 0: of an odd size, one more is even."""

    def first_size(self, size: int) -> int:
        return -(-size // 2)

    def parts(self, x: Any) -> tuple[Any, Any]:
        if x.shape[-1] % 2:
            return x[..., ::2], x[..., 1::2]
        pairs = ops.reshape(x, (*ops.shape(x)[:-1], x.shape[-1] // 2, 2))
        return pairs[..., 0], pairs[..., 1]

    def join(self, a: Any, b: Any) -> Any:
        paired = b.shape[-1]
        pairs = ops.stack([a[..., :paired], b], axis=-1)
        joined = ops.reshape(pairs, (*ops.shape(b)[:-1], 2 * paired))
        return joined if a.shape[-1] == paired else ops.concatenate([joined, a[..., paired:]], axis=-1)


class CheckerboardSplit(LastAxisSplit):
    """Checkerboard split of images: each half has half the width.

    The conditioner's input is a full-size image with zeros at the other color, so that neighbors stay neighbors.
    """

    rank = 4
    axis = 2
    multiple = 2
    rule = "have an even width (and at least 2)"

    def conditioner_input_shape(self, shape: Any, first: bool) -> tuple[Any, ...]:
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

    def conditioner_input(self, a: Any, first: bool) -> Any:
        other = ops.zeros_like(a)
        return self.join(a, other) if first else self.join(other, a)

    def conditioner_output(self, output: Any, first: bool) -> Any:
        return self.parts(output)[1 if first else 0]

    def _even_rows(self, x: Any) -> Any:
        return ops.reshape(ops.arange(ops.shape(x)[1], dtype="int32") % 2 == 0, (1, -1, 1, 1))


SPLITS = {
    "half": LastAxisSplit,
    "interleave": InterleavedSplit,
    "checkerboard": CheckerboardSplit,
    "channel": ChannelSplit,
}


class Coupling(Bijector):
    """Base class of coupling layers: one half of the dimensions parametrizes an elementwise transform of the other.

        y_a = x_a,   y_b = transform(x_b; conditioner(x_a))

    A single feature is all of x_b, whatever `flip`: the conditioner gets 1 in place of x_a, so the parameters depend on
    the condition alone, or on nothing.

    To write a new coupling, define `params_per_dim` and `transform`, and `get_config` for additional arguments. The
    last axis of a conditioner's output holds the parameters of the first dimension, then those of the second, ...
    """

    def __init__(
        self,
        conditioner: keras.Layer | None = None,
        units: Sequence[int] | None = None,
        split: str = "half",
        flip: bool = False,
        remat: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.units = check_network("conditioner", conditioner, units)
        check_choice("split", split, SPLITS)
        self.has_custom_network = conditioner is not None
        self.conditioner: Any = conditioner  # else built from `units`
        self.split = split
        self.halves = SPLITS[split]()
        self.flip = check_flag("flip", flip)
        self.remat = check_flag("remat", remat)
        has_own = "be False where a conditioner is given, which has its own"
        check(not remat or conditioner is None, "remat", has_own, remat)

    @property
    @abc.abstractmethod
    def params_per_dim(self) -> int:
        """Number of parameters of `transform` per dimension of `x_b`."""

    @abc.abstractmethod
    def transform(self, x: Any, parameters: Any, inverse: bool) -> tuple[Any, Any]:
        """Transforms one half by parameters `(*x.shape, params_per_dim)`; returns it and the log-determinant."""

    def build(self, x_shape: Any, condition_shape: Any = None) -> None:
        self.halves.check(x_shape)
        halves = self.halves.half_shapes(x_shape)
        # As `flip` says, unless that would leave nothing to transform.
        self.first_conditions = (halves[0 if self.flip else 1][-1] == 0) == self.flip
        input_shape = self.halves.conditioner_input_shape(x_shape, self.first_conditions)
        if self.conditioner is None:
            outputs = halves[1 if self.first_conditions else 0][-1] * self.params_per_dim
            options = {"remat": self.remat, "dtype": self.dtype_policy, "name": "conditioner"}
            self.conditioner = Conditioner(outputs, check_units(self.units), **options)
        if not self.conditioner.built:
            self.conditioner.build(input_shape if condition_shape is None else [input_shape, tuple(condition_shape)])

    def forward_and_log_det(self, x: Any, condition: Any = None, training: bool = False) -> tuple[Any, Any]:
        return self._couple(x, condition, training, inverse=False)

    def inverse_and_log_det(self, y: Any, condition: Any = None, training: bool = False) -> tuple[Any, Any]:
        return self._couple(y, condition, training, inverse=True)

    def _couple(self, x: Any, condition: Any, training: bool, inverse: bool) -> tuple[Any, Any]:
        a, b = self.halves.parts(x)
        if not self.first_conditions:
            a, b = b, a
        b, log_det = self.transform(b, self._conditioned(a, b, condition, training), inverse)
        return self.halves.join(*((a, b) if self.first_conditions else (b, a))), log_det

    def _conditioned(self, a: Any, b: Any, condition: Any, training: bool) -> Any:
        inputs = self.halves.conditioner_input(a, first=self.first_conditions)
        output = self.conditioner(inputs if condition is None else [inputs, condition], training=training)
        width = b.shape[-1] * self.params_per_dim
        expected = (*inputs.shape[1:-1], width)
        is_expected = tuple(output.shape[1:]) == expected or (None in expected and output.shape[-1] == width)
        rule = f"give outputs of shape (batch, {', '.join(map(str, expected))})"
        check(is_expected, "conditioner", rule, output.shape)
        output = self.halves.conditioner_output(ops.cast(output, self.bijection_dtype), first=self.first_conditions)
        return ops.reshape(output, (*ops.shape(b), self.params_per_dim))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "conditioner": keras.saving.serialize_keras_object(self.conditioner) if self.has_custom_network else None,
            "units": self.units,
            "split": self.split,
            "flip": self.flip,
            "remat": self.remat,
        }


@keras_gen_export("keras_gen.layers.AdditiveCoupling", also=("keras_gen.bijectors.AdditiveCoupling",))
class AdditiveCoupling(Coupling):
    """Additive coupling layer of NICE: adds to one half the output of a network applied to the other.

        y_a = x_a,   y_b = x_b + m(x_a),   log_det = 0

    Halves of an odd size differ by one. A single feature is all of x_b: `m` gets 1 in place of x_a, so the shift
    depends on the condition alone.

    Args:
        conditioner: a Keras layer or model `m`, called as `m(x_a)` or `m([x_a, condition])`; its output is added to
            `x_b`. Defaults to `None`, a `Conditioner` with `units`.
        units: sizes of the hidden layers of the default conditioner. Defaults to `None`.
        split: `"half"` or `"interleave"` of the last axis; for images also `"channel"` or `"checkerboard"`. Defaults to
            `"half"`.
        flip: bool. Whether to leave the second half unchanged instead of the first. Defaults to `False`.
        remat: bool. Whether to recompute the default conditioner in the backward pass instead of storing its
            activations (gradient checkpointing); a given one has its own `remat`. Defaults to `False`.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        x: `(batch, features)` or `(batch, height, width, channels)`.
        condition: `(batch, ...)` or `None`. Passed to the conditioner. Defaults to `None`.
        inverse: bool. Defaults to `False`.
        training: bool. Defaults to `False`.

    Returns:
        y: a float32 tensor like `x`.
        log_det: float32 `(batch,)`, zeros.

    Raises:
        ValueError: if not exactly one of `conditioner` and `units` is given, the data cannot be split into halves, or
            the conditioner's output does not have the shape of a half.

    Example:

    >>> y, log_det = keras_gen.layers.AdditiveCoupling(units=[64, 64], split="interleave")(x)

    Reference: https://kexue.fm/archives/5776; Dinh et al. 2014, arXiv:1410.8516, section 3.2.
    """

    params_per_dim = 1

    def transform(self, x: Any, parameters: Any, inverse: bool) -> tuple[Any, Any]:
        shift = parameters[..., 0]
        return (x - shift if inverse else x + shift), broadcast_to_batch(0, x)


SCALE_MAPS = {
    "tanh": lambda s: 4 * ops.sigmoid(s) - 2,  # 2 tanh(s / 2); Keras 3.15 always computes tanh in float32 on JAX
    "softclip": lambda s: s / (1 + ops.abs(s) / math.log(1000)),
    "sigmoid": lambda s: -ops.softplus(-s - 2),
    "exp": lambda s: s,
}


def get_scale_map(scale_map: Any) -> Callable[[Any], Any]:
    """Returns the scale map of a name; functions are returned unchanged."""
    is_known = callable(scale_map) or (isinstance(scale_map, str) and scale_map in SCALE_MAPS)
    check(is_known, "scale_map", f"be a function or one of {', '.join(map(repr, SCALE_MAPS))}", repr(scale_map))
    return scale_map if callable(scale_map) else SCALE_MAPS[scale_map]


@keras_gen_export("keras_gen.layers.AffineCoupling", also=("keras_gen.bijectors.AffineCoupling",))
class AffineCoupling(Coupling):
    """Affine coupling layer of RealNVP: scales and shifts one half by outputs of a network applied to the other.

        t, s = conditioner(x_a);   y_a = x_a,   y_b = x_b exp(g(s)) + t,   log_det = sum g(s)

    The scale map `g` bounds the scale, so that neither direction overflows: `"tanh"`, 2 tanh(s / 2), or `"softclip"`,
    s / (1 + |s| / log 1000). `"sigmoid"`, log sigmoid(s + 2), is bounded only from above, `"exp"`, s, is unbounded.

    Halves of an odd size differ by one. A single feature is all of x_b: the conditioner gets 1 in place of x_a, so
    shift and scale depend on the condition alone.

    Args:
        conditioner: a Keras layer or model, called on `x_a` or `[x_a, condition]`. The last axis of its output is twice
            that of `x_b`: shift and `s` of the first dimension, of the second, ... Defaults to `None`, a `Conditioner`
            with `units`.
        units: sizes of the hidden layers of the default conditioner. Defaults to `None`.
        split: `"half"` or `"interleave"` of the last axis; for images also `"channel"` or `"checkerboard"`. Defaults to
            `"half"`.
        flip: bool. Whether to leave the second half unchanged instead of the first. Defaults to `False`.
        scale_map: name of the scale map `g`, or a serializable function. Defaults to `"tanh"`.
        remat: bool. Whether to recompute the default conditioner in the backward pass instead of storing its
            activations (gradient checkpointing); a given one has its own `remat`. Defaults to `False`.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        x: `(batch, features)` or `(batch, height, width, channels)`.
        condition: `(batch, ...)` or `None`. Passed to the conditioner. Defaults to `None`.
        inverse: bool. Defaults to `False`.
        training: bool. Defaults to `False`.

    Returns:
        y: a float32 tensor like `x`.
        log_det: float32 `(batch,)`.

    Raises:
        ValueError: if not exactly one of `conditioner` and `units` is given, the data cannot be split into halves, the
            conditioner's output has the wrong shape, or the scale map is unknown.

    Example:

    >>> y, log_det = keras_gen.layers.AffineCoupling(units=[64, 64])(x)

    Reference: https://kexue.fm/archives/5807; Dinh et al. 2016, arXiv:1605.08803, section 3.2.
    """

    params_per_dim = 2

    def __init__(
        self,
        conditioner: keras.Layer | None = None,
        units: Sequence[int] | None = None,
        split: str = "half",
        flip: bool = False,
        scale_map: Any = "tanh",
        remat: bool = False,
        **kwargs: Any,
    ):
        super().__init__(conditioner, units, split, flip, remat, **kwargs)
        self.scale_map = scale_map
        self.log_scale = get_scale_map(scale_map)

    def transform(self, x: Any, parameters: Any, inverse: bool) -> tuple[Any, Any]:
        shift, log_scale = parameters[..., 0], self.log_scale(parameters[..., 1])
        if inverse:
            return (x - shift) * ops.exp(-log_scale), -sum_per_sample(log_scale)
        return x * ops.exp(log_scale) + shift, sum_per_sample(log_scale)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "scale_map": keras.saving.serialize_keras_object(self.scale_map)}
