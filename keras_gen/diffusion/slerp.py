from typing import Any

import numpy as np
from keras import ops

from keras_gen.core.arrays import broadcastable
from keras_gen.core.checks import check, check_finite, same_shape
from keras_gen.export import keras_gen_export

MIN_SQUARED_SIN = 1e-6  # sin(theta)^2 below which arc and line agree to float32 precision


@keras_gen_export("keras_gen.ops.slerp")
def slerp(a: Any, b: Any, w: Any) -> Any:
    """Interpolates spherically from a to b, such as two noise draws, whose linear mean has too small a norm.

        sin((1 - w) theta) / sin(theta) a + sin(w theta) / sin(theta) b,   cos(theta) = a . b / (|a| |b|)

    Each sample has its own theta, over all its dimensions. As theta approaches 0 this becomes `(1 - w) a + w b`. This
    linear interpolation is also used for zero samples, and for opposite ones (theta within 1e-3 of pi), which have no
    unique shortest arc. In high dimensions, theta of two draws is close to pi / 2.

    Args:
        a: the samples at w = 0, `(n, ...)`.
        b: the samples at w = 1, of the same shape.
        w: a number, or one for each sample, `(n,)`. Values outside [0, 1] extrapolate along the arc.

    Returns:
        float32 `(n, ...)`: a NumPy array if a and b are, else a tensor.

    Raises:
        ValueError: if the shapes of a and b differ, or the shape of w is neither `()` nor `(n,)`.

    Example:

    >>> x = model.sample(8, noise=keras_gen.ops.slerp(noise_a, noise_b, np.linspace(0, 1, 8)))

    Reference: Shoemake 1985, "Animating rotation with quaternion curves"; Song et al. 2020, arXiv:2010.02502, appendix
        D.5; https://kexue.fm/archives/9181.
    """
    for name, value in {"a": a, "b": b, "w": w}.items():
        check_finite(name, value)
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return _slerp(np, *(np.asarray(value, "float64") for value in (a, b, w))).astype("float32")
    return _slerp(ops, *(ops.cast(value, "float32") for value in (a, b, w)))


def _slerp(xp: Any, a: Any, b: Any, w: Any) -> Any:
    """Implements `slerp` with the functions of `xp`, NumPy or `keras.ops`."""
    shape = tuple(a.shape)
    check(len(shape) > 0 and same_shape(shape, b.shape), "b", f"have the shape (n, ...) of a, {shape}", tuple(b.shape))
    is_weight = len(w.shape) == 0 or same_shape(w.shape, shape[:1])
    check(is_weight, "w", f"be a number or have shape ({shape[0]},)", f"shape {tuple(w.shape)}")
    axes = tuple(range(1, len(shape)))
    square_a, square_b, cos = (xp.sum(product, axis=axes) for product in (a * a, b * b, a * b))
    # An undefined angle becomes pi / 2, a zero norm 1: the branch that `where` discards needs finite gradients.
    is_zero = (square_a <= 0) | (square_b <= 0)
    cos = cos / (xp.sqrt(xp.where(is_zero, 1.0, square_a)) * xp.sqrt(xp.where(is_zero, 1.0, square_b)))
    is_line = is_zero | (1 - cos * cos < MIN_SQUARED_SIN)
    theta = xp.arccos(xp.where(is_line, 0.0, cos))
    of_a = xp.where(is_line, 1 - w, xp.sin((1 - w) * theta) / xp.sin(theta))
    of_b = xp.where(is_line, w, xp.sin(w * theta) / xp.sin(theta))
    return broadcastable(of_a, a) * a + broadcastable(of_b, b) * b
