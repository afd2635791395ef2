import abc
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_gen.core.checks import check, check_choice
from keras_gen.flows.bijector import Bijector
from keras_gen.flows.conditioner import Conditioner, check_units
from keras_gen.flows.split import SPLITS


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
