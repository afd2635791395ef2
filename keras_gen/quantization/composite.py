"""Quantizers composed of several quantizers."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_gen.core.checks import check, known_size
from keras_gen.export import keras_gen_export
from keras_gen.latent.straight_through import straight_through
from keras_gen.quantization.quantizer import Quantizer


class CompositeQuantizer(Quantizer):
    """Base class of composite quantizers: the last axis of the indices has one entry for each of the quantizers.

    Args:
        quantizers: list of quantizers with one index for each position.
        **kwargs: as for any Keras layer.
    """

    def __init__(self, quantizers: Sequence[Quantizer], **kwargs: Any):
        super().__init__(**kwargs)
        is_list = isinstance(quantizers, list | tuple) and len(quantizers) > 0
        check(
            is_list and all(isinstance(part, Quantizer) for part in quantizers),
            "quantizers",
            "be a list of quantizers",
            quantizers,
        )
        single = all(getattr(part, "num_heads", 1) == 1 and len(part.code_sizes) == 1 for part in quantizers)
        check(single, "quantizers", "have one head and one codebook each", quantizers)
        distinct = len({id(part) for part in quantizers}) == len(quantizers)
        check(distinct, "quantizers", "be different layers", quantizers)
        self.quantizers = list(quantizers)
        for part in self.quantizers:
            part.logged = False
        self.loss_names = tuple(dict.fromkeys(name for part in quantizers for name in part.loss_names))

    @property
    def code_sizes(self) -> tuple[int, ...]:
        return tuple(part.code_sizes[0] for part in self.quantizers)

    def build_parts(self, x_shape: tuple[int | None, ...]) -> None:
        """Builds the quantizers for inputs of shape `x_shape`."""
        for part in self.quantizers:
            if not part.built:
                part.build(x_shape)
        self.built = True

    def count(self, indices: Any, weights: Any) -> None:
        for i, part in enumerate(self.quantizers):
            part.count(indices[..., i], weights[..., i])

    def counters(self) -> list[keras.Variable]:
        return [part.seen for part in self.quantizers]

    def summed(self, losses: list[dict[str, Any]]) -> dict[str, Any]:
        """Sums each named loss over the quantizers."""
        return {name: sum(part[name] for part in losses if name in part) for name in self.loss_names}

    def get_config(self) -> dict[str, Any]:
        parts = [keras.saving.serialize_keras_object(part) for part in self.quantizers]
        return {**super().get_config(), "quantizers": parts}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "CompositeQuantizer":
        return cls(**keras.saving.deserialize_keras_object(config))


@keras_gen_export("keras_gen.layers.ResidualVectorQuantizer")
class ResidualVectorQuantizer(CompositeQuantizer):
    """Residual vector quantizer: each level quantizes the residual of the previous one, `r_{l+1} = r_l - sg(q_l)`.

        r_1 = x,   output = sum_l q_l,   d output / d x = I,   loss = the sum of the levels' losses

    Residuals are computed with stop-gradient codes, so that the commitment loss of every level reaches x; the
    straight-through estimator is applied once, at the end. (At each of n levels, it would give n times the gradient.)

    Args:
        quantizers: list of quantizers, from coarse to fine, each with one head. Their `gradient` is ignored.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        x: float tensor `(batch, ..., channels)`.
        mask: bool tensor `(batch, ...)` or `None`; see `quantize_vectors`.
        training: bool. Whether codes and statistics are updated.

    Returns:
        A tensor like `x`. Indices, from `quantize_vectors` or `encode`, are `(batch, ..., levels)`.

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


@keras_gen_export("keras_gen.layers.GroupedVectorQuantizer")
class GroupedVectorQuantizer(CompositeQuantizer):
    """Grouped (product) vector quantizer: splits the channels into equal groups, each with its own quantizer.

        output = [q_1(x_1), ..., q_G(x_G)],   x = [x_1, ..., x_G],   loss = the mean of the groups' losses

    Args:
        quantizers: list of quantizers, one for each group, each with one head. Their number must divide the number of
            channels.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        x: float tensor `(batch, ..., channels)`.
        mask: bool tensor `(batch, ...)` or `None`; see `quantize_vectors`.
        training: bool. Whether codes and statistics are updated.

    Returns:
        A tensor like `x`. Indices, from `quantize_vectors` or `encode`, are `(batch, ..., groups)`.

    Raises:
        ValueError: if `quantizers` is not a list of different quantizers with one head, their number does not divide
            the number of channels, or `x` or the mask do not fit them.

    Example:

    >>> groups = [keras_gen.layers.VectorQuantizer(64, seed=i) for i in range(2)]
    >>> quantizer = keras_gen.layers.GroupedVectorQuantizer(groups)

    Reference: Jegou et al. 2011, doi:10.1109/TPAMI.2010.57 (product quantization).
    """

    def __init__(self, quantizers: Sequence[Quantizer], **kwargs: Any):
        super().__init__(quantizers, **kwargs)

    def build(self, x_shape: tuple[int | None, ...]) -> None:
        groups, channels = len(self.quantizers), known_size("x", x_shape)
        rule = f"have a length that divides {channels} channels"
        check(channels % groups == 0, "quantizers", rule, f"{groups} quantizers")
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
