from typing import Any

from keras import ops

from keras_gen.core.checks import check, real_tensor, same_shape
from keras_gen.export import keras_gen_export
from keras_gen.latent.straight_through import straight_through

SMALLEST = 1e-12


@keras_gen_export("keras_gen.ops.rotation_trick")
def rotation_trick(code: Any, x: Any) -> Any:
    """Returns `code`, with the gradient of the rotation and scaling that map `x` to it.

        out = |e| / |x| (x - 2 r r^T x + 2 q u^T x),   u = x / |x|,  q = e / |e|,  r = (u + q) / |u + q|

    with a stop-gradient on everything but the plain x; computed in float32. Unlike the straight-through estimator,
    which gives all points of a code the same gradient, this preserves the angle between the gradient and the code.

    Args:
        code: float tensor `(..., dim)`, e.
        x: float tensor `(..., dim)`, the point that is quantized to e.

    Returns:
        A tensor like `x`. Where `x` or `code` is 0, its gradient is finite but meaningless.

    Raises:
        ValueError: if the shapes differ.

    Reference: Fifty et al. 2024, arXiv:2410.06424; https://kexue.fm/archives/10489.
    """
    x = real_tensor("x", x)
    dtype = x.dtype
    x, e = ops.cast(x, "float32"), ops.stop_gradient(real_tensor("code", code, "float32"))
    check(same_shape(e.shape, x.shape), "code", f"have the shape of x, {tuple(x.shape)}", f"shape {tuple(e.shape)}")
    fixed_x = ops.stop_gradient(x)
    x_norm, e_norm = _norm(fixed_x), _norm(e)
    u, q = fixed_x / x_norm, e / e_norm
    r = u + q
    r = r / _norm(r)  # opposite vectors: r = 0, and x -> -q |x| + 2 q |x| is still correct
    rotated = x - 2 * r * _dot(r, x) + 2 * q * _dot(u, x)
    scale = ops.where(x_norm > SMALLEST**0.5, e_norm / x_norm, 1.0)
    return ops.cast(straight_through(e, scale * rotated), dtype)


def _dot(a: Any, b: Any) -> Any:
    return ops.sum(a * b, axis=-1, keepdims=True)


def _norm(a: Any) -> Any:
    return ops.sqrt(ops.maximum(_dot(a, a), SMALLEST))
