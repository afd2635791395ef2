"""Base class of autoregressive models."""

import abc
import math
from typing import Any

import keras
import numpy as np

from keras_gen.autoregressive.sampling import ancestral_sampling
from keras_gen.core.checks import (
    as_numpy,
    batch_of,
    check,
    check_integer,
    check_positive,
    is_array,
    is_number,
    real_array,
    same_shape,
)
from keras_gen.core.exporting.graph import Graph, Input
from keras_gen.core.generative_model import GenerativeModel


class AutoregressiveModel(GenerativeModel):
    """Base class of autoregressive models of arrays of codes 0 .. num_codes - 1, factorized by the chain rule.

        log p(x) = sum_i log p(x_i | x_1 .. x_{i-1}),   loss = -mean log p(x)

    Subclasses define `log_density`, and for sampling `next_logits`, with `empty_cache` for the state carried between
    steps and `position` if codes are not drawn in the order of the array. Conditional models define `prepare_condition`
    and `null_condition`.
    """

    def __init__(self, num_codes: int, seed: int | None = None, **kwargs: Any):
        super().__init__(seed=seed, **kwargs)
        self.num_codes = check_integer("num_codes", num_codes, at_least=2)
        self.nll_tracker = keras.metrics.Mean(name="nll")
        self.bits_tracker = keras.metrics.Mean(name="bits_per_dim")

    def build(self, input_shape: Any) -> None:
        shape = tuple(input_shape[1:])
        is_known = len(shape) > 0 and None not in shape
        check(is_known, "x", "be codes (batch, ...) of a known shape", f"shape {tuple(input_shape)}")
        self.data_shape = shape
        self.length = math.prod(shape)

    @abc.abstractmethod
    def log_density(self, x: Any, condition: Any = None, training: bool = False) -> Any:
        """Returns log p(x) of tensors, float32 `(batch,)`, for losses and gradients; for arrays use `log_prob`."""

    @abc.abstractmethod
    def next_logits(self, i: Any, codes: Any, cache: Any, inputs: dict[str, Any]) -> tuple[Any, Any]:
        """Computes the logits of the code drawn in step `i`.

        Args:
            i: int tensor.
            codes: int32 `(batch, length)`, valid where drawn in earlier steps.
            cache: the cache returned by step `i - 1`, or `empty_cache` in the first step.
            inputs: the inputs of the sampling loop, among them `"condition"`, if there is one.

        Returns:
            float32 logits `(batch, num_codes)`, and the updated cache.
        """

    def empty_cache(self, batch: int, length: int) -> Any:
        """Returns the cache of the first step, empty by default."""
        return ()

    def position(self, i: Any, inputs: dict[str, Any]) -> Any:
        """Returns the position in the flat array of the code drawn in step `i`."""
        return i

    def prepare_condition(self, condition: Any, n: int, name: str = "condition") -> np.ndarray | None:
        """Returns the condition of `n` samples as an array, or `None` for an unconditional model."""
        check(condition is None, name, "be None: the model takes no condition", "a value")
        return None

    def null_condition(self, condition: np.ndarray) -> np.ndarray:
        """Returns null conditions, of the shape of `condition`, for classifier-free guidance."""
        raise NotImplementedError(f"{type(self).__name__} takes no condition")

    def loss_per_sample(self, x: Any, y: Any, training: bool) -> Any:
        nll = -self.log_density(x, y, training=training)
        self.track(self.nll_tracker, nll)
        self.track(self.bits_tracker, nll / (self.length * math.log(2)))
        return nll

    def check_batch(self, x: Any, y: Any) -> None:
        expected = batch_of(self.data_shape)
        check(same_shape(x.shape[1:], self.data_shape), "x", f"have shape {expected}", f"shape {tuple(x.shape)}")
        check(y is None, "y", "be None: the model takes no condition", "a value")

    def check_data(self, x: Any, y: Any) -> None:
        if is_array(x):
            self.prepare_codes("x", x)
            self.prepare_condition(y, len(x), "y")

    def prepare_codes(self, name: str, x: Any) -> np.ndarray:
        """Returns codes as an int32 array, after checking dtype, values and shape; builds the model if necessary."""
        x = as_numpy(name, x)
        check(x.ndim > 1 and len(x) > 0, name, "hold at least one sample (n, ...)", f"shape {x.shape}")
        self.check_values(name, x)
        if not self.built:
            self.build((None, *x.shape[1:]))
        expected = batch_of(self.data_shape)
        check(x.shape[1:] == self.data_shape, name, f"have shape {expected}", f"shape {x.shape}")
        return x.astype("int32")

    def check_values(self, name: str, x: np.ndarray) -> None:
        """Raises `ValueError` for arrays with values other than codes."""
        check(x.dtype.kind in "iu", name, "be integers", f"dtype {x.dtype}")
        is_in_range = bool((x >= 0).all() and (x < self.num_codes).all())
        check(is_in_range, name, f"be codes in 0 .. {self.num_codes - 1}", f"values in [{x.min()}, {x.max()}]")

    def log_prob(self, x: Any, condition: Any = None, batch_size: int = 256, verbose: str | int = "auto") -> np.ndarray:
        """Computes the exact log-probability of codes.

        Args:
            x: codes `(n, *data_shape)`.
            condition: for a conditional model, one for each sample or one for all. Defaults to `None`.
            batch_size: int >= 1. Defaults to `256`.
            verbose: `"auto"` (a bar in a terminal), 0 (silent), 1 (a bar) or 2 (a line). Defaults to `"auto"`.

        Returns:
            float32 array `(n,)`, in nats.

        Raises:
            ValueError: if an argument does not fit the model.
        """
        x = self.prepare_codes("x", x)
        condition = self.prepare_condition(condition, len(x))

        arrays = [x] if condition is None else [x, condition]
        return self.in_batches("log_prob", self.log_density, *arrays, batch_size=batch_size, verbose=verbose)

    def method_graphs(self) -> list[Graph]:
        self.check_built()
        inputs = [Input("x", (None, *self.data_shape), "int32"), *self.condition_inputs()]
        return [Graph("log_prob", self.log_density, inputs, "log_prob", [self])]

    def condition_inputs(self) -> list[Input]:
        """Returns the condition as an input of graphs; of an unconditional model none."""
        return []

    def bits_per_dim(self, x: Any, condition: Any = None, batch_size: int = 256) -> np.ndarray:
        """Computes `-log_2 p(x)` divided by the number of codes.

        Args:
            x: as for `log_prob`.
            condition: as for `log_prob`.
            batch_size: as for `log_prob`.

        Returns:
            float32 array `(n,)`; lower is better.

        Raises:
            ValueError: if an argument does not fit the model.
        """
        nats = -self.log_prob(x, condition, batch_size, verbose=0)
        return nats / (self.lengths(x) * math.log(2)).astype("float32")

    def lengths(self, x: Any) -> np.ndarray:
        """Returns the number of codes of each sample."""
        return np.full(len(x), self.length)

    def sample(
        self,
        n: int,
        condition: Any = None,
        guidance: float | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        noise: Any = None,
        batch_size: int = 256,
        verbose: str | int = "auto",
    ) -> np.ndarray:
        """Draws samples by ancestral sampling, one code at a time.

        With the defaults, samples follow the model's distribution, whose probabilities `log_prob` computes. The other
        options change the distribution, for samples that are more typical and less diverse.

        Args:
            n: int >= 1. Number of samples.
            condition: for a conditional model, one for each sample or one for all. Defaults to `None`.
            guidance: float w, weight of classifier-free guidance, for a model trained with `condition_dropout`: logits
                are (1 - w) unconditional + w conditional. Defaults to `None`, which is 1.
            temperature: float > 0. Logits are divided by it. Defaults to `1.0`.
            top_k: int in 1 .. num_codes. Only the k most likely codes are drawn, and those tied with the k-th; 1 is
                greedy decoding. Defaults to `None`, all.
            top_p: float in (0, 1]. Nucleus sampling: only the most likely codes with this total probability are drawn.
                Defaults to `None`, all.
            seed: int or `None`. Sample k depends on `seed` and k only, on any backend and for any `batch_size`.
                Defaults to `None`, a draw from the model's own generator.
            noise: `(n, *data_shape)`, uniform values in [0, 1) to use instead of a draw, by inverse transform
                sampling: a code is drawn where the cumulative distribution exceeds its value. Defaults to `None`.
            batch_size: int >= 1. Number of samples drawn at a time. Defaults to `256`.
            verbose: `"auto"` (a bar in a terminal), 0 (silent), 1 (a bar) or 2 (a line). Defaults to `"auto"`.

        Returns:
            int32 array `(n, *data_shape)`.

        Raises:
            ValueError: if an argument is outside its range or does not fit the model.
        """
        check_integer("n", n)
        check_integer("batch_size", batch_size)
        self.check_built()
        options: dict[str, Any] = {"guidance": guidance, "temperature": temperature, "top_k": top_k, "top_p": top_p}
        self.check_sampling(n, condition, **options)
        # With `noise`, only the component of a mixture is left to draw (see `MADE`): it is fixed then, too.
        seed = 0 if seed is None and noise is not None else self.draw_seed(seed)
        noise = self._uniform(n, noise, seed)
        condition = self.prepare_condition(condition, n)
        codes = self.draw(noise, seed, condition=condition, **options, batch_size=batch_size, verbose=verbose)
        return codes.reshape(n, *self.data_shape)

    def draw(self, noise: np.ndarray, seed: int, **options: Any) -> np.ndarray:
        """Returns the codes `(n, length)` of uniform `noise` `(n, length)`; `options` are checked by `sample`."""
        return ancestral_sampling(self, noise, {}, **options)

    def check_sampling(
        self,
        n: int,
        condition: Any = None,
        guidance: float | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        **options: Any,
    ) -> None:
        self.prepare_condition(condition, n)
        check_positive("temperature", temperature)
        if top_k is not None:
            check_integer("top_k", top_k)
            check(top_k <= self.num_codes, "top_k", f"be at most the number of codes, {self.num_codes}", top_k)
        is_probability = top_p is None or (is_number(top_p) and 0 < top_p <= 1)
        check(is_probability, "top_p", "be in (0, 1]", repr(top_p))
        if guidance is not None:
            is_finite = is_number(guidance) and math.isfinite(guidance)
            check(is_finite, "guidance", "be a finite number", repr(guidance))
            dropout = getattr(self, "condition_dropout", 0)
            rule = "be None for a model that was not trained with `condition_dropout` > 0"
            check(dropout > 0, "guidance", rule, guidance)

    def _uniform(self, n: int, noise: Any, seed: int) -> np.ndarray:
        if noise is None:
            return np.random.default_rng(seed).random((n, self.length), dtype="float32")
        noise = real_array("noise", noise).astype("float32")
        expected = (n, *self.data_shape)
        check(noise.shape == expected, "noise", f"have shape {expected}", f"shape {noise.shape}")
        check(bool((noise >= 0).all() and (noise < 1).all()), "noise", "be in [0, 1)", "other values")
        return noise.reshape(n, self.length)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_codes": self.num_codes}
