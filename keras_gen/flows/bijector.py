"""Base class of bijectors."""

import abc
import math
from typing import Any, Self

import keras
import numpy as np
from keras import ops

from keras_gen.core.checks import check, check_flag, known_shape
from keras_gen.core.configured import check_configured, repr_of
from keras_gen.core.frozen import StaysFrozen
from keras_gen.export import keras_gen_export


def sample_shape(x_shape: Any) -> tuple[int, ...]:
    """Returns the shape of a sample, without the batch axis, after checking that all its sizes are known."""
    return known_shape(x_shape[1:], "x", "have a known shape", f"shape {tuple(x_shape)}")


def num_positions(x_shape: Any) -> int:
    """Returns the number of positions per sample: 1 for `(batch, features)`, height x width for images."""
    check(len(x_shape) > 1, "x", "have shape (batch, ..., features)", f"shape {tuple(x_shape)}")
    return math.prod(sample_shape(x_shape)[:-1])


@keras_gen_export("keras_gen.layers.Bijector", also=("keras_gen.bijectors.Bijector",))
class Bijector(StaysFrozen, keras.layers.Layer):
    """Base class of invertible layers: `y = f(x)`, with `log_det = log |det df/dx|` per sample.

    The forward direction maps data to latents. Calls in either direction return `log_det` as well, so that densities
    follow from `log p(x) = log p(y) + log_det`.

    To write a new bijector:

    1. `forward_and_log_det(x, condition, training) -> (y, log_det)`: `log_det` is `(batch,)`, see `sum_per_sample`.
    2. `inverse_and_log_det(y, condition, training) -> (x, log_det)`: the inverse map, with the negated `log_det`.
    3. `build(x_shape, condition_shape=None)`, if it has weights or checks shapes; and `get_config` for its arguments,
       with layers and functions among them serialized by Keras: `from_config` restores them.
    4. Compute in `self.bijection_dtype`, the dtype of `x`; inner networks may use lower precision.
    5. Add a line to `BIJECTORS` in `tests/laws/bijectors.py`, or call `keras_gen.testing.check_bijector`.

    Under `mixed_bfloat16` the bijection stays in float32, so that it can be inverted; inner networks, such as the
    conditioners of couplings, run in bfloat16. With `dtype="float64"` everything is float64.

    Args:
        **kwargs: `name`, `dtype`, `trainable`, as for any Keras layer.

    Call arguments:
        x: `(batch, ...)`. Data, or latents if `inverse=True`.
        condition: `(batch, ...)` or `None`. Conditioning input; unconditional bijectors ignore it.
        inverse: bool. Whether to map latents to data. Defaults to `False`.
        training: bool. Defaults to `False`.

    Returns:
        y: `(batch, ...)`, float32 (or float64).
        log_det: `(batch,)`, of the same dtype.

    Raises:
        ValueError: if `dtype` is `"float64"` on JAX while 64-bit types are disabled in JAX.

    Example:

    >>> z, log_det = bijector(x)
    >>> x, minus_log_det = bijector(z, inverse=True)

    Reference: Dinh et al. 2014, arXiv:1410.8516; https://kexue.fm/archives/5776.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)
        double = self.variable_dtype == "float64"
        if double and keras.backend.backend() == "jax":
            import jax

            enabled: bool = jax.config.jax_enable_x64  # type: ignore[attr-defined]  # JAX adds its options at run time
            check(enabled, "dtype", "be float32 unless JAX_ENABLE_X64=1 is set", "float64")
        self.bijection_dtype = "float64" if double else "float32"

    @property
    def takes_noise(self) -> bool:
        """Whether the forward direction begins with a draw, for which `forward_with_noise` takes a given one."""
        return False

    def forward_with_noise(self, x: Any, noise: Any, condition: Any = None) -> tuple[Any, Any]:
        """Maps data to latents as a call does, with `noise`, a tensor like `x`, in place of the draw."""
        raise NotImplementedError(f"{type(self).__name__} takes no noise")

    @abc.abstractmethod
    def forward_and_log_det(self, x: Any, condition: Any = None, training: bool = False) -> tuple[Any, Any]:
        """Maps data to latents: returns `y` and the log-determinant `(batch,)`."""

    @abc.abstractmethod
    def inverse_and_log_det(self, y: Any, condition: Any = None, training: bool = False) -> tuple[Any, Any]:
        """Maps latents to data: returns `x` and the log-determinant `(batch,)` of this direction."""

    def build(self, x_shape: Any, condition_shape: Any = None) -> None:
        """Creates weights and checks shapes, which include the batch axis. Does nothing by default."""

    def call(self, x: Any, condition: Any = None, inverse: bool = False, training: bool = False) -> tuple[Any, Any]:
        condition = None if condition is None else ops.cast(condition, self.bijection_dtype)
        transform = self.inverse_and_log_det if check_flag("inverse", inverse) else self.forward_and_log_det
        y, log_det = transform(ops.cast(x, self.bijection_dtype), condition, bool(training))
        # A column, or one entry for each dimension, would be broadcast to pairs of samples where it meets a density.
        shape, rule = tuple(getattr(log_det, "shape", ())), "return one log-determinant for each sample, (batch,)"
        check(len(shape) <= 1, "bijector", rule, f"{type(self).__name__}, whose log_det has shape {shape}")
        return y, log_det

    def add_weight(self, *args: Any, **kwargs: Any) -> keras.Variable:
        # Autocasting in a mixed-precision model would read the weight in half precision.
        return super().add_weight(*args, autocast=False, **kwargs)

    def check_data(self, name: str, x: np.ndarray) -> None:
        """Rejects data outside the domain of the forward direction. Accepts all data by default."""

    def output_shape(self, x_shape: Any) -> tuple[int | None, ...]:
        """Returns the shape of `y`, including the batch; the shape of `x` by default."""
        return tuple(x_shape)

    def get_config(self) -> dict[str, Any]:
        # For subclasses without arguments of their own: Keras rejects these if `dtype` is a policy object.
        return super().get_config()

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**keras.saving.deserialize_keras_object(config))

    def __repr__(self) -> str:
        config = self.get_config()
        of_keras = {"name": None, "trainable": True, "dtype": "float32"}
        own = {name: value for name, value in config.items() if name not in of_keras}
        keras_own = {"trainable": self.trainable, "dtype": self.dtype_policy.name}
        return repr_of(self, own | {name: value for name, value in keras_own.items() if value != of_keras[name]})


def check_bijector(name: str, bijector: Any, rule: str = "be a bijector") -> None:
    """Checks that `bijector` is one, and that a file will hold its arguments."""
    check(isinstance(bijector, Bijector), name, rule, bijector)
    check_configured(name, bijector)


def build_layer(layer: Bijector, x_shape: Any, condition_shape: Any = None) -> None:
    """Builds a nested bijector, unless Keras has already built it while loading a file."""
    if not layer.built:
        layer.build(x_shape, condition_shape)


def build_shape_preserving(bijector: Bijector, x_shape: Any, condition_shape: Any = None) -> None:
    """Builds a nested bijector, which must keep the shape of its input."""
    build_layer(bijector, x_shape, condition_shape)
    y_shape = bijector.output_shape(x_shape)
    check(tuple(y_shape) == tuple(x_shape), "bijector", "keep the shape of its input", f"{x_shape} -> {y_shape}")
