import math
from typing import Any

from keras import ops

from keras_gen.core.clip import clip
from keras_gen.export import keras_gen_export

SMALLEST = 1e-3  # least share of a bin, and least derivative at a knot
UNIT_DERIVATIVE = math.log(math.expm1(1 - SMALLEST))  # softplus of it, plus SMALLEST, is 1


@keras_gen_export("keras_gen.ops.rational_quadratic_spline")
def rational_quadratic_spline(x: Any, parameters: Any, bound: float = 5.0, inverse: bool = False) -> tuple[Any, Any]:
    """Maps numbers by a monotonic spline of K bins on [-bound, bound], and by the identity outside.

        xi = (x - x_k) / w_k,   s_k = h_k / w_k,   q = s_k + (d_k + d_{k+1} - 2 s_k) xi (1 - xi)
        y  = y_k + h_k (s_k xi^2 + d_k xi (1 - xi)) / q
        dy/dx = s_k^2 (d_{k+1} xi^2 + 2 s_k xi (1 - xi) + d_k (1 - xi)^2) / q^2

    Widths `w` and heights `h` of the bins are softmaxes of parameters, the derivatives `d` at the inner knots are
    softpluses; at both ends the derivative is 1. All parameters zero give the identity.

    Args:
        x: float tensor of any shape.
        parameters: `(*x.shape, 3 K - 1)`: K for widths, K for heights, K - 1 for derivatives.
        bound: float > 0. Defaults to `5.0`.
        inverse: bool. Whether to solve for x, given y. Defaults to `False`.

    Returns:
        y: a tensor like `x`.
        log_derivative: a tensor like `x`, the logarithm of the derivative in the direction asked for.

    Reference: Durkan et al. 2019, arXiv:1906.04032, section 3.1.
    """
    bins = (parameters.shape[-1] + 1) // 3
    widths, heights = parameters[..., :bins], parameters[..., bins : 2 * bins]
    x_knots, y_knots = _knots(widths, bound), _knots(heights, bound)
    derivatives = SMALLEST + ops.softplus(parameters[..., 2 * bins :] + UNIT_DERIVATIVE)
    derivatives = ops.pad(derivatives, [(0, 0)] * len(x.shape) + [(1, 1)], constant_values=1)

    # Outside, the spline is evaluated where it is well-behaved: no NaN reaches a gradient.
    inside = clip(x, -bound, bound)
    knots = y_knots if inverse else x_knots
    position = ops.sum(ops.cast(inside[..., None] >= knots[..., 1:-1], "int32"), axis=-1, keepdims=True)
    in_bin = ops.cast(ops.arange(bins) == position, x.dtype)

    def pick(values: Any) -> Any:
        return ops.sum(in_bin * values, axis=-1)

    x_k, y_k = pick(x_knots[..., :-1]), pick(y_knots[..., :-1])
    w, h = pick(x_knots[..., 1:] - x_knots[..., :-1]), pick(y_knots[..., 1:] - y_knots[..., :-1])
    d, d_next = pick(derivatives[..., :-1]), pick(derivatives[..., 1:])
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


def _knots(parameters: Any, bound: float) -> Any:
    bins = parameters.shape[-1]
    shares = SMALLEST + (1 - SMALLEST * bins) * ops.softmax(parameters, axis=-1)
    sums = shares @ ops.triu(ops.ones((bins, bins), shares.dtype))  # on torch, Keras's cumsum makes float64 float32
    inner = bound * (2 * sums[..., :-1] - 1)
    ends = ops.full_like(parameters[..., :1], bound)
    return ops.concatenate([-ends, inner, ends], axis=-1)


def _solve(rise: Any, h: Any, slope: Any, d: Any, curve: Any) -> Any:
    """Returns xi where the spline has risen by `rise`: the root in [0, 1] of a xi^2 + b xi + c = 0."""
    a = h * (slope - d) + rise * curve
    b = h * d - rise * curve
    c = -slope * rise
    root = ops.sqrt(ops.relu(b**2 - 4 * a * c))
    return 2 * c / (-b - root)
