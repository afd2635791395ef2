from collections.abc import Sequence
from typing import Any

from keras import ops

from keras_gen.export import keras_gen_export
from keras_gen.latent.straight_through import straight_through
from keras_gen.quantization.composite_quantizer import CompositeQuantizer
from keras_gen.quantization.quantizer import Quantizer


@keras_gen_export("keras_gen.layers.ResidualVectorQuantizer")
class ResidualVectorQuantizer(CompositeQuantizer):
    """Quantizes in levels, each the error that is left by those before: `r_1 = x`, `r_{l+1} = r_l - sg(q_l)`.

        output = sum_l q_l,   d output / d x = I,   loss = the sum of the levels' losses

    The residual is taken from the stopped codes, so that the commitment loss of every level reaches x; and the gradient
    passes straight through once, at the end. (Straight through at every level would give n times the gradient.)

    Args:
        quantizers: list of quantizers, from coarse to fine, each with one head. Their `gradient` does not matter.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        x: float tensor `(batch, ..., channels)`.
        mask: bool tensor `(batch, ...)` or `None`; see `quantize`.
        training: bool. Whether codes and statistics change.

    Returns:
        A tensor like `x`. Indices, from `quantize` or `encode`, are `(batch, ..., levels)`.

    Raises:
        ValueError: if `quantizers` is not a list of different quantizers with one head, or `x` or the mask do not fit
            them.

    Example:

    >>> levels = [keras_gen.layers.VectorQuantizer(256, seed=i) for i in range(4)]
    >>> quantizer = keras_gen.layers.ResidualVectorQuantizer(levels)

    Reference: Zeghidour et al. 2021, arXiv:2107.03312; Lee et al. 2022, arXiv:2203.01941.
    """

    def __init__(self, quantizers: Sequence[Quantizer], **kwargs: Any):
        super().__init__(quantizers, **kwargs)

    def build(self, x_shape: tuple[int | None, ...]) -> None:
        self.build_parts(x_shape)

    def assign_codes(self, x: Any, mask: Any, training: bool) -> tuple[Any, Any, dict[str, Any]]:
        residual, total, indices, losses = ops.cast(x, "float32"), 0.0, [], []
        for part in self.quantizers:
            quantized, index, loss = part.assign_codes(residual, mask, training)
            quantized = ops.cast(ops.stop_gradient(quantized), "float32")
            residual, total = residual - quantized, total + quantized
            indices.append(index)
            losses.append(loss)
        output = ops.cast(straight_through(total, ops.cast(x, "float32")), self.compute_dtype)
        return output, ops.stack(indices, axis=-1), self.summed(losses)

    def indices_of(self, x: Any) -> Any:
        residual, indices = ops.cast(x, "float32"), []
        for part in self.quantizers:
            indices.append(part.indices_of(residual))
            residual = residual - part.vectors_of(indices[-1])
        return ops.stack(indices, axis=-1)

    def vectors_of(self, indices: Any) -> Any:
        return sum(self.quantizers[level].vectors_of(indices[..., level]) for level in range(indices.shape[-1]))
