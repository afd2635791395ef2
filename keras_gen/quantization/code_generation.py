"""What a model with a quantizer makes from codes: samples, by a prior that tells which codes there are."""

import abc
import warnings
from typing import Any

import keras
import numpy as np

from keras_gen.core.checks import check, check_integer
from keras_gen.core.generative_model import GenerativeModel
from keras_gen.quantization.quantizer import Quantizer


class PriorHolder:
    """Holds the prior out of Keras's sight, which would add its weights to those that `fit` trains."""

    def __init__(self, model: keras.Model | None):
        self.model = model


class CodeGeneration(GenerativeModel):
    """Base class of `VQVAE`, which adds how data become codes: `encode`, `decode`, and in `build` the `code_shape`."""

    def __init__(self, quantizer: Quantizer, prior: keras.Model | None = None, seed: int | None = None, **kwargs: Any):
        super().__init__(seed=seed, **kwargs)
        check(isinstance(quantizer, Quantizer), "quantizer", "be a quantizer layer", quantizer)
        self.quantizer = quantizer
        self.prior_holder = PriorHolder(None if prior is None else self._checked_prior(prior))

    @abc.abstractmethod
    def encode(self, x: Any, batch_size: int = 256) -> np.ndarray:
        """Finds the codes of data."""

    @abc.abstractmethod
    def decode(self, codes: Any, batch_size: int = 256, verbose: str | int = 0) -> np.ndarray:
        """Finds the data of codes."""

    @property
    def prior(self) -> keras.Model | None:
        """The model that `sample` draws codes from, or `None`.

        Its weights are not among those of this model, whose `fit` leaves it alone; files hold both.
        """
        return self.prior_holder.model

    def fit(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """Trains the model; see `keras.Model.fit`. It changes the codes: a prior is to be fitted after that."""
        if self.prior is not None:
            warnings.warn("`fit` changes what the codes mean: fit the prior again, by `fit_prior`.", stacklevel=2)
        return super().fit(*args, **kwargs)

    def fit_prior(self, prior: keras.Model, x: Any, y: Any = None, **kwargs: Any) -> keras.callbacks.History:
        """Trains a model of codes on the codes of data, for `sample` to draw from: compress first, then generate.

        If this model is trained further, its codes change, and the prior is to be fitted again.

        Args:
            prior: a compiled model of codes, such as `CodeTransformer` or `PixelCNN`, for as many codes as the codebook
                has.
            x: `(n, *data_shape)`, each of which is encoded once.
            y: labels or conditions `(n, ...)`, for a prior that takes them. Defaults to `None`.
            **kwargs: as for `keras.Model.fit`; `validation_data` are data, too.

        Returns:
            The `History` of the prior's `fit`.

        Raises:
            ValueError: if `x` does not fit the model, or the prior does not fit the codes.
        """
        self._checked_prior(prior)
        codes = self.encode(x)
        if isinstance(kwargs.get("validation_data"), tuple | list):
            valid, *rest = kwargs["validation_data"]
            kwargs["validation_data"] = (self.encode(valid), *(rest or [None]))
        history = prior.fit(codes, y, **kwargs)
        self.prior_holder.model = prior
        return history

    def sample(
        self,
        n: int,
        condition: Any = None,
        seed: int | None = None,
        noise: Any = None,
        batch_size: int = 256,
        verbose: str | int = "auto",
        **options: Any,
    ) -> np.ndarray:
        """Draws codes and decodes them.

        Codes come from the prior, see `fit_prior`. Without one they are drawn evenly and independently, which shows
        what the codes are, not new data.

        Args:
            n: int >= 1. How many.
            condition: for a prior that takes one, one for each sample or one for all. Defaults to `None`.
            seed: int or `None`. Codes k depend on `seed` and k alone. Defaults to `None`, a draw from the model's own
                generator.
            noise: `(n, *code_shape)`, what the prior takes as `noise`; without a prior, the codes to decode. Defaults
                to `None`, a draw.
            batch_size: int >= 1. Defaults to `256`.
            verbose: `"auto"`, 0 or 1: whether to show progress. Defaults to `"auto"`, which is 1.
            **options: further ones of the prior's `sample`, such as `temperature` or `guidance`.

        Returns:
            float32 array `(n, *data_shape)`.

        Raises:
            ValueError: if an argument does not fit the model.
        """
        check_integer("n", n)
        self.check_built()
        self.check_sampling(n, condition, **options)
        seed = self.draw_seed(seed) if noise is None else seed
        shared = {"batch_size": batch_size, "verbose": verbose}
        if self.prior is not None:
            noise = self.prior.sample(n, condition, seed=seed, noise=noise, **shared, **options)
        elif noise is None:
            noise = np.random.default_rng(seed).integers(0, self.quantizer.code_sizes, (n, *self._index_shape()))
            noise = noise.reshape(n, *self.code_shape)
        check(len(noise) == n, "noise", f"hold codes for {n} samples", f"{len(noise)}")
        return self.decode(noise, **shared)

    def check_sampling(self, n: int, condition: Any = None, **options: Any) -> None:
        if self.prior is not None:
            self.prior.check_sampling(n, condition, **options)
            return
        check(condition is None, "condition", "be None for a model without a prior", "a value")
        known = set(options) <= {"seed", "noise", "batch_size", "verbose"}
        check(known, "options", "be none for a model without a prior", sorted(options))

    def get_config(self) -> dict[str, Any]:
        parts = {"quantizer": self.quantizer, "prior": self.prior}
        return {**super().get_config(), **{k: keras.saving.serialize_keras_object(v) for k, v in parts.items()}}

    def _checked_prior(self, prior: keras.Model) -> keras.Model:
        known = isinstance(prior, GenerativeModel) and hasattr(prior, "num_codes")
        check(known, "prior", "be a model of codes, such as CodeTransformer", prior)
        sizes = sorted(set(self.quantizer.code_sizes))
        rule = f"have as many codes as the codebook, {' or '.join(map(str, sizes))}"
        check(sizes == [prior.num_codes], "prior", rule, f"num_codes={prior.num_codes}")
        return prior

    def _index_shape(self) -> tuple[int, ...]:
        # The last axis tells the codebooks apart, where there are several.
        return self.code_shape if len(self.quantizer.code_sizes) > 1 else (*self.code_shape, 1)
