from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.checks import (
    as_numpy,
    check,
    check_choice,
    check_divides,
    check_fraction,
    check_integer,
    check_nonnegative,
    known_size,
)
from keras_gen.core.random import check_seed
from keras_gen.core.replicas import whole_batch
from keras_gen.export import keras_gen_export
from keras_gen.latent.straight_through import straight_through
from keras_gen.quantization.codebook import Codebook
from keras_gen.quantization.kmeans import kmeans, kmeans_plus_plus
from keras_gen.quantization.nearest_code import nearest_code
from keras_gen.quantization.quantizer import Quantizer, masked_mean
from keras_gen.quantization.rotation_trick import rotation_trick

GRADIENTS = {"straight_through": straight_through, "rotation": rotation_trick}


@keras_gen_export("keras_gen.layers.VectorQuantizer")
class VectorQuantizer(Quantizer):
    """Vector quantizer: replaces each vector by the nearest code of a learned codebook.

        k = argmin_j |x - e_j|^2,   output = e_k,   d output / d x = I (straight-through)
        loss = commitment_cost mean |x - sg(e_k)|^2   (+ mean |sg(x) - e_k|^2 for codebook_update="loss")

    sg is the stop-gradient. Output and losses use the codes before this batch's update. Distances, codes and
    statistics are float32 under any dtype policy.

    Any model that contains the layer logs `perplexity` and `usage` of the codes over an epoch. (On JAX they are NaN
    during the epoch: Keras does not pass a layer's weights to metrics before its end.)

    Args:
        num_codes: int >= 1.
        commitment_cost: float >= 0. Weight of the commitment loss, which pulls the encoder's outputs towards their
            codes. Defaults to `0.25`.
        codebook_update: `"ema"` (codes are moving averages of the vectors nearest to them) or `"loss"` (codes are
            trained by the optimizer). Defaults to `"ema"`.
        decay: float in (0, 1). Decay of the moving averages (for `"loss"`, of the counts only). Defaults to `0.99`.
        num_heads: int >= 1. Each vector is split into `num_heads` parts, which share one codebook; must divide the
            number of channels. For one codebook per part see `GroupedVectorQuantizer`. Defaults to `1`.
        distance: `"l2"`, or `"cosine"`, which normalizes vectors and codes to unit length first (output and loss use
            the normalized vectors, so that norms cannot diverge). Defaults to `"l2"`.
        gradient: `"straight_through"` or `"rotation"`, see `ops.rotation_trick`. Defaults to `"straight_through"`.
        initializer: `"kmeans"` (centers of the first training batch), or a Keras initializer or its name. Defaults to
            `"kmeans"`.
        restart_below: float >= 0. A dead code, whose average number of vectors per batch falls below this threshold,
            is reset to a random vector of the batch, with all its statistics. 0 disables restarts; 1 is a good choice
            if a batch has many more vectors than there are codes. Defaults to `0.0`.
        seed: int or `None`. Seeds initialization and restarts. Defaults to `None`, a seed from Keras's global one.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        x: float tensor `(batch, ..., channels)`.
        mask: bool tensor `(batch, ...)` or `None`; see `quantize_vectors`.
        training: bool. Whether codes and statistics are updated.

    Returns:
        A tensor like `x`. Losses are added to the model's; `quantize_vectors` returns them instead.

    Raises:
        ValueError: if an argument is outside its range, `num_heads` does not divide the number of channels, `x` is
            not floating-point, or the mask does not have the shape of `x` without channels.

    Example:

    >>> quantizer = keras_gen.layers.VectorQuantizer(512, restart_below=1.0, seed=0)
    >>> quantized = quantizer(x)                  # (batch, 7, 7, 64), like x; losses are added to the model
    >>> indices = quantizer.encode(x)             # int32 (batch, 7, 7)
    >>> vectors = quantizer.decode(indices)       # the same as quantized

    Reference: https://kexue.fm/archives/6760; van den Oord et al. 2017, arXiv:1711.00937; Razavi et al. 2019,
    arXiv:1906.00446 (moving averages).
    """

    def __init__(
        self,
        num_codes: int,
        commitment_cost: float = 0.25,
        codebook_update: str = "ema",
        decay: float = 0.99,
        num_heads: int = 1,
        distance: str = "l2",
        gradient: str = "straight_through",
        initializer: Any = "kmeans",
        restart_below: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.num_codes = check_integer("num_codes", num_codes)
        self.commitment_cost = check_nonnegative("commitment_cost", commitment_cost)
        check_choice("codebook_update", codebook_update, ("ema", "loss"))
        self.codebook_update = codebook_update
        self.decay = check_fraction("decay", decay)
        self.num_heads = check_integer("num_heads", num_heads)
        check_choice("distance", distance, ("l2", "cosine"))
        self.distance = distance
        check_choice("gradient", gradient, GRADIENTS)
        self.gradient = gradient
        self.initializer = _as_initializer(initializer)
        self.restart_below = check_nonnegative("restart_below", restart_below)
        self.seed = check_seed(seed)
        self.loss_names = ("commitment",) if codebook_update == "ema" else ("commitment", "codebook")
        self.codes = Codebook(
            self.num_codes,
            codebook_update,
            self.decay,
            distance,
            self.initializer,
            self.restart_below,
            seed,
            name="codes",
        )

    @property
    def code_sizes(self) -> tuple[int, ...]:
        return (self.num_codes,)

    @property
    def codebook(self) -> Any:
        """The codes, float32 `(num_codes, channels / num_heads)`."""
        self._check_built()
        return self.codes.vectors()

    def build(self, x_shape: tuple[int | None, ...]) -> None:
        channels = known_size("x", x_shape)
        check_divides("num_heads", self.num_heads, channels)
        if not self.codes.built:
            self.codes.build(channels // self.num_heads)
        super().build(x_shape)

    def assign_codes(self, x: Any, mask: Any, training: bool) -> tuple[Any, Any, dict[str, Any]]:
        vectors = self._rows(x)
        fixed = ops.stop_gradient(vectors)
        if mask is None:
            weights = ops.ones_like(fixed[:, 0])
        else:
            weights = ops.repeat(ops.reshape(ops.cast(mask, "float32"), (-1,)), self.num_heads)
        if training:
            self.codes.start(fixed, weights)
        codebook = self.codebook
        indices = nearest_code(fixed, codebook)
        nearest = ops.take(codebook, indices, axis=0)
        if training:
            self.codes.learn(fixed, weights, indices, self.reduce)
        quantized = ops.reshape(GRADIENTS[self.gradient](nearest, vectors), ops.shape(x))
        losses = self._distances(vectors, nearest, weights)
        return ops.cast(quantized, self.compute_dtype), self._per_position(indices, x), losses

    def reduce(self, statistics: Any) -> Any:
        """Sums a statistic of the batch over the replicas that share it."""
        return whole_batch.total(statistics)

    def indices_of(self, x: Any) -> Any:
        return self._per_position(nearest_code(self._rows(x), self.codebook), x)

    def vectors_of(self, indices: Any) -> Any:
        vectors = ops.take(self.codebook, indices, axis=0)
        if self.num_heads == 1:
            return vectors
        return ops.reshape(vectors, (*ops.shape(indices)[:-1], self.num_heads * vectors.shape[-1]))

    def adapt(self, data: Any, iterations: int = 20) -> None:
        """Sets the codes to the k-means centers of data. With fewer vectors than codes, some codes coincide.

        Args:
            data: float array `(batch, ..., channels)`.
            iterations: int >= 1. Defaults to `20`.

        Raises:
            ValueError: if `data` is empty, not finite, not floating-point, or has the wrong number of channels.
        """
        check_integer("iterations", iterations)
        data = as_numpy("data", data)
        check(
            data.dtype.kind == "f" and data.ndim >= 2, "data", "be floats of shape (batch, ..., channels)", data.dtype
        )
        check(data.size > 0, "data", "hold at least one vector", f"shape {data.shape}")
        check(bool(np.isfinite(data).all()), "data", "be finite", "NaN or infinite values")
        if not self.built:
            self.build(data.shape)
        rows = ops.stop_gradient(self._rows(ops.convert_to_tensor(data)))
        weights = ops.ones_like(rows[:, 0])
        draws = keras.random.uniform((self.num_codes,), dtype="float32", seed=self.codes.seed_generator)
        self.set_codebook(kmeans(rows, weights, kmeans_plus_plus(rows, weights, draws), iterations))

    def set_codebook(self, codebook: Any) -> None:
        """Replaces the codes and resets all statistics.

        Args:
            codebook: `(num_codes, channels / num_heads)`.

        Raises:
            ValueError: if `codebook` has the wrong shape.
        """
        codebook = ops.cast(codebook, "float32")
        if not self.built and len(codebook.shape) == 2:
            self.build((None, codebook.shape[1] * self.num_heads))
        self._check_built()
        shape = tuple(self.codes.base.shape)
        check(tuple(codebook.shape) == shape, "codebook", f"have shape {shape}", f"shape {tuple(codebook.shape)}")
        self.codes.set_codes(codebook)
        self.codes.initialized.assign(1.0)

    def get_config(self) -> dict[str, Any]:
        own = {
            "num_codes": self.num_codes,
            "commitment_cost": self.commitment_cost,
            "codebook_update": self.codebook_update,
            "decay": self.decay,
            "num_heads": self.num_heads,
            "distance": self.distance,
            "gradient": self.gradient,
            "initializer": self.initializer
            if self.initializer == "kmeans"
            else keras.initializers.serialize(self.initializer),
            "restart_below": self.restart_below,
            "seed": self.seed,
        }
        return {**super().get_config(), **own}

    def _rows(self, x: Any) -> Any:
        # (batch, ..., channels) -> float32 (batch * ... * heads, channels / heads)
        self._check_built()
        width = self.codes.base.shape[-1]
        channels = width * self.num_heads
        check(x.shape[-1] == channels, "x", f"have {channels} channels", f"shape {tuple(x.shape)}")
        return self.codes.normalized(ops.reshape(ops.cast(x, "float32"), (-1, width)))

    def _check_built(self) -> None:
        check(self.codes.built, "quantizer", "be built, by a call, `adapt` or `build`", self.name)

    def _per_position(self, indices: Any, x: Any) -> Any:
        heads = () if self.num_heads == 1 else (self.num_heads,)
        return ops.reshape(indices, (*ops.shape(x)[:-1], *heads))

    def _distances(self, vectors: Any, nearest: Any, weights: Any) -> dict[str, Any]:
        def distance(a: Any, b: Any) -> Any:
            return masked_mean(ops.mean(ops.square(a - b), axis=-1), weights)

        losses = {"commitment": self.commitment_cost * distance(vectors, ops.stop_gradient(nearest))}
        if self.codebook_update == "loss":
            losses["codebook"] = distance(ops.stop_gradient(vectors), nearest)
        return losses


def _as_initializer(initializer: Any) -> Any:
    if isinstance(initializer, str) and initializer == "kmeans":
        return initializer
    try:
        return keras.initializers.get(initializer)
    except ValueError:
        return check(False, "initializer", 'be "kmeans" or a Keras initializer', repr(initializer))
