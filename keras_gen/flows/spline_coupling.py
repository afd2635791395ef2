"""Coupling layers with monotonic rational-quadratic splines (neural spline flows)."""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_gen.core.arrays import clip, sum_per_sample
from keras_gen.core.checks import (
    check,
    check_finite,
    check_flag,
    check_integer,
    check_positive,
    float_tensors,
    same_shape,
)
from keras_gen.core.devices.products import precise_product
from keras_gen.export import keras_gen_export
from keras_gen.flows.coupling import Coupling

SMALLEST = 1e-3  # minimum bin size, as a fraction of the interval, and minimum derivative at a knot
MOST_BINS = 500  # which then have half of the interval to share
UNIT_DERIVATIVE = math.log(math.expm1(1 - SMALLEST))  # its softplus, plus SMALLEST, is 1


@keras_gen_export("keras_gen.ops.rational_quadratic_spline")
def rational_quadratic_spline(x: Any, parameters: Any, bound: float = 5.0, inverse: bool = False) -> tuple[Any, Any]:
    """Applies a monotonic spline with K bins on [-bound, bound], and the identity outside.

        xi = (x - x_k) / w_k,   s_k = h_k / w_k,   q = s_k + (d_k + d_{k+1} - 2 s_k) xi (1 - xi)
        y  = y_k + h_k (s_k xi^2 + d_k xi (1 - xi)) / q
        dy/dx = s_k^2 (d_{k+1} xi^2 + 2 s_k xi (1 - xi) + d_k (1 - xi)^2) / q^2

    Bin widths `w` and heights `h` are softmaxes of parameters, the derivatives `d` at the inner knots are softpluses;
    at both ends the derivative is 1. All-zero parameters give the identity.

    Args:
        x: float tensor of any shape.
        parameters: `(*x.shape, 3 K - 1)`: K for widths, K for heights, K - 1 for derivatives.
        bound: float > 0. Defaults to `5.0`.
        inverse: bool. Whether to solve for x, given y. Defaults to `False`.

    Returns:
        y: a tensor like `x`.
        log_derivative: a tensor like `x`, the log-derivative of the chosen direction.

    Raises:
        ValueError: if `bound` is not positive and finite, an argument is not of real numbers, `parameters` is a NumPy
            array with values that are not finite, or the shapes do not match.

    Reference: Durkan et al. 2019, arXiv:1906.04032, section 3.1.
    """
    check_positive("bound", bound)
    check_flag("inverse", inverse)
    check_finite("parameters", parameters)
    x, parameters = float_tensors({"x": x, "parameters": parameters})
    bins = _number_of_bins(x, parameters)
    x_knots, y_knots = _knots(parameters[..., :bins], bound), _knots(parameters[..., bins : 2 * bins], bound)
    derivatives = SMALLEST + ops.softplus(parameters[..., 2 * bins :] + UNIT_DERIVATIVE)
    derivatives = ops.pad(derivatives, [(0, 0)] * len(x.shape) + [(1, 1)], constant_values=1)

    # Outside, the spline is evaluated at the boundary, so that no NaN reaches a gradient.
    inside = clip(x, -bound, bound)
    in_bin = _one_hot_bin(inside, y_knots if inverse else x_knots)
    (x_k, x_next), (y_k, y_next) = _at_ends(x_knots, in_bin), _at_ends(y_knots, in_bin)
    d, d_next = _at_ends(derivatives, in_bin)
    w, h = x_next - x_k, y_next - y_k
    slope = h / w
    curve = d + d_next - 2 * slope

    xi = _solve(inside - y_k, h, slope, d, curve) if inverse else (inside - x_k) / w
    xi = ops.clip(xi, 0.0, 1.0)
    both = xi * (1 - xi)
    q = slope + curve * both
    derivative = slope**2 * (d_next * xi**2 + 2 * slope * both + d * (1 - xi) ** 2) / q**2
    y = x_k + w * xi if inverse else y_k + h * (slope * xi**2 + d * both) / q
    log_derivative = -ops.log(derivative) if inverse else ops.log(derivative)
    within = ops.abs(x) <= bound
    return ops.where(within, y, x), ops.where(within, log_derivative, 0.0)


