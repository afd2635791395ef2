import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_gen.core.arrays import straight_paths
from keras_gen.core.checks import (
    as_numpy,
    batch_of,
    check,
    check_integer,
    check_nonnegative,
    condition_rows,
    finite_array,
    finite_samples,
    is_array,
    same_shape,
)
from keras_gen.core.configured import check_configured
from keras_gen.core.exporting.graph import Graph, Input
from keras_gen.core.generative_model import GenerativeModel
from keras_gen.export import keras_gen_export
from keras_gen.flows.bijector import Bijector, check_bijector
from keras_gen.flows.distributions import Base, LaplaceBase, LogisticBase, NormalBase
from keras_gen.flows.tracing import TracedFunction

BASES = {"normal": NormalBase, "logistic": LogisticBase, "laplace": LaplaceBase}


@keras_gen_export("keras_gen.models.Flow")
class Flow(GenerativeModel):
    """Normalizing flow: a density model by change of variables, trained by maximum likelihood.

        log p(x) = log p_base(f(x)) + log |det df/dx|,   loss = -mean log p(x)

    Train with `fit(x)`, or `fit(x, condition)` for a conditional density; `compile` takes no `loss`. The loss is in
    nats per sample; `bits_per_dim` is logged as well. Both may be negative: a density can exceed 1.

    `log_prob` includes all normalizing constants: a standard normal in two dimensions has `log_prob` -log(2 pi) =
    -1.8379 at the origin, 1.3257 bits/dim. With a leading `Dequantize` it is (a lower bound on) the log-*probability*
    of the discrete data: images of 256 levels under a uniform density have exactly 8 bits/dim. The log-density on
    [0, 1] that some papers report is larger by D log(levels).

    Args:
        bijector: a bijector f, usually a `Chain`; see `keras_gen.layers.Bijector`.
        base: `"normal"`, `"logistic"`, `"laplace"`, or a distribution such as `keras_gen.layers.LearnedNormalBase()`.
            Defaults to `"normal"`.
        seed: int or `None`. Seeds the model's random draws. Defaults to `None`, a seed from Keras's global one.
        **kwargs: `name`, `dtype`, `trainable`, as for any Keras model.

    Call arguments:
        x: data `(batch, ...)`.
        condition: `(batch, ...)` or `None`. Defaults to `None`.

    Returns:
        The data unchanged; see `fit`, `log_prob`, `sample`, `encode` and `decode`.

    Raises:
        ValueError: if an argument is of the wrong type, or the bijector does not fit the data.

    Example:

    >>> coupling = keras_gen.layers.AffineCoupling
    >>> bijector = keras_gen.layers.Chain([coupling(units=[64, 64], flip=i % 2 == 1) for i in range(8)])
    >>> model = keras_gen.models.Flow(bijector)
    >>> model.compile(keras.optimizers.Adam(1e-3))
    >>> model.fit(points, epochs=50)                # float32 (n, 2)
    >>> new = model.sample(500, seed=0)             # float32 (500, 2)
    >>> log_p = model.log_prob(new)                 # nats, (500,)

    Reference: https://kexue.fm/archives/5776; Dinh et al. 2014, arXiv:1410.8516.
    """

    def __init__(self, bijector: Bijector, base: str | Base = "normal", seed: int | None = None, **kwargs: Any):
        super().__init__(seed=seed, **kwargs)
        check_bijector("bijector", bijector, "be a bijector, see keras_gen.layers.Bijector")
        is_known = isinstance(base, Base) or (isinstance(base, str) and base in BASES)
        check(is_known, "base", f"be a Base or one of {', '.join(map(repr, BASES))}", repr(base))
        self.bijector = bijector
        self.base = BASES[base](dtype=self.dtype_policy) if isinstance(base, str) else base
        check_configured("base", self.base)
        self.nll_tracker = keras.metrics.Mean(name="nll")
        self.bits_tracker = keras.metrics.Mean(name="bits_per_dim")
        self._traced_density = TracedFunction(self, self._density)
        self._traced_inverse = TracedFunction(self, self._inverse)

    def build(self, x_shape: Any, condition_shape: Any = None) -> None:
        """Builds the model for given shapes of data and, if conditional, condition, both including the batch axis."""
        self.data_shape = tuple(x_shape[1:])
        self.condition_shape = None if condition_shape is None else tuple(condition_shape[1:])
        condition = None if condition_shape is None else keras.Input(self.condition_shape)
        z, _ = self.bijector(keras.Input(self.data_shape), condition)
        self.latent_shape = tuple(z.shape[1:])
        self.base(z)

    def call(self, x: Any, condition: Any = None) -> Any:
        return super().call(x)

    def log_density(self, x: Any, condition: Any = None, training: bool = False) -> Any:
        """Returns log p(x) of tensors, `(batch,)`, for losses and gradients; see `log_prob` for arrays."""
        return self._traced_density(x, condition, training=bool(training))

    def _density(self, inputs: Sequence[Any], training: bool) -> Any:
        z, log_det = self.bijector(*inputs, training=training)
        return self.base(z) + log_det

    def loss_per_sample(self, x: Any, y: Any, training: bool) -> Any:
        nll = -self.log_density(x, y, training=training)
        self.track(self.nll_tracker, nll)
        self.track(self.bits_tracker, nll / self._nats_per_bit())
        return nll

    def check_data(self, x: Any, y: Any) -> None:
        if is_array(x):
            self._prepare_data("x", x, None if y is None else (None, *np.shape(y)[1:]))
            self._prepare_condition("y", y, len(x))

    def check_batch(self, x: Any, y: Any) -> None:
        expected = batch_of(self.data_shape)
        check(same_shape(x.shape[1:], self.data_shape), "x", f"have shape {expected}", f"shape {tuple(x.shape)}")
        if self.condition_shape is None:
            rule = "be None: the model was built without a condition (for a dataset, call `build` with its shape first)"
            check(y is None, "y", rule, "a value")
        else:
            check(y is not None, "y", "be given: the model was built for a condition", None)
            rule = f"have shape {batch_of(self.condition_shape)}"
            check(same_shape(y.shape[1:], self.condition_shape), "y", rule, f"shape {tuple(y.shape)}")

    def _prepare_data(self, name: str, x: Any, condition_shape: Any = None) -> np.ndarray:
        """Returns data as an array after checking dtype, values and shape; builds the model if necessary."""
        x = as_numpy(name, x)
        check(x.ndim > 1 and len(x) > 0, name, "hold at least one sample (n, ...)", f"shape {x.shape}")
        check(x.dtype.kind == "f", name, "be floating-point", f"dtype {x.dtype}")
        check(bool(np.isfinite(x).all()), name, "be finite", "NaN or infinite values")
        self.bijector.check_data(name, x)
        if not self.built:
            self.build((None, *x.shape[1:]), condition_shape)
        expected = batch_of(self.data_shape)
        check(x.shape[1:] == self.data_shape, name, f"have shape {expected}", f"shape {x.shape}")
        return x.astype(self.bijector.bijection_dtype, copy=False)

    def _prepare_condition(self, name: str, condition: Any, n: int) -> list[np.ndarray]:
        """Returns the conditions of `n` samples as a list of one array, empty for an unconditional model."""
        if self.condition_shape is None:
            check(condition is None, name, "be None: the model was built without a condition", "a value")
            return []
        check(condition is not None, name, "be given: the model was built for a condition", None)
        return [condition_rows(name, condition, n, self.condition_shape, self.bijector.bijection_dtype)]

    def log_prob(
        self,
        x: Any,
        condition: Any = None,
        seed: int | None = None,
        batch_size: int = 256,
        verbose: str | int = "auto",
    ) -> np.ndarray:
        """Computes log p(x) in nats.

        Args:
            x: `(n, *data_shape)`.
            condition: `(n, *condition_shape)`, or a single condition for all samples. Defaults to `None`.
            seed: int or `None`. Seeds random parts of the bijector: the noise of `Dequantize`. Defaults to `None`, a
                draw from the model's own generator.
            batch_size: int >= 1. Defaults to `256`.
            verbose: `"auto"` (a bar in a terminal), 0 (silent), 1 (a bar) or 2 (a line). Defaults to `"auto"`.

        Returns:
            float32 array `(n,)`.

        Raises:
            ValueError: if an argument does not fit the model.
        """
        arrays = [self._prepare_data("x", x)]
        arrays += self._prepare_condition("condition", condition, len(arrays[0]))
        options: dict[str, Any] = {"batch_size": batch_size, "verbose": verbose, "seed": self.draw_seed(seed)}
        return self.in_batches("log_prob", self.log_density, *arrays, **options)

    def bits_per_dim(
        self,
        x: Any,
        condition: Any = None,
        seed: int | None = None,
        batch_size: int = 256,
        verbose: str | int = "auto",
    ) -> np.ndarray:
        """Computes `-log p(x) / (D log 2)`, for samples of D dimensions.

        Args:
            x: `(n, *data_shape)`.
            condition: `(n, *condition_shape)`, or a single condition for all samples. Defaults to `None`.
            seed: int or `None`. Seeds the noise of `Dequantize`. Defaults to `None`, a draw from the model's generator.
            batch_size: int >= 1. Defaults to `256`.
            verbose: `"auto"` (a bar in a terminal), 0 (silent), 1 (a bar) or 2 (a line). Defaults to `"auto"`.

        Returns:
            float32 array `(n,)`; lower is better.

        Raises:
            ValueError: if an argument does not fit the model.
        """
        return -self.log_prob(x, condition, seed, batch_size, verbose) / self._nats_per_bit()

    def _nats_per_bit(self) -> float:
        return math.prod(self.data_shape) * math.log(2)

    def sample(
        self,
        n: int,
        condition: Any = None,
        temperature: float = 1.0,
        seed: int | None = None,
        noise: Any = None,
        batch_size: int = 256,
        verbose: str | int = "auto",
    ) -> np.ndarray:
        """Draws latents from the base distribution and maps them to data.

        Args:
            n: int >= 1. Number of samples.
            condition: `(n, *condition_shape)`, or a single condition for all samples. Defaults to `None`.
            temperature: float >= 0. Scale of the base noise; below 1, samples are more typical and less diverse.
                Defaults to `1.0`.
            seed: int or `None`. Latent k depends only on `seed` and k, on any backend and for any `batch_size`.
                Defaults to `None`, a draw from the model's own generator.
            noise: `(n, *latent_shape)`, standard noise of the base distribution to use instead of a draw.
            batch_size: int >= 1. Number of samples per batch. Defaults to `256`.
            verbose: `"auto"` (a bar in a terminal), 0 (silent), 1 (a bar) or 2 (a line). Defaults to `"auto"`.

        Returns:
            float32 array `(n, *data_shape)`.

        Raises:
            ValueError: if an argument does not fit the model.
        """
        check_integer("n", n)
        check_nonnegative("temperature", temperature)
        self.check_built()
        seed = self.draw_seed(seed)
        noise = self.base.draw_noise(n, self.latent_shape, seed) if noise is None else noise
        noise = finite_array("noise", noise).astype(self.bijector.bijection_dtype)
        expected = (n, *self.latent_shape)
        check(noise.shape == expected, "noise", f"have shape {expected}", f"shape {noise.shape}")
        conditions = self._prepare_condition("condition", condition, n)
        temperatures = np.full(n, temperature, noise.dtype)

        def generate(noise: Any, temperatures: Any, *conditions: Any) -> Any:
            # One temperature for all samples, passed as an argument: a new value needs no recompilation.
            return self._to_data(self.base.from_noise(noise, temperatures[0]), *conditions)

        options: dict[str, Any] = {"batch_size": batch_size, "verbose": verbose, "seed": seed}
        samples = self.in_batches("sample", generate, noise, temperatures, *conditions, **options)
        return finite_samples(samples, *conditions)

    def check_sampling(self, n: int, condition: Any = None, **options: Any) -> None:
        if self.built:
            self._prepare_condition("condition", condition, n)

    def encode(self, x: Any, condition: Any = None, seed: int | None = None, batch_size: int = 256) -> np.ndarray:
        """Maps data to latents.

        Args:
            x: `(n, *data_shape)`.
            condition: `(n, *condition_shape)`, or a single condition for all samples. Defaults to `None`.
            seed: int or `None`. Seeds the noise of `Dequantize`. Defaults to `None`, a draw from the model's generator.
            batch_size: int >= 1. Defaults to `256`.

        Returns:
            float32 array `(n, *latent_shape)`.

        Raises:
            ValueError: if an argument does not fit the model.
        """

        def to_latents(x: Any, *conditions: Any) -> Any:
            return self.bijector(x, *conditions)[0]

        arrays = [self._prepare_data("x", x)]
        arrays += self._prepare_condition("condition", condition, len(arrays[0]))
        return self.in_batches("encode", to_latents, *arrays, batch_size=batch_size, seed=self.draw_seed(seed))

    def decode(self, z: Any, condition: Any = None, batch_size: int = 256) -> np.ndarray:
        """Maps latents to data, the inverse of `encode`.

        Args:
            z: `(n, *latent_shape)`.
            condition: `(n, *condition_shape)`, or a single condition for all samples. Defaults to `None`.
            batch_size: int >= 1. Defaults to `256`.

        Returns:
            float32 array `(n, *data_shape)`.

        Raises:
            ValueError: if an argument does not fit the model.
        """
        self.check_built()
        z = finite_array("z", as_numpy("z", z)).astype(self.bijector.bijection_dtype)
        expected = batch_of(self.latent_shape)
        check(z.shape[1:] == self.latent_shape and len(z) > 0, "z", f"have shape {expected}", f"shape {z.shape}")
        conditions = self._prepare_condition("condition", condition, len(z))
        return self.in_batches("decode", self._to_data, z, *conditions, batch_size=batch_size)

    def method_graphs(self) -> list[Graph]:
        self.check_built()
        dtype, takes_noise = self.bijector.bijection_dtype, self.bijector.takes_noise
        x, z = Input("x", (None, *self.data_shape), dtype), Input("z", (None, *self.latent_shape), dtype)
        conditions = [] if self.condition_shape is None else [Input("condition", (None, *self.condition_shape), dtype)]
        noises = [Input("noise", (None, *self.data_shape), dtype)] if takes_noise else []

        def forward(x: Any, *given: Any) -> tuple[Any, Any]:
            if takes_noise:
                *conditions, noise = given
                return self.bijector.forward_with_noise(x, noise, *conditions)
            return self.bijector(x, *given)

        def log_prob(x: Any, *given: Any) -> Any:
            z, log_det = forward(x, *given)
            return self.base(z) + log_det

        def encode(x: Any, *given: Any) -> Any:
            return forward(x, *given)[0]

        return [
            Graph("log_prob", log_prob, [x, *conditions, *noises], "log_prob", [self]),
            Graph("encode", encode, [x, *conditions, *noises], "z", [self]),
            Graph("decode", self._to_data, [z, *conditions], "x", [self]),
        ]

    def _to_data(self, z: Any, *conditions: Any) -> Any:
        return self._traced_inverse(z, *conditions)

    def _inverse(self, inputs: Sequence[Any], training: bool) -> Any:
        return self.bijector(*inputs, inverse=True, training=training)[0]

    def interpolate(self, x_a: Any, x_b: Any, condition: Any = None, points: int = 9) -> np.ndarray:
        """Interpolates linearly between latents and maps the interpolated latents to data.

        Args:
            x_a: `(n, *data_shape)`, start of each path.
            x_b: `(n, *data_shape)`, end of each path.
            condition: a single condition for all samples. Defaults to `None`.
            points: int >= 2. Number of points per path, including both ends. Defaults to `9`.

        Returns:
            float32 array `(n, points, *data_shape)`.

        Raises:
            ValueError: if an argument does not fit the model.
        """
        check_integer("points", points, at_least=2)
        paths = straight_paths(self.encode(x_a, condition), self.encode(x_b, condition), points)
        decoded = self.decode(paths.reshape(-1, *self.latent_shape), condition)
        return decoded.reshape(*paths.shape[:2], *self.data_shape)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "bijector": keras.saving.serialize_keras_object(self.bijector),
            "base": keras.saving.serialize_keras_object(self.base),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "Flow":
        return cls(**keras.saving.deserialize_keras_object(config, custom_objects=custom_objects))
