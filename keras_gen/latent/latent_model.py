"""Base classes of variational autoencoders."""

import abc
import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.arrays import straight_paths, sum_per_sample
from keras_gen.core.checks import (
    as_numpy,
    batch_of,
    check,
    check_image_range,
    check_integer,
    check_layer,
    finite_array,
    finite_samples,
    is_array,
    same_shape,
)
from keras_gen.core.configured import check_configured
from keras_gen.core.exporting.graph import Graph, Input
from keras_gen.core.generative_model import GenerativeModel
from keras_gen.core.logits import warn_of_activation
from keras_gen.core.random import starting_noise
from keras_gen.core.scheduled import Scheduled
from keras_gen.latent.divergences import gaussian_kl
from keras_gen.latent.gaussian import sample_gaussian
from keras_gen.latent.likelihoods import BernoulliLikelihood, GaussianLikelihood, LaplaceLikelihood, Likelihood

LIKELIHOODS = {"bernoulli": BernoulliLikelihood, "gaussian": GaussianLikelihood, "laplace": LaplaceLikelihood}


class LatentModel(GenerativeModel):
    """Base class of variational autoencoders: `p(x) = E_p(z)[p(x | z)]`, trained on the evidence lower bound (ELBO).

        -log p(x) <= E_q(z | x)[-log p(x | z)] + KL(q(z | x) || p(z)) = nll + kl

    Subclasses define `infer`, `mode` and `draw_latents`, and `get_config` for their own arguments; conditional models
    also `prepare_condition` and `to_conditional_prior`. All values are in nats per sample. `fit` and `evaluate` log
    `nll` and `kl` in addition to the loss, `nll + kl_weight kl`.
    """

    conditional = False  # whether `fit` takes labels
    takes_unit_images = True

    def __init__(
        self,
        encoder: keras.Layer,
        decoder: keras.Layer,
        likelihood: str | Likelihood = "bernoulli",
        kl_weight: Any = 1.0,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(seed=seed, **kwargs)
        for name, layer in {"encoder": encoder, "decoder": decoder}.items():
            check_layer(name, layer)
        is_likelihood = isinstance(likelihood, Likelihood) or (
            isinstance(likelihood, str) and likelihood in LIKELIHOODS
        )
        names = ", ".join(map(repr, LIKELIHOODS))
        check(is_likelihood, "likelihood", f"be a Likelihood or one of {names}", repr(likelihood))
        self.encoder = encoder
        self.decoder = decoder
        self.likelihood = LIKELIHOODS[likelihood]() if isinstance(likelihood, str) else likelihood
        check_configured("likelihood", self.likelihood)
        self.data_dtype = self.likelihood.dtype
        if self.likelihood.takes_logits:
            warn_of_activation("decoder", decoder)
        self.kl_weight = Scheduled("kl_weight", kl_weight)
        self.nll_tracker = keras.metrics.Mean(name="nll")
        self.kl_tracker = keras.metrics.Mean(name="kl")

    @abc.abstractmethod
    def infer(self, x: Any, condition: Any, seed: Any, training: bool) -> tuple[Any, Any]:
        """Draws `z` from q(z | x); returns it and the KL divergence from the prior, float32 `(batch,)`."""

    @abc.abstractmethod
    def mode(self, x: Any) -> Any:
        """Returns the mode of q(z | x), without sampling."""

    @abc.abstractmethod
    def draw_latents(self, n: int, seed: int) -> np.ndarray:
        """Draws `n` latents from the prior; latent k depends only on `seed` and k."""

    def prepare_condition(self, condition: Any, n: int, seed: int) -> np.ndarray | None:
        """Checks the condition of `n` samples and returns it as an array; only `None` is valid by default."""
        check(condition is None, "condition", "be None: the model takes none", "a value")
        return None

    def to_conditional_prior(self, latents: Any, condition: Any) -> Any:
        """Maps prior draws to the conditional prior; the identity by default."""
        return latents

    def build(self, input_shape: Any) -> None:
        self.data_shape = tuple(input_shape[1:])
        x = keras.Input(self.data_shape, dtype=self.likelihood.dtype)
        latents = self.mode(x)
        self.latent_shape = tuple(latents.shape[1:])
        output_shape = tuple(self.decoder(keras.Input(self.latent_shape)).shape[1:])
        needed = self.likelihood.output_shape(self.data_shape)
        check(
            output_shape == needed, "decoder", f"return outputs of shape {needed}", f"outputs of shape {output_shape}"
        )

    def call(self, x: Any) -> Any:
        return self.reconstruction(x) if self.reconstructing else x

    def reconstruction(self, x: Any) -> Any:
        return self._to_data(self.mode(x))

    def _to_data(self, z: Any) -> Any:
        return self.likelihood.mean(self.decoder(z, training=False))

    @property
    def reconstructing_layers(self) -> list[keras.Layer]:
        return [self.encoder, self.decoder]

    def loss_per_sample(self, x: Any, y: Any, training: bool) -> Any:
        z, kl = self.infer(x, y, self.seed_generator, training)
        nll = self._nll(x, self.decoder(z, training=training))
        self.track(self.nll_tracker, nll)
        self.track(self.kl_tracker, kl)
        return nll + self.kl_weight(training=training) * kl

    def _nll(self, x: Any, output: Any) -> Any:
        nll, name = self.likelihood.nll(x, output), type(self.likelihood).__name__
        rule = "return one value for each sample from `nll`, (batch,): the sum over its dimensions"
        check(len(nll.shape) == 1, "likelihood", rule, f"{name}, whose `nll` has shape {tuple(nll.shape)}")
        return nll

    def check_data(self, x: Any, y: Any) -> None:
        check(self.conditional or y is None, "y", "be None: the model takes no labels", "a value")
        self.build_from(self.encoder)
        if is_array(x):
            x = self.prepare_data("x", x)
            if self.conditional:
                check(y is not None, "y", "be given: the model takes labels", None)
                self.prepare_condition(y, len(x), 0)

    def check_batch(self, x: Any, y: Any) -> None:
        check(self.conditional or y is None, "y", "be None: the model takes no labels", "a value")
        check(not self.conditional or y is not None, "y", "be given: the model takes labels", None)
        dtype = keras.backend.standardize_dtype(x.dtype)
        kind, rule = ("int", "be integers") if self.likelihood.dtype == "int32" else ("float", "be floating-point")
        check(kind in dtype, "x", rule, f"dtype {dtype}")
        expected = batch_of(self.data_shape)
        check(same_shape(x.shape[1:], self.data_shape), "x", f"have shape {expected}", f"shape {tuple(x.shape)}")

    def check_sampling(self, n: int, condition: Any = None, **options: Any) -> None:
        self.prepare_condition(condition, n, 0)

    def load_weights(self, filepath: Any, skip_mismatch: bool = False, **kwargs: Any) -> None:
        self.build_from(self.encoder)
        super().load_weights(filepath, skip_mismatch, **kwargs)

    def prepare_data(self, name: str, x: Any) -> np.ndarray:
        """Checks dtype, shape and values of data, and returns them as an array."""
        x = as_numpy(name, x)
        check(x.ndim > 0 and len(x) > 0, name, "hold at least one sample", f"shape {x.shape}")
        if self.likelihood.dtype == "float32":
            check(x.dtype.kind == "f", name, "be floating-point", f"dtype {x.dtype}")
            check(bool(np.isfinite(x).all()), name, "be finite", "NaN or infinite values")
        self.likelihood.check(name, x)
        if self.takes_unit_images:
            check_image_range(name, x)
        self.build_from(self.encoder)
        if not self.built:
            self.build((None, *x.shape[1:]))
        expected = batch_of(self.data_shape)
        check(same_shape(x.shape[1:], self.data_shape), name, f"have shape {expected}", f"shape {x.shape}")
        return x.astype(self.likelihood.dtype, copy=False)

    def prepare_latents(self, name: str, z: Any) -> np.ndarray:
        """Checks dtype and shape of latents, and returns them as an array."""
        self.build_from(self.encoder)
        self.check_built()
        z = finite_array(name, z).astype("float32")
        is_batch = same_shape(z.shape[1:], self.latent_shape) and len(z) > 0
        check(is_batch, name, f"have shape {batch_of(self.latent_shape)}", f"shape {z.shape}")
        return z

    def sample(
        self,
        n: int,
        condition: Any = None,
        seed: int | None = None,
        noise: Any = None,
        batch_size: int = 256,
        verbose: str | int = "auto",
    ) -> np.ndarray:
        """Draws latents from the prior and decodes them.

        Args:
            n: int >= 1. Number of samples.
            condition: for conditional models: an int, one label for all samples, or integers `(n,)`. Defaults to
                `None`.
            seed: int or `None`. Latent k depends only on `seed` and k, not on the backend or `batch_size`. Defaults to
                `None`, a seed from the model's own generator.
            noise: `(n, *latent_shape)`, used instead of draws from the prior.
            batch_size: int >= 1. Number of latents decoded at a time. Defaults to `256`.
            verbose: `"auto"` (a bar in a terminal), 0 (silent), 1 (a bar) or 2 (a line). Defaults to `"auto"`.

        Returns:
            array `(n, *data_shape)`: the mean of p(x | z), or the mode for integer data.

        Raises:
            ValueError: if an argument is incompatible with the model.
        """
        check_integer("n", n)
        self.build_from(self.encoder)
        self.check_built()
        seed = self.draw_seed(seed)
        if noise is None:
            noise = self.draw_latents(n, seed)
        noise = finite_array("noise", noise).astype("float32")
        expected = (n, *self.latent_shape)
        check(same_shape(noise.shape, expected), "noise", f"have shape {expected}", f"shape {noise.shape}")
        condition = self.prepare_condition(condition, n, seed)
        return self._decode("sample", noise, condition, batch_size, verbose)

    def encode(self, x: Any, batch_size: int = 256) -> np.ndarray:
        """Encodes data to the mode of q(z | x), which for Gaussian latents is the mean.

        Args:
            x: `(n, *data_shape)`.
            batch_size: int >= 1. Defaults to `256`.

        Returns:
            float32 array `(n, *latent_shape)`.

        Raises:
            ValueError: if `x` is incompatible with the model.
        """
        return self.in_batches("encode", self.mode, self.prepare_data("x", x), batch_size=batch_size)

    def decode(self, z: Any, batch_size: int = 256) -> np.ndarray:
        """Decodes latents to the mean of p(x | z).

        Args:
            z: `(n, *latent_shape)`.
            batch_size: int >= 1. Defaults to `256`.

        Returns:
            array `(n, *data_shape)`: the mean of p(x | z), or the mode for integer data.

        Raises:
            ValueError: if `z` is incompatible with the model.
        """
        return self._decode("decode", self.prepare_latents("z", z), None, batch_size, 0)

    def reconstruct(self, x: Any, batch_size: int = 256) -> np.ndarray:
        """Encodes and decodes data, without sampling.

        Args:
            x: `(n, *data_shape)`.
            batch_size: int >= 1. Defaults to `256`.

        Returns:
            array `(n, *data_shape)`.

        Raises:
            ValueError: if `x` is incompatible with the model.
        """
        return self.decode(self.encode(x, batch_size), batch_size)

    def drawn_shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Returns the shapes, without the batch, of the data that `sample` draws and of their latents."""
        return self.data_shape, self.latent_shape

    def method_graphs(self) -> list[Graph]:
        self.build_from(self.encoder)
        self.check_built()
        data_shape, latent_shape = self.drawn_shapes()
        x, z = Input("x", (None, *data_shape), self.data_dtype), Input("z", (None, *latent_shape))
        return [Graph("encode", self.mode, [x], "z", [self]), Graph("decode", self._to_data, [z], "x", [self])]

    def interpolate(self, x_a: Any, x_b: Any, points: int = 9) -> np.ndarray:
        """Decodes linear interpolations between the latents of two data points.

        Args:
            x_a: `(n, *data_shape)`, the start points.
            x_b: `(n, *data_shape)`, the end points.
            points: int >= 2. Number of points per path, both ends included. Defaults to `9`.

        Returns:
            array `(n, points, *data_shape)`.

        Raises:
            ValueError: if `x_a` or `x_b` is incompatible with the model, or `points` is less than 2.
        """
        check_integer("points", points, at_least=2)
        path = straight_paths(self.encode(x_a), self.encode(x_b), points)
        decoded = self.decode(path.reshape(-1, *path.shape[2:]))
        return decoded.reshape(*path.shape[:2], *decoded.shape[1:])

    def elbo(
        self,
        x: Any,
        condition: Any = None,
        num_samples: int = 1,
        seed: int | None = None,
        batch_size: int = 256,
        verbose: str | int = "auto",
    ) -> np.ndarray:
        """Estimates the evidence lower bound, `E_q[log p(x | z)] - KL(q(z | x) || p(z)) <= log p(x)`, in nats.

        The KL weight of the loss is not applied.

        Args:
            x: `(n, *data_shape)`.
            condition: labels `(n,)`, for conditional models. Defaults to `None`.
            num_samples: int >= 1. Number of draws of z to average over. Defaults to `1`.
            seed: int or `None`. Defaults to `None`, a seed from the model's own generator.
            batch_size: int >= 1. Defaults to `256`.
            verbose: `"auto"` (a bar in a terminal), 0 (silent), 1 (a bar) or 2 (a line). Defaults to `"auto"`.

        Returns:
            float32 array `(n,)`; higher is better.

        Raises:
            ValueError: if an argument is incompatible with the model.
        """
        check_integer("num_samples", num_samples)
        x = self.prepare_data("x", x)
        arrays = [x]
        if self.conditional:
            check(condition is not None, "condition", "be given: the model takes labels", None)
            arrays.append(self.prepare_condition(condition, len(x), 0))
        else:
            check(condition is None, "condition", "be None: the model takes no labels", "a value")

        def bound(x: Any, *inputs: Any) -> Any:
            z, kl = self.infer(x, inputs[0] if inputs else None, self.seed_generator, training=False)
            return -self._nll(x, self.decoder(z, training=False)) - kl

        seeds = np.random.default_rng(self.draw_seed(seed)).integers(0, 2**31 - 1, num_samples)
        draws = [
            self.in_batches("elbo", bound, *arrays, batch_size=batch_size, verbose=verbose, seed=int(s)) for s in seeds
        ]
        return np.mean(draws, axis=0, dtype="float32")

    def bits_per_dim(self, x: Any, condition: Any = None, **options: Any) -> np.ndarray:
        """Estimates an upper bound of `-log p(x) / (D log 2)`, for data of D dimensions: minus `elbo`, in bits.

        Of integer data and binarized pixels this is a code length; of real numbers, under a Gaussian likelihood, a
        density, which may be negative.

        Args:
            x: `(n, *data_shape)`.
            condition: as for `elbo`.
            **options: `num_samples`, `seed`, `batch_size`, `verbose`, as for `elbo`.

        Returns:
            float32 array `(n,)`; lower is better.

        Raises:
            ValueError: if an argument is incompatible with the model.
        """
        bound = self.elbo(x, condition, **options)
        return -bound / np.float32(math.prod(np.shape(x)[1:]) * math.log(2))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "decoder": keras.saving.serialize_keras_object(self.decoder),
            "likelihood": keras.saving.serialize_keras_object(self.likelihood),
            "kl_weight": self.kl_weight.serialized(),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "LatentModel":
        return cls(**keras.saving.deserialize_keras_object(config, custom_objects=custom_objects))

    def _decode(
        self, name: str, z: np.ndarray, condition: np.ndarray | None, batch_size: int, verbose: str | int
    ) -> np.ndarray:
        def decode(z: Any, *conditions: Any) -> Any:
            return self._to_data(self.to_conditional_prior(z, conditions[0]) if conditions else z)

        arrays = [z] if condition is None else [z, condition]
        samples = self.in_batches(name, decode, *arrays, batch_size=batch_size, verbose=verbose)
        return finite_samples(samples, condition)


class GaussianLatentModel(LatentModel):
    """Base class of models with `q(z | x) = N(mean(x), exp(log_var(x)))`, whose encoder returns mean and log_var.

    The prior is N(0, I), unless a subclass defines another.
    """

    def moments(self, x: Any, training: bool = False) -> tuple[Any, Any]:
        """Returns mean and log-variance of q(z | x), float32."""
        outputs = self.encoder(x, training=training)
        number = len(outputs) if isinstance(outputs, list | tuple) else 1
        rule = "return a list of mean and log_var, of which the model itself draws z"
        check(number == 2, "encoder", rule, f"{number} output{'s' if number > 1 else ''}")
        mean, log_var = (ops.cast(output, "float32") for output in outputs)
        is_same_shape = tuple(mean.shape[1:]) == tuple(log_var.shape[1:])
        check(
            is_same_shape, "encoder", "return mean and log_var of the same shape", f"{mean.shape} and {log_var.shape}"
        )
        return mean, log_var

    def infer(self, x: Any, condition: Any, seed: Any, training: bool) -> tuple[Any, Any]:
        mean, log_var = self.moments(x, training)
        return sample_gaussian(mean, log_var, seed), sum_per_sample(gaussian_kl(mean, log_var, 0.0))

    def mode(self, x: Any) -> Any:
        return self.moments(x)[0]

    def draw_latents(self, n: int, seed: int) -> np.ndarray:
        return starting_noise(n, self.drawn_shapes()[1], seed)