def _number_of_bins(x: Any, parameters: Any) -> int:
    """Returns K, after checking the shape of the parameters."""
    shape = tuple(parameters.shape)
    is_whole = len(shape) > 0 and same_shape(shape[:-1], x.shape) and shape[-1] % 3 == 2
    check(is_whole, "parameters", f"have shape {(*x.shape, '3 K - 1')}", f"shape {shape}")
    bins = (shape[-1] + 1) // 3
    check(bins <= MOST_BINS, "parameters", f"be of at most {MOST_BINS} bins", f"{bins} bins")
    return bins


def _knots(parameters: Any, bound: float) -> Any:
    """Returns the K + 1 knots of bins whose shares of [-bound, bound] are a softmax of parameters `(..., K)`."""
    bins = parameters.shape[-1]
    shares = SMALLEST + (1 - SMALLEST * bins) * ops.softmax(parameters, axis=-1)
    # On torch, Keras's cumsum casts float64 to float32.
    sums = precise_product(shares, ops.triu(ops.ones((bins, bins), shares.dtype)))
    inner = bound * (2 * sums[..., :-1] - 1)
    ends = ops.full_like(parameters[..., :1], bound)
    return ops.concatenate([-ends, inner, ends], axis=-1)


def _one_hot_bin(values: Any, knots: Any) -> Any:
    """Returns which bin holds each value, of those between knots `(..., K + 1)`: one-hot `(..., K)`."""
    position = ops.sum(ops.cast(values[..., None] >= knots[..., 1:-1], "int32"), axis=-1, keepdims=True)
    return ops.cast(ops.arange(knots.shape[-1] - 1, dtype="int32") == position, values.dtype)


def _at_ends(values: Any, in_bin: Any) -> tuple[Any, Any]:
    """Returns the values, of those at all knots, at the lower and at the upper end of the bin."""
    return ops.sum(in_bin * values[..., :-1], axis=-1), ops.sum(in_bin * values[..., 1:], axis=-1)


def _solve(rise: Any, h: Any, slope: Any, d: Any, curve: Any) -> Any:
    """Returns xi at height `rise` above the lower knot of a bin: the root in [0, 1] of a xi^2 + b xi + c = 0."""
    a = h * (slope - d) + rise * curve
    b = h * d - rise * curve
    c = -slope * rise
    root = ops.sqrt(ops.relu(b**2 - 4 * a * c))
    return 2 * c / (-b - root)


@keras_gen_export("keras_gen.layers.SplineCoupling", also=("keras_gen.bijectors.SplineCoupling",))
class SplineCoupling(Coupling):
    """Spline coupling layer: maps one half elementwise by splines with parameters predicted from the other half.

        y_a = x_a,   y_b = spline(x_b; conditioner(x_a)),   log_det = sum log spline'(x_b)

    The splines are monotonic and rational-quadratic on [-bound, bound], and the identity outside; see
    `keras_gen.ops.rational_quadratic_spline`. Put an `ActNorm` before it, so that the data lie within the bound.

    Halves of an odd size differ by one. A single feature is all of x_b: the conditioner gets 1 in place of x_a, so its
    spline depends on the condition alone.

    Args:
        conditioner: a Keras layer or model, called on `x_a` or `[x_a, condition]`. The last axis of its output is
            `3 num_bins - 1` times that of `x_b`. Defaults to `None`, a `Conditioner` with `units`.
        units: sizes of the hidden layers of the default conditioner. Defaults to `None`.
        split: `"half"` or `"interleave"` of the last axis; for images also `"channel"` or `"checkerboard"`. Defaults to
            `"half"`.
        flip: bool. Whether to leave the second half unchanged instead of the first. Defaults to `False`.
        num_bins: int from 2 to 500. Defaults to `8`.
        bound: float > 0. Defaults to `5.0`.
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
            conditioner's output has the wrong shape, or `num_bins` or `bound` is out of range.

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
        remat: bool = False,
        **kwargs: Any,
    ):
        super().__init__(conditioner, units, split, flip, remat, **kwargs)
        self.num_bins = check_integer("num_bins", num_bins, at_least=2)
        check(num_bins <= MOST_BINS, "num_bins", f"be <= {MOST_BINS}", num_bins)
        self.bound = check_positive("bound", bound)

    @property
    def params_per_dim(self) -> int:
        return 3 * self.num_bins - 1

    def transform(self, x: Any, parameters: Any, inverse: bool) -> tuple[Any, Any]:
        y, log_derivative = rational_quadratic_spline(x, parameters, self.bound, inverse)
        return y, sum_per_sample(log_derivative)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_bins": self.num_bins, "bound": self.bound}
