import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.autoregressive.binary import BinaryModel, bernoulli_log_prob, check_ordering, two_logits
from keras_gen.autoregressive.sampling import ancestral_sampling
from keras_gen.core.arrays import constant
from keras_gen.core.checks import check, check_depth, check_units
from keras_gen.core.compiled import sequential_loop
from keras_gen.core.random import fixed_seed
from keras_gen.export import keras_gen_export
from keras_gen.networks.blocks.masked import MaskedDense, spread_degrees


@keras_gen_export("keras_gen.models.MADE")
class MADE(BinaryModel):
    """Masked autoencoder for distribution estimation (MADE): one network for all conditionals, with masked weights.

        h = g(h (W * M) + b) for each of `units`;   l = h (V * M') + x (A * M'') + c
        M_{jk} = [degree of k >= degree of j],   M', M'': > instead of >=

    The degree of x_i is its position in the ordering; degrees of hidden units are distributed over 1 .. length - 1.
    With several masks, which differ in these degrees and optionally in the ordering, each training batch uses a random
    one. The model is then a mixture, p(x) = mean over masks of p_m(x): the mean of probabilities, since that of logits
    would not be a distribution in general. Evaluation, `log_prob` and `sample` use the mixture.

    Train with `fit(x)`; no `loss` is given to `compile`. The loss is the exact negative log-likelihood, in nats per
    sample.

    Args:
        units: sequence of ints >= 1, sizes of the hidden layers. Defaults to `(500,)`.
        num_masks: int >= 1. Defaults to `1`.
        orderings: `"natural"`, row-major order for all masks; `"random"`; or a permutation of 0 .. length - 1 for each
            mask. Defaults to `"natural"`.
        activation: the function g, as for `keras.layers.Activation`. Defaults to `"relu"`.
        seed: int or `None`. Seeds masks, orderings and `sample`. Defaults to `None`, a seed from Keras's global one.
        **kwargs: `name`, `dtype`, `trainable`, as for any Keras model.

    Call arguments:
        x: binary data `(batch, ...)`, 0 or 1 in any dtype.

    Returns:
        The data unchanged; use `fit`, `log_prob` and `sample`.

    Raises:
        ValueError: if an argument is outside its range, `orderings` are not permutations of the data's positions, or
            arrays of data are not binary.

    Example:

    >>> model = keras_gen.models.MADE([500], num_masks=8, orderings="random", seed=0)
    >>> model.compile(keras.optimizers.Adam(1e-3))
    >>> model.fit(x, epochs=20)               # 0 or 1, (n, 8, 8, 1)
    >>> new = model.sample(16, seed=0)        # int32 (16, 8, 8, 1)
    >>> log_p = model.log_prob(new)           # nats, (16,)

    Reference: Germain et al. 2015, arXiv:1502.03509; https://kexue.fm/archives/9152 (the chain rule).
    """

    def __init__(
        self,
        units: Sequence[int] = (500,),
        num_masks: int = 1,
        orderings: str | Sequence[Sequence[int]] = "natural",
        activation: Any = "relu",
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(seed=seed, **kwargs)
        self.units = check_units(units)
        check(len(self.units) > 0, "units", "hold at least one size", units)
        self.num_masks = check_depth("num_masks", num_masks)
        if isinstance(orderings, list | tuple | np.ndarray):
            orderings = [check_ordering("orderings", ordering) for ordering in orderings]
            rule = f"have one ordering for each of num_masks={num_masks}"
            check(len(orderings) == self.num_masks, "orderings", rule, f"{len(orderings)} orderings")
        else:
            rule = "be 'natural', 'random' or a list of permutations"
            check(orderings in ("natural", "random"), "orderings", rule, repr(orderings))
        self.orderings = orderings
        self.activation = keras.activations.get(activation)

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        generator = np.random.default_rng(fixed_seed(self.seed))
        orders = self._orders(generator)
        self.orders = self._table("orders", orders)
        # The degree of a position is its rank in the ordering, from 1.
        self.ranks = self._table("ranks", np.argsort(orders, axis=1) + 1)
        spreads = [spread_degrees(units, max(1, self.length - 1)) for units in self.units]
        self.degrees, self.hidden = [], []
        before = np.arange(self.length)
        for number, spread in enumerate(spreads):
            several = [generator.permutation(spread) for _ in range(self.num_masks)] if self.num_masks > 1 else [spread]
            self.degrees.append(self._table(f"degrees_{number}", np.array(several)))
            self.hidden.append(self._dense(before, spread, f"hidden_{number}", "he_normal"))
            before = spread
        self.output_dense = self._dense(before, np.arange(self.length), "output", "zeros", strict=True)
        self.direct = self._dense(np.arange(self.length), np.arange(self.length), "direct", "zeros", strict=True)

    def _orders(self, generator: np.random.Generator) -> np.ndarray:
        if self.orderings == "natural":
            return np.tile(np.arange(self.length), (self.num_masks, 1))
        if self.orderings == "random":
            return np.stack([generator.permutation(self.length) for _ in range(self.num_masks)])
        is_complete = all(len(ordering) == self.length for ordering in self.orderings)
        rule = f"have {self.length} entries, the number of dimensions of x"
        check(is_complete, "orderings", rule, self.orderings)
        return np.array(self.orderings)

    def _table(self, name: str, values: np.ndarray) -> keras.Variable:
        return self.add_weight(
            name=name,
            shape=values.shape,
            initializer=constant(values),
            dtype="int32",
            trainable=False,
        )

    def _dense(self, inputs: Any, outputs: Any, name: str, start: str, strict: bool = False) -> MaskedDense:
        options = {"strict": strict, "kernel_initializer": start, "name": name, "dtype": self.dtype_policy}
        dense = MaskedDense(list(inputs), list(outputs), **options)
        dense.build((None, len(inputs)))
        return dense

    def masked_logits(self, x: Any, mask: Any) -> Any:
        """Returns the logits `(batch, length)` of flat data under the mask with index `mask`, a tensor."""
        ranks = ops.take(ops.convert_to_tensor(self.ranks), mask, axis=0)
        h, before = x, ranks
        for dense, table in zip(self.hidden, self.degrees, strict=True):
            degrees = ops.take(ops.convert_to_tensor(table), mask, axis=0)
            h, before = self.activation(dense(h, degrees=(before, degrees))), degrees
        logits = self.output_dense(h, degrees=(before, ranks)) + self.direct(x, degrees=(ranks, ranks))
        return ops.cast(logits, "float32")

    def log_density(self, x: Any, condition: Any = None, training: bool = False) -> Any:
        x = ops.reshape(ops.cast(x, "float32"), (-1, self.length))
        if training or self.num_masks == 1:
            drawn = keras.random.randint((), 0, self.num_masks, seed=self.seed_generator) if self.num_masks > 1 else 0
            return bernoulli_log_prob(x, self.masked_logits(x, drawn))

        def add(mask: Any, total: Any) -> Any:
            return ops.logaddexp(total, bernoulli_log_prob(x, self.masked_logits(x, mask)))

        first = bernoulli_log_prob(x, self.masked_logits(x, 0))
        return sequential_loop(1, self.num_masks, add, first) - math.log(self.num_masks)

    def next_logits(self, i: Any, codes: Any, cache: Any, inputs: dict[str, Any]) -> tuple[Any, Any]:
        # Values at positions that are not drawn yet do not matter: they are masked.
        logits = self.masked_logits(ops.cast(codes, "float32"), inputs["mask"])
        return two_logits(ops.take(logits, self.position(i, inputs), axis=1)), cache

    def position(self, i: Any, inputs: dict[str, Any]) -> Any:
        return ops.take(ops.take(ops.convert_to_tensor(self.orders), inputs["mask"], axis=0), i)

    def draw(self, noise: np.ndarray, seed: int, **options: Any) -> np.ndarray:
        chosen = np.random.default_rng([seed, 1]).integers(0, self.num_masks, len(noise))
        group_size = 1 << int(np.bincount(chosen).max() - 1).bit_length()
        codes = np.empty(noise.shape, "int32")
        for mask in np.unique(chosen):
            # All groups are padded to one size, a power of 2, so that other seeds rarely cause a recompilation.
            rows = np.flatnonzero(chosen == mask)
            padded = np.resize(rows, group_size)
            drawn = ancestral_sampling(self, noise[padded], {"mask": np.int32(mask)}, **options)
            codes[rows] = drawn[: len(rows)]
        return codes

    def get_config(self) -> dict[str, Any]:
        own = {
            "units": self.units,
            "num_masks": self.num_masks,
            "orderings": self.orderings,
            "activation": keras.activations.serialize(self.activation),
        }
        return {**super().get_config(), **own}
