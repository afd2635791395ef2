from collections.abc import Sequence
from typing import Any

import keras

from keras_gen.core.checks import check, check_integer, is_number
from keras_gen.core.per_sample import per_sample
from keras_gen.export import keras_gen_export
from keras_gen.flows.coupling import Coupling
from keras_gen.flows.rational_quadratic_spline import SMALLEST, rational_quadratic_spline


@keras_gen_export("keras_gen.layers.SplineCoupling")
class SplineCoupling(Coupling):
    """Spline coupling: each number of one half goes through a spline that a network makes of the other half.

        y_a = x_a,   y_b = spline(x_b; conditioner(x_a)),   log_det = sum log spline'(x_b)

    The splines are monotonic and rational-quadratic on [-bound, bound], and the identity outside; see
    `keras_gen.ops.rational_quadratic_spline`. Put an `ActNorm` before, so that the data are where the splines are.

    Args:
        conditioner: a Keras layer or model. It is called with the half `x_a`, or with a list of it and the condition.
            The last axis of its output is `3 num_bins - 1` times that of `x_b`. Defaults to `None`, a `Conditioner`
            with `units`.
        units: sizes of the hidden layers of the default conditioner. Defaults to `None`.
        split: `"half"`, `"interleave"`, of the last axis; for images also `"channel"`, `"checkerboard"`. Defaults to
            `"half"`.
        flip: bool. Whether the second half is the unchanged one. Defaults to `False`.
        num_bins: int from 2 to 500. Defaults to `8`.
        bound: float > 0. Defaults to `5.0`.
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
            conditioner's output does not fit, or `num_bins` or `bound` is out of range.

    Example:

    >>> y, log_det = keras_gen.layers.SplineCoupling(units=[64, 64])(x)

    Reference: Durkan et al. 2019, arXiv:1906.04032.
    """

    def __init__(
        self,
        conditioner: keras.Layer | None = None,
        units: Sequence[int] | None = None,
        split: str = "half",
        flip: bool = False,
        num_bins: int = 8,
        bound: float = 5.0,
        **kwargs: Any,
    ):
        super().__init__(conditioner, units, split, flip, **kwargs)
        self.num_bins = check_integer("num_bins", num_bins, at_least=2)
        check(num_bins <= 0.5 / SMALLEST, "num_bins", f"be <= {0.5 / SMALLEST:g}", num_bins)
        check(is_number(bound) and 0 < bound < float("inf"), "bound", "be > 0 and finite", repr(bound))
        self.bound = float(bound)

    @property
    def parameters_per_number(self) -> int:
        return 3 * self.num_bins - 1

    def transform(self, x: Any, parameters: Any, inverse: bool) -> tuple[Any, Any]:
        y, log_derivative = rational_quadratic_spline(x, parameters, self.bound, inverse)
        return y, per_sample(log_derivative)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_bins": self.num_bins, "bound": self.bound}
