from typing import Any

import numpy as np
from keras import ops

from keras_gen.core.checks import check, same_shape
from keras_gen.export import keras_gen_export

CLOSE = 1e-6  # sin(theta)^2 below which the arc is the line, to float32's precision


@keras_gen_export("keras_gen.ops.slerp")
def slerp(a: Any, b: Any, w: Any) -> Any:
    """Interpolates along the arc from a to b: between two draws of noise, whose mean on the line would be too short.

        sin((1 - w) theta) / sin(theta) a + sin(w theta) / sin(theta) b,   cos(theta) = a . b / (|a| |b|)

    Each sample has its own theta, over all its numbers. As theta goes to 0 this becomes the line `(1 - w) a + w b`,
    which also joins samples that are zero, and opposite ones (theta within 1e-3 of pi), between which no arc is the
    shortest. In many dimensions, theta of two draws is near pi / 2.

    Args:
        a: the samples at w = 0, `(n, ...)`.
        b: the samples at w = 1, of the same shape.
        w: number, or one for each sample, `(n,)`. Outside [0, 1], the arc goes on.

    Returns:
        float32 `(n, ...)`: a NumPy array if a and b are, else a tensor.

    Raises:
        ValueError: if the shapes of a and b differ, or w has another shape than `()` and `(n,)`.

    Example:

    >>> x = model.sample(8, noise=keras_gen.ops.slerp(noise_a, noise_b, np.linspace(0, 1, 8)))

    Reference: Shoemake 1985, "Animating rotation with quaternion curves"; Song et al. 2020, arXiv:2010.02502, appendix
        D.5; https://kexue.fm/archives/9181.
    """
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return _slerp(np, *(np.asarray(value, "float64") for value in (a, b, w))).astype("float32")
    return _slerp(ops, *(ops.cast(value, "float32") for value in (a, b, w)))


def _slerp(xp: Any, a: Any, b: Any, w: Any) -> Any:
    """Computes with the functions of `xp`, NumPy or `keras.ops`."""
    shape = tuple(a.shape)
    check(len(shape) > 0 and same_shape(shape, b.shape), "b", f"have the shape (n, ...) of a, {shape}", tuple(b.shape))
    fits = len(w.shape) == 0 or same_shape(w.shape, shape[:1])
    check(fits, "w", f"be a number or have shape ({shape[0]},)", f"shape {tuple(w.shape)}")
    inner = tuple(range(1, len(shape)))
    square_a, square_b, cos = (xp.sum(product, axis=inner) for product in (a * a, b * b, a * b))
    # Where there is no angle, 1 and pi / 2 take its place: the gradient of what `where` leaves out must be finite too.
    is_zero = (square_a <= 0) | (square_b <= 0)
    cos = cos / (xp.sqrt(xp.where(is_zero, 1.0, square_a)) * xp.sqrt(xp.where(is_zero, 1.0, square_b)))
    is_line = is_zero | (1 - cos * cos < CLOSE)
    theta = xp.arccos(xp.where(is_line, 0.0, cos))
    of_a = xp.where(is_line, 1 - w, xp.sin((1 - w) * theta) / xp.sin(theta))
    of_b = xp.where(is_line, w, xp.sin(w * theta) / xp.sin(theta))
    column = (-1, *[1] * (len(shape) - 1))
    return xp.reshape(of_a, column) * a + xp.reshape(of_b, column) * b
