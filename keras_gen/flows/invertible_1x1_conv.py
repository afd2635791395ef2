from typing import Any

import numpy as np
from keras import ops

from keras_gen.core.arrays import broadcast_to_batch, constant
from keras_gen.core.checks import check, finite_array
from keras_gen.core.devices.products import precise_product
from keras_gen.core.random import check_seed, fixed_seed
from keras_gen.export import keras_gen_export
from keras_gen.flows.bijector import Bijector, num_positions


@keras_gen_export("keras_gen.layers.Invertible1x1Conv", also=("keras_gen.bijectors.Invertible1x1Conv",))
class Invertible1x1Conv(Bijector):
    """Invertible 1 x 1 convolution of Glow: mixes the channels at each position; a dense layer for vectors.

        y = x W,   W = P L (U + diag(sign exp(s))),   log_det = num_positions sum(s)

    with a fixed permutation P, a unit lower triangular L and a strictly upper triangular U (LU decomposition). So the
    determinant is free and W stays invertible.

    Args:
        matrix: invertible array `(features, features)`, the initial W. Defaults to `None`, a random rotation.
        seed: int or `None`. Seeds the rotation. Defaults to `None`, a different rotation for each layer.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        x: `(batch, ..., features)`.
        condition: ignored. Defaults to `None`.
        inverse: bool. Defaults to `False`.
        training: bool. Defaults to `False`.

    Returns:
        y: a float32 tensor like `x`.
        log_det: float32 `(batch,)`.

    Raises:
        ValueError: if `matrix` is not square, not invertible, or does not match the features of `x`.

    Example:

    >>> y, log_det = keras_gen.layers.Invertible1x1Conv(seed=0)(x)

    Reference: https://kexue.fm/archives/5807; Kingma and Dhariwal 2018, arXiv:1807.03039, section 3.2.
    """

    def __init__(self, matrix: Any = None, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.matrix = None if matrix is None else _check_matrix(matrix)
        self.seed = check_seed(seed)

    def build(self, x_shape: Any, condition_shape: Any = None) -> None:
        self.num_positions = num_positions(x_shape)
        size = x_shape[-1]
        matrix = self.matrix
        if matrix is None:
            matrix = np.linalg.qr(np.random.default_rng(fixed_seed(self.seed)).standard_normal((size, size)))[0]
        check(len(matrix) == size, "matrix", f"be {size} x {size}, as x has {size} features", f"{matrix.shape}")
        order, lower, upper = lu(matrix)
        diagonal = np.diag(upper)
        values = {
            "order": (order, False),
            "sign": (np.sign(diagonal).astype("int32"), False),
            "lower": (np.tril(lower, -1), True),
            "upper": (np.triu(upper, 1), True),
            "log_diagonal": (np.log(np.abs(diagonal)), True),
        }
        for name, (value, trainable) in values.items():
            weight = self.add_weight(
                name=name,
                shape=value.shape,
                initializer=constant(value),
                dtype="int32" if value.dtype.kind == "i" else None,
                trainable=trainable,
            )
            setattr(self, name, weight)

    def forward_and_log_det(self, x: Any, condition: Any = None, training: bool = False) -> tuple[Any, Any]:
        lower, upper = self._factors()
        # Row i of P L is row order^-1(i) of L.
        w = precise_product(ops.take(lower, ops.argsort(ops.convert_to_tensor(self.order)), axis=0), upper)
        return precise_product(x, w), self._log_det(x)

    def inverse_and_log_det(self, y: Any, condition: Any = None, training: bool = False) -> tuple[Any, Any]:
        lower, upper = self._factors()
        identity = ops.eye(y.shape[-1], dtype=self.bijection_dtype)
        w = ops.solve_triangular(upper, ops.solve_triangular(lower, identity, lower=True))
        w = ops.take(w, ops.argsort(ops.convert_to_tensor(self.order)), axis=1)
        return precise_product(y, w), -self._log_det(y)

    def _factors(self) -> tuple[Any, Any]:
        lower, upper, sign, s = (
            ops.cast(weight, self.bijection_dtype) for weight in (self.lower, self.upper, self.sign, self.log_diagonal)
        )
        identity = ops.eye(s.shape[0], dtype=self.bijection_dtype)
        return ops.tril(lower, -1) + identity, ops.triu(upper, 1) + identity * (sign * ops.exp(s))

    def _log_det(self, x: Any) -> Any:
        return broadcast_to_batch(self.num_positions * ops.sum(ops.cast(self.log_diagonal, self.bijection_dtype)), x)

    def get_config(self) -> dict[str, Any]:
        matrix = None if self.matrix is None else self.matrix.tolist()
        return {**super().get_config(), "matrix": matrix, "seed": self.seed}


def lu(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Computes `order`, `lower`, `upper` with `matrix[order] = lower @ upper`: LU decomposition, partial pivoting."""
    upper, lower, order = matrix.copy(), np.eye(len(matrix)), np.arange(len(matrix))
    for i in range(len(matrix)):
        pivot = i + int(np.argmax(np.abs(upper[i:, i])))
        upper[[i, pivot]], order[[i, pivot]] = upper[[pivot, i]], order[[pivot, i]]
        lower[[i, pivot], :i] = lower[[pivot, i], :i]
        lower[i + 1 :, i] = upper[i + 1 :, i] / upper[i, i]
        upper[i + 1 :] -= np.outer(lower[i + 1 :, i], upper[i])
    return order, lower, np.triu(upper)


def _check_matrix(matrix: Any) -> np.ndarray:
    matrix = finite_array("matrix", matrix).astype("float64")
    check(matrix.ndim == 2 and len(matrix) == matrix.shape[1], "matrix", "be square", f"shape {matrix.shape}")
    rule = "be invertible, with a condition number below 1e6"
    check(np.linalg.cond(matrix) < 1e6, "matrix", rule, f"condition number {np.linalg.cond(matrix):.3g}")
    return matrix
