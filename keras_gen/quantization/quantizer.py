import abc
from typing import Any

import keras
from keras import ops

from keras_gen.core.checks import check, same_shape
from keras_gen.quantization.metrics import LayerStatistic, count_codes, perplexity, split_counts, usage

MOST_CODES = 2**24  # how often each is used is counted, in float32


class Quantizer(keras.layers.Layer):
    """Base class of quantizers: layers that replace each vector by one of finitely many.

    To write another: define `assign_codes`, `indices_of` and `vectors_of`; `code_sizes`, the number of codes that each
    entry of an index has (one number if indices have the shape of the positions); `loss_names`; and call
    `super().build` at the end of `build`.

    Logs `perplexity` and `usage` of the codes, in training and evaluation.
    """

    loss_names: tuple[str, ...] = ()

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.logged = True  # not so inside a composite quantizer, which logs the means of all

    def __new__(cls, *args: Any, **kwargs: Any) -> "Quantizer":
        layer = super().__new__(cls, *args, **kwargs)
        # Keras hides each layer's `quantize` behind its own, the conversion of weights to int8. Ours is another thing.
        del layer.__dict__["quantize"]
        return layer

    @property
    @abc.abstractmethod
    def code_sizes(self) -> tuple[int, ...]:
        """How many codes each entry of an index chooses from."""

    @abc.abstractmethod
    def assign_codes(self, x: Any, mask: Any, training: bool) -> tuple[Any, Any, dict[str, Any]]:
        """Does the work of `quantize`."""

    @abc.abstractmethod
    def indices_of(self, x: Any) -> Any:
        """Does the work of `encode`."""

    @abc.abstractmethod
    def vectors_of(self, indices: Any) -> Any:
        """Does the work of `decode`."""

    def encode(self, x: Any) -> Any:
        """Finds the codes of vectors, without any change of state.

        Args:
            x: float tensor `(batch, ..., channels)`.

        Returns:
            int32 tensor `(batch, ...)`; with several heads, groups or levels, these are a last axis.

        Raises:
            ValueError: if `x` is not floating-point or does not have the layer's channels.
        """
        x = ops.convert_to_tensor(x)
        check_vectors(x)
        return self.indices_of(x)

    def decode(self, indices: Any) -> Any:
        """Finds the vectors of codes.

        Args:
            indices: integers, as `encode` gives them.

        Returns:
            float32 tensor `(batch, ..., channels)`.

        Raises:
            ValueError: if `indices` are not integers.
        """
        indices = ops.convert_to_tensor(indices)
        dtype = keras.backend.standardize_dtype(indices.dtype)
        check("int" in dtype, "indices", "be integers", f"dtype {dtype}")
        return self.vectors_of(ops.cast(indices, "int32"))

    def quantize(
        self, x: Any, mask: Any = None, training: bool = False, **options: Any
    ) -> tuple[Any, Any, dict[str, Any]]:
        """Replaces each vector by a code.

        Args:
            x: float tensor `(batch, ..., channels)`.
            mask: bool tensor `(batch, ...)` or `None`. Positions where it is `False` are quantized like the others, but
                count neither in losses nor in statistics. Defaults to `None`.
            training: bool. Whether statistics and codes may change. Defaults to `False`.
            **options: none; refused.

        Returns:
            `(quantized, indices, losses)`: a tensor like `x`, an int32 tensor, and float32 scalars by name, to be
            added to the loss. They have the same meaning in training and evaluation.

        Raises:
            ValueError: if `x` is not floating-point or does not have the layer's channels, or the mask has another
                shape.
        """
        if options:  # `keras.Model.quantize("int8")` asks every layer, and takes this for a no
            raise NotImplementedError(f"{type(self).__name__} has no weights to convert to integers")
        check_vectors(x)
        if not self.built:
            self.build(tuple(x.shape))
        if mask is not None:
            wanted = tuple(x.shape)[:-1]
            rule = f"have shape {wanted}, that of x without channels"
            check(same_shape(mask.shape, wanted), "mask", rule, f"shape {tuple(mask.shape)}")
        quantized, indices, losses = self.assign_codes(x, mask, training)
        weights = ops.ones(ops.shape(indices)) if mask is None else ops.cast(mask, "float32")
        if mask is not None and len(indices.shape) > len(mask.shape):
            weights = ops.broadcast_to(ops.expand_dims(weights, -1), ops.shape(indices))
        self.count(indices, weights)
        return quantized, indices, losses

    def build(self, x_shape: tuple[int | None, ...]) -> None:
        state = {"trainable": False, "dtype": "float32", "autocast": False}
        self.seen = self.add_weight(name="seen", shape=(sum(self.code_sizes),), initializer="zeros", **state)
        self.built = True

    def count(self, indices: Any, weights: Any) -> None:
        """Adds to the counts that perplexity and usage are computed from."""
        self.seen.assign_add(count_codes(indices, weights, self.code_sizes))

    def counters(self) -> list[keras.Variable]:
        """Returns the weights that hold those counts."""
        return [self.seen]

    @property
    def metrics(self) -> list[keras.Metric]:
        if not (self.built and self.logged):
            return []
        return [
            LayerStatistic(name, self.counters, lambda counts, of=of: of(self._by_codebook(counts)))
            for name, of in {"perplexity": perplexity, "usage": usage}.items()
        ]

    def call(self, x: Any, mask: Any = None, training: bool = False) -> Any:
        quantized, _, losses = self.quantize(x, mask, training)
        for loss in losses.values():
            self.add_loss(loss)
        return quantized

    def compute_output_shape(self, x_shape: tuple[int | None, ...], *args: Any) -> tuple[int | None, ...]:
        return tuple(x_shape)

    def _by_codebook(self, counts: list[Any]) -> list[Any]:
        return split_counts(ops.concatenate(counts), self.code_sizes)


def check_vectors(x: Any) -> None:
    """Refuses integers, and tensors without a channel axis."""
    dtype = keras.backend.standardize_dtype(x.dtype)
    check("float" in dtype, "x", "be floating-point", f"dtype {dtype}")
    check(len(x.shape) >= 2, "x", "have shape (batch, ..., channels)", f"shape {tuple(x.shape)}")


def masked_mean(values: Any, mask: Any) -> Any:
    """Returns the mean of `values` `(batch, ...)` over the positions where the mask holds, 0 where it holds nowhere."""
    if mask is None:
        return ops.mean(values)
    weights = ops.cast(mask, "float32")
    return ops.sum(values * weights) / ops.maximum(ops.sum(weights), 1.0)
