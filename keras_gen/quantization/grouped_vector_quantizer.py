from collections.abc import Sequence
from typing import Any

from keras import ops

from keras_gen.core.checks import check
from keras_gen.export import keras_gen_export
from keras_gen.quantization.composite_quantizer import CompositeQuantizer
from keras_gen.quantization.quantizer import Quantizer


@keras_gen_export("keras_gen.layers.GroupedVectorQuantizer")
class GroupedVectorQuantizer(CompositeQuantizer):
    """Cuts the channels into equal groups and quantizes each with a quantizer, so a codebook, of its own.

        output = [q_1(x_1), ..., q_G(x_G)],   x = [x_1, ..., x_G],   loss = the mean of the groups' losses

    Args:
        quantizers: list of quantizers, one for each group, each with one head. Their number must divide the channels.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        x: float tensor `(batch, ..., channels)`.
        mask: bool tensor `(batch, ...)` or `None`; see `quantize`.
        training: bool. Whether codes and statistics change.

    Returns:
        A tensor like `x`. Indices, from `quantize` or `encode`, are `(batch, ..., groups)`.

    Raises:
        ValueError: if `quantizers` is not a list of different quantizers with one head, their number does not divide
            the channels, or `x` or the mask do not fit them.

    Example:

    >>> groups = [keras_gen.layers.VectorQuantizer(64, seed=i) for i in range(2)]
    >>> quantizer = keras_gen.layers.GroupedVectorQuantizer(groups)

    Reference: Jegou et al. 2011, doi:10.1109/TPAMI.2010.57 (product quantization).
    """

    def __init__(self, quantizers: Sequence[Quantizer], **kwargs: Any):
        super().__init__(quantizers, **kwargs)

    def build(self, x_shape: tuple[int | None, ...]) -> None:
        groups, channels = len(self.quantizers), x_shape[-1]
        check(channels % groups == 0, "quantizers", f"be as many as divide {channels} channels", f"{groups} quantizers")
        self.build_parts((*x_shape[:-1], channels // groups))

    def assign_codes(self, x: Any, mask: Any, training: bool) -> tuple[Any, Any, dict[str, Any]]:
        groups = ops.split(x, len(self.quantizers), axis=-1)
        results = [
            part.assign_codes(group, mask, training) for part, group in zip(self.quantizers, groups, strict=True)
        ]
        quantized, indices, losses = zip(*results, strict=True)
        mean = {name: loss / len(groups) for name, loss in self.summed(list(losses)).items()}
        output = ops.cast(ops.concatenate(quantized, axis=-1), self.compute_dtype)
        return output, ops.stack(indices, axis=-1), mean

    def indices_of(self, x: Any) -> Any:
        groups = ops.split(x, len(self.quantizers), axis=-1)
        return ops.stack([part.indices_of(group) for part, group in zip(self.quantizers, groups, strict=True)], axis=-1)

    def vectors_of(self, indices: Any) -> Any:
        parts = [part.vectors_of(indices[..., group]) for group, part in enumerate(self.quantizers)]
        return ops.concatenate(parts, axis=-1)
