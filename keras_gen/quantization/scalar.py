"""Quantizers without a codebook: each channel is rounded independently."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_gen.core.checks import check, check_integer, check_nonnegative, check_positive
from keras_gen.core.devices.products import precise_product
from keras_gen.export import keras_gen_export
from keras_gen.latent.straight_through import straight_through
from keras_gen.quantization.quantizer import MOST_CODES, Quantizer, masked_mean

MARGIN = 1e-3  # makes the outermost levels reachable for finite x


@keras_gen_export("keras_gen.layers.FiniteScalarQuantizer")
class FiniteScalarQuantizer(Quantizer):
    """Finite scalar quantizer: rounds each channel to one of a few fixed levels; codes are combinations of levels.

        output = round(tanh(x + atanh(o / h)) h - o) / floor(L / 2),   h = (L - 1) (1 + 0.001) / 2,   o = 1/2 for even L

    with the straight-through gradient of the unrounded value. Outputs lie in [-1, 1]. Nothing is learned: there is no
    codebook that could collapse, and no loss.

    Args:
        levels: tuple of ints >= 2, the number of levels L of each channel. `(8, 5, 5, 5)` has 1,000 codes.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        x: float tensor `(batch, ..., len(levels))`.
        mask: bool tensor `(batch, ...)` or `None`; `False` excludes positions from perplexity and usage.
        training: bool. Has no effect.

    Returns:
        A tensor like `x`.

    Raises:
        ValueError: if `levels` is empty, has an entry less than 2 or gives more than 2^24 codes, or `x` does not have
            `len(levels)` channels.

    Example:

    >>> quantizer = keras_gen.layers.FiniteScalarQuantizer((8, 5, 5, 5))

    Reference: Mentzer et al. 2023, arXiv:2309.15505; https://kexue.fm/archives/9826.
    """

    def __init__(self, levels: Sequence[int], **kwargs: Any):
        super().__init__(**kwargs)
        check(isinstance(levels, list | tuple) and len(levels) > 0, "levels", "be a tuple of ints >= 2", levels)
        self.levels = tuple(check_integer("levels", level, at_least=2) for level in levels)
        check(math.prod(self.levels) <= MOST_CODES, "levels", f"have a product of at most {MOST_CODES}", self.levels)
        L = np.array(self.levels)
        self.half = ((L - 1) * (1 + MARGIN) / 2).astype("float32")
        self.offset = np.where(L % 2 == 0, 0.5, 0.0).astype("float32")
        self.shift = np.arctanh(self.offset / self.half).astype("float32")
        self.steps = (L // 2).astype("float32")
        # An index is a mixed-radix number with one digit for each channel, the first channel's the least significant.
        self.place_values = np.cumprod([1, *self.levels[:-1]]).astype("int32")

    @property
    def code_sizes(self) -> tuple[int, ...]:
        return (math.prod(self.levels),)

    def build(self, x_shape: tuple[int | None, ...]) -> None:
        self._check_channels(x_shape)
        super().build(x_shape)

    def assign_codes(self, x: Any, mask: Any, training: bool) -> tuple[Any, Any, dict[str, Any]]:
        bounded = self._bounded(x)
        rounded = ops.round(bounded)
        output = ops.divide(straight_through(rounded, bounded), self.steps)
        return ops.cast(output, self.compute_dtype), self._indices(rounded), {}

    def indices_of(self, x: Any) -> Any:
        self._check_channels(x.shape)
        return self._indices(ops.round(self._bounded(x)))

    def vectors_of(self, indices: Any) -> Any:
        indices = ops.expand_dims(indices, -1)
        digits = ops.mod(ops.floor_divide(indices, self.place_values), np.array(self.levels, "int32"))
        return ops.divide(ops.cast(digits, "float32"), self.steps) - 1.0

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "levels": list(self.levels)}

    def _check_channels(self, x_shape: Any) -> None:
        check(x_shape[-1] == len(self.levels), "x", f"have {len(self.levels)} channels", f"shape {tuple(x_shape)}")

    def _bounded(self, x: Any) -> Any:
        h = ops.tanh(ops.add(ops.cast(x, "float32"), self.shift))
        return ops.subtract(ops.multiply(h, self.half), self.offset)

    def _indices(self, rounded: Any) -> Any:
        digits = ops.cast(ops.add(ops.stop_gradient(rounded), self.steps), "int32")
        return ops.cast(ops.sum(ops.multiply(digits, self.place_values), axis=-1), "int32")


JOINT_BITS = 8  # channels whose joint entropy of the mean code distribution is computed, from a table of 2^8 codes


@keras_gen_export("keras_gen.layers.LookupFreeQuantizer")
class LookupFreeQuantizer(Quantizer):
    """Lookup-free quantizer: takes the sign of each channel; the codes are the corners of a hypercube.

        output = sign(x),   d output / d x = I
        loss = entropy_weight (E[H(p(c | x))] - diversity H(E[p(c | x)])) + commitment_cost mean |x - sg(sign(x))|^2
        p(c | x) = softmax over the codes c of 2 x . c / temperature

    The first entropy term encourages confident assignments, the second uniform code usage (both in nats). Up to 8
    channels both are exact. With more, the second is the sum over groups of 8 channels, an upper bound.

    Args:
        num_codes: int, a power of 2, at most 2^24. Needs `log2(num_codes)` channels.
        commitment_cost: float >= 0. Defaults to `0.25`.
        entropy_weight: float >= 0. Defaults to `0.1`.
        diversity: float >= 0. Weight of the second entropy term. Defaults to `1.0`.
        temperature: float > 0. Defaults to `1.0`.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        x: float tensor `(batch, ..., log2(num_codes))`.
        mask: bool tensor `(batch, ...)` or `None`; see `quantize_vectors`.
        training: bool. Has no effect.

    Returns:
        A tensor like `x`. Losses are added to the model's; `quantize_vectors` returns them instead.

    Raises:
        ValueError: if `num_codes` is not a power of 2, an argument is outside its range, or `x` does not have
            `log2(num_codes)` channels.

    Example:

    >>> quantizer = keras_gen.layers.LookupFreeQuantizer(1024)     # 10 channels

    Reference: Yu et al. 2023, arXiv:2310.05737.
    """

    loss_names = ("commitment", "entropy")

    def __init__(
        self,
        num_codes: int,
        commitment_cost: float = 0.25,
        entropy_weight: float = 0.1,
        diversity: float = 1.0,
        temperature: float = 1.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        num_codes = check_integer("num_codes", num_codes, at_least=2)
        is_power = num_codes & (num_codes - 1) == 0
        check(is_power and num_codes <= MOST_CODES, "num_codes", "be a power of 2, <= 2^24", num_codes)
        self.num_codes = num_codes
        self.commitment_cost = check_nonnegative("commitment_cost", commitment_cost)
        self.entropy_weight = check_nonnegative("entropy_weight", entropy_weight)
        self.diversity = check_nonnegative("diversity", diversity)
        self.temperature = check_positive("temperature", temperature)
        self.num_bits = num_codes.bit_length() - 1
        self.place_values = (2 ** np.arange(self.num_bits)[::-1]).astype("int32")

    @property
    def code_sizes(self) -> tuple[int, ...]:
        return (self.num_codes,)

    def build(self, x_shape: tuple[int | None, ...]) -> None:
        self._check_channels(x_shape)
        super().build(x_shape)

    def assign_codes(self, x: Any, mask: Any, training: bool) -> tuple[Any, Any, dict[str, Any]]:
        x32 = ops.cast(x, "float32")
        signs = ops.cast(ops.where(x32 > 0, 1, -1), "float32")
        losses = {
            "commitment": self.commitment_cost * masked_mean(ops.mean(ops.square(x32 - signs), axis=-1), mask),
            "entropy": self.entropy_weight * self._entropy(x32, mask),
        }
        return ops.cast(straight_through(signs, x32), self.compute_dtype), self.indices_of(x), losses

    def indices_of(self, x: Any) -> Any:
        self._check_channels(x.shape)
        bits = ops.cast(ops.stop_gradient(x) > 0, "int32")
        return ops.cast(ops.sum(ops.multiply(bits, self.place_values), axis=-1), "int32")

    def vectors_of(self, indices: Any) -> Any:
        bits = ops.mod(ops.floor_divide(ops.expand_dims(indices, -1), self.place_values), 2)
        return 2.0 * ops.cast(bits, "float32") - 1.0

    def get_config(self) -> dict[str, Any]:
        own = {
            "num_codes": self.num_codes,
            "commitment_cost": self.commitment_cost,
            "entropy_weight": self.entropy_weight,
            "diversity": self.diversity,
            "temperature": self.temperature,
        }
        return {**super().get_config(), **own}

    def _check_channels(self, x_shape: Any) -> None:
        check(x_shape[-1] == self.num_bits, "x", f"have {self.num_bits} channels", f"shape {tuple(x_shape)}")

    def _entropy(self, x: Any, mask: Any) -> Any:
        # p(c | x) factorizes over channels: its entropy is the sum of the entropies of the groups.
        mean_entropy, entropy_of_mean = 0.0, 0.0
        for start in range(0, self.num_bits, JOINT_BITS):
            part = x[..., start : start + JOINT_BITS]
            bits = part.shape[-1]
            corners = 2.0 * (np.arange(2**bits)[:, None] >> np.arange(bits) & 1) - 1.0
            products = precise_product(part, ops.convert_to_tensor(corners.T, "float32"))
            log_p = ops.log_softmax(2 / self.temperature * products, axis=-1)
            p = ops.exp(log_p)
            mean_entropy = mean_entropy + masked_mean(-ops.sum(p * log_p, axis=-1), mask)
            weights = ops.ones_like(p[..., :1]) if mask is None else ops.expand_dims(ops.cast(mask, "float32"), -1)
            axes = tuple(range(len(p.shape) - 1))
            mean_p = ops.sum(p * weights, axis=axes) / ops.maximum(ops.sum(weights), 1.0)
            entropy_of_mean = entropy_of_mean - ops.sum(mean_p * ops.log(ops.maximum(mean_p, 1e-30)))
        return mean_entropy - self.diversity * entropy_of_mean
