from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_gen.core.arrays import sum_per_sample
from keras_gen.core.calculus.divergence import exact_divergence, hutchinson_divergence, random_signs
from keras_gen.core.calculus.ode import dormand_prince, runge_kutta_4
from keras_gen.core.checks import check, check_choice, check_integer, check_units, is_number
from keras_gen.core.random import check_seed, seed_generator
from keras_gen.export import keras_gen_export
from keras_gen.flows.bijector import Bijector, sample_shape
from keras_gen.flows.conditioner import Conditioner, check_network


@keras_gen_export("keras_gen.layers.ContinuousFlow", also=("keras_gen.bijectors.ContinuousFlow",))
class ContinuousFlow(Bijector):
    """Continuous normalizing flow (FFJORD): solves the ODE of a velocity field from t = 0 to 1 (neural ODE).

        dx/dt = f(x, t),   y = x(1) for x = x(0),   log_det = integral of trace(df/dx) dt from 0 to 1

    Training solves the ODE with `steps` steps of the fourth-order Runge-Kutta method; the two directions are then
    inverse up to its error, O(steps^-4). With a `tolerance`, inference uses Dormand-Prince with an adaptive step size.

    The trace is exact, at the cost of one derivative per dimension, or Hutchinson's estimate `v^T (df/dx) v`, at the
    cost of one derivative, with random signs v (Rademacher) redrawn in each call.

    Args:
        network: a Keras layer or model f, called as `network([x, t])` or `network([x, t, condition])`, with t of shape
            `(batch,)`. Defaults to `None`, a `Conditioner` with `units` and softplus activation.
        units: sizes of the hidden layers of the default network. Defaults to `None`.
        steps: int >= 1. Defaults to `16`.
        tolerance: float > 0, relative and absolute error of each adaptive step; or `None`, the fixed steps of training.
            Defaults to `None`.
        trace: `"exact"` or `"hutchinson"`. Defaults to `"exact"`.
        seed: int or `None`. Seeds the random signs v. Defaults to `None`, a seed from Keras's global one.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        x: `(batch, ...)`.
        condition: `(batch, ...)` or `None`. Passed to the network. Defaults to `None`.
        inverse: bool. Defaults to `False`.
        training: bool. Defaults to `False`.

    Returns:
        y: a float32 tensor like `x`.
        log_det: float32 `(batch,)`.

    Raises:
        ValueError: if not exactly one of `network` and `units` is given, the network's output does not have the shape
            of x, or another argument is out of range.

    Example:

    >>> y, log_det = keras_gen.layers.ContinuousFlow(units=[64, 64])(x)

    Reference: Chen et al. 2018, arXiv:1806.07366; Grathwohl et al. 2018, arXiv:1810.01367.
    """

    def __init__(
        self,
        network: keras.Layer | None = None,
        units: Sequence[int] | None = None,
        steps: int = 16,
        tolerance: float | None = None,
        trace: str = "exact",
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.units = check_network("network", network, units)
        positive = tolerance is None or (is_number(tolerance) and tolerance > 0)
        check(positive, "tolerance", "be > 0 or None", repr(tolerance))
        check_choice("trace", trace, ("exact", "hutchinson"))
        self.has_custom_network = network is not None
        self.network: Any = network  # else built from `units`
        self.steps = check_integer("steps", steps)
        self.tolerance = tolerance
        self.trace = trace
        self.seed = check_seed(seed)
        self.seed_generator = seed_generator(self.seed)

    def build(self, x_shape: Any, condition_shape: Any = None) -> None:
        sample_shape(x_shape)
        if self.network is None:
            self.network = Conditioner(
                x_shape[-1], check_units(self.units), "softplus", dtype=self.dtype_policy, name="network"
            )
        if not self.network.built:
            self.network.build([tuple(x_shape), (x_shape[0],), *([tuple(condition_shape)] if condition_shape else [])])

    def forward_and_log_det(self, x: Any, condition: Any = None, training: bool = False) -> tuple[Any, Any]:
        return self._solve(x, condition, 0.0, 1.0, training)

    def inverse_and_log_det(self, y: Any, condition: Any = None, training: bool = False) -> tuple[Any, Any]:
        return self._solve(y, condition, 1.0, 0.0, training)

    def _solve(self, x: Any, condition: Any, t0: float, t1: float, training: bool) -> tuple[Any, Any]:
        signs = None if self.trace == "exact" else random_signs(x, self.seed_generator)

        def f(t: Any, state: tuple[Any, Any]) -> tuple[Any, Any]:
            def velocity(x: Any, condition: Any) -> Any:
                return self._velocity(x, t, condition, training)

            if signs is None:
                return exact_divergence(velocity, state[0], condition)
            return hutchinson_divergence(velocity, state[0], signs, condition)

        state = x, ops.zeros_like(sum_per_sample(x))
        if self.tolerance is None or training:
            solution = runge_kutta_4(f, state, t0, t1, self.steps)
        else:
            solution = dormand_prince(f, state, t0, t1, self.tolerance)
        self.network._clear_losses()  # tensors of the solver's loop, which must not escape it
        return solution

    def _velocity(self, x: Any, t: Any, condition: Any, training: bool) -> Any:
        times = ops.broadcast_to(ops.cast(t, x.dtype), ops.shape(x)[:1])
        inputs = [x, times] if condition is None else [x, times, condition]
        velocity = ops.cast(self.network(inputs, training=training), x.dtype)
        check(velocity.shape[1:] == x.shape[1:], "network", f"give outputs of shape {x.shape}", velocity.shape)
        return velocity

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "network": keras.saving.serialize_keras_object(self.network) if self.has_custom_network else None,
            "units": self.units,
            "steps": self.steps,
            "tolerance": self.tolerance,
            "trace": self.trace,
            "seed": self.seed,
        }
