import abc
from collections.abc import Callable
from typing import Any, Self

import keras
from keras import ops

from keras_gen.core.checks import check, same_shape
from keras_gen.core.frozen import StaysFrozen
from keras_gen.core.replicas import whole_batch
from keras_gen.quantization.metrics import LayerStatistic, count_codes, perplexity, split_counts, usage

MOST_CODES = 2**24  # their usage is counted in float32


class Quantizer(StaysFrozen, keras.layers.Layer):
    """Base class of quantizers: layers that map each vector to one of finitely many codes.

    Subclasses define `assign_codes`, `indices_of` and `vectors_of`; `code_sizes`, the number of codes for each entry of
    an index (a single size if indices have the shape of the positions); `loss_names`; and call `super().build` at the
    end of `build`.

    Logs `perplexity` and `usage` of the codes, in training and evaluation.
    """

    loss_names: tuple[str, ...] = ()

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.logged = True  # False inside a composite quantizer, which logs the averages

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        layer = super().__new__(cls, *args, **kwargs)
        # Keras shadows each layer's `quantize` with its own, the conversion of weights to int8, unrelated to this one.
        del layer.__dict__["quantize"]
        return layer

    @property
    @abc.abstractmethod
    def code_sizes(self) -> tuple[int, ...]:
        """Number of codes for each entry of an index."""

    @abc.abstractmethod
    def assign_codes(self, x: Any, mask: Any, training: bool) -> tuple[Any, Any, dict[str, Any]]:
        """Implements `quantize_vectors`."""

    @abc.abstractmethod
    def indices_of(self, x: Any) -> Any:
        """Implements `encode`."""

    @abc.abstractmethod
    def vectors_of(self, indices: Any) -> Any:
        """Implements `decode`."""

    def encode(self, x: Any) -> Any:
        """Returns the code indices of vectors, without any change of state.

        Args:
            x: float tensor `(batch, ..., channels)`.

        Returns:
            int32 tensor `(batch, ...)`; several heads, groups or levels form a last axis.

        Raises:
            ValueError: if `x` is not floating-point or does not have the layer's channels.
        """
        x = ops.convert_to_tensor(x)
        check_vectors(x)
        return self.indices_of(x)

    def decode(self, indices: Any) -> Any:
        """Returns the vectors of code indices.

        Args:
            indices: integers, as returned by `encode`.

        Returns:
            float32 tensor `(batch, ..., channels)`.

        Raises:
            ValueError: if `indices` are not integers.
        """
        indices = ops.convert_to_tensor(indices)
        dtype = keras.backend.standardize_dtype(indices.dtype)
        check("int" in dtype, "indices", "be integers", f"dtype {dtype}")
        return self.vectors_of(ops.cast(indices, "int32"))

    def quantize_vectors(self, x: Any, mask: Any = None, training: bool = False) -> tuple[Any, Any, dict[str, Any]]:
        """Replaces each vector by its code.

        Args:
            x: float tensor `(batch, ..., channels)`.
            mask: bool tensor `(batch, ...)` or `None`. Positions where it is `False` are quantized as well, but
                excluded from losses and statistics. Defaults to `None`.
            training: bool. Whether codes and their statistics are updated. Defaults to `False`.

        Returns:
            `(quantized, indices, losses)`: a tensor like `x`, an int32 tensor, and a dict of float32 scalars,
            to be added to the loss. They have the same meaning in training and evaluation.

        Raises:
            ValueError: if `x` is not floating-point or does not have the layer's channels, or the mask has the
                wrong shape.
        """
        check_vectors(x)
        if not self.built:
            self.build(tuple(x.shape))
        if mask is not None:
            expected = tuple(x.shape)[:-1]
            rule = f"have shape {expected}, the shape of x without channels"
            check(same_shape(mask.shape, expected), "mask", rule, f"shape {tuple(mask.shape)}")
        quantized, indices, losses = self.assign_codes(x, mask, training)
        weights = ops.ones(ops.shape(indices), "float32") if mask is None else ops.cast(mask, "float32")
        if mask is not None and len(indices.shape) > len(mask.shape):
            weights = ops.broadcast_to(ops.expand_dims(weights, -1), ops.shape(indices))
        self.count(indices, weights)
        return quantized, indices, losses

    def quantize(
        self, x: Any, mask: Any = None, training: bool = False, **options: Any
    ) -> tuple[Any, Any, dict[str, Any]]:
        """The former name of `quantize_vectors`, which hides the method of `keras.Layer` that converts weights to int8.

        Args:
            x: as for `quantize_vectors`.
            mask: as for `quantize_vectors`.
            training: as for `quantize_vectors`.
            **options: not supported.

        Returns:
            What `quantize_vectors` returns.

        Raises:
            ValueError: as `quantize_vectors` does.
            NotImplementedError: if there are options: a quantizer has no weights to convert to integers.
        """
        if options:  # `keras.Model.quantize("int8")` calls every layer, and skips those that raise this error
            raise NotImplementedError(f"{type(self).__name__} has no weights to convert to integers")
        return self.quantize_vectors(x, mask, training)

    def build(self, x_shape: tuple[int | None, ...]) -> None:
        state = {"trainable": False, "dtype": "float32", "autocast": False}
        self.seen = self.add_weight(name="seen", shape=(sum(self.code_sizes),), initializer="zeros", **state)
        self.built = True

    def count(self, indices: Any, weights: Any) -> None:
        """Updates the counts from which perplexity and usage are computed."""
        self.seen.assign_add(whole_batch.total(count_codes(indices, weights, self.code_sizes)))

    def counters(self) -> list[keras.Variable]:
        """Returns the weights that hold these counts."""
        return [self.seen]

    @property
    def metrics(self) -> list[keras.Metric]:
        if not (self.built and self.logged):
            return []
        return [self._statistic("perplexity", perplexity), self._statistic("usage", usage)]

    def call(self, x: Any, mask: Any = None, training: bool = False) -> Any:
        quantized, _, losses = self.quantize_vectors(x, mask, training)
        for loss in losses.values():
            self.add_loss(ops.cast(loss, keras.config.floatx()))  # the dtype of the loss that Keras adds it to
        return quantized

    def compute_output_shape(self, x_shape: tuple[int | None, ...], *args: Any) -> tuple[int | None, ...]:
        return tuple(x_shape)

    def _statistic(self, name: str, of: Callable[[list[Any]], Any]) -> LayerStatistic:
        return LayerStatistic(name, self.counters, lambda counts: of(self._by_codebook(counts)))

    def _by_codebook(self, counts: list[Any]) -> list[Any]:
        return split_counts(ops.concatenate(counts), self.code_sizes)


def check_vectors(x: Any) -> None:
    """Raises `ValueError` for integers, and for tensors without a channel axis."""
    dtype = keras.backend.standardize_dtype(x.dtype)
    check("float" in dtype, "x", "be floating-point", f"dtype {dtype}")
    check(len(x.shape) >= 2, "x", "have shape (batch, ..., channels)", f"shape {tuple(x.shape)}")


def masked_mean(values: Any, mask: Any) -> Any:
    """Returns the mean of `values` `(batch, ...)` over the positions where the mask is `True`, 0 if there are none."""
    if mask is None:
        return ops.mean(values)
    weights = ops.cast(mask, "float32")
    return ops.sum(values * weights) / ops.maximum(ops.sum(weights), 1.0)
