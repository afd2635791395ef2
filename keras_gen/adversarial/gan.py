from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.adversarial.losses import (
    AdversarialLoss,
    HingeLoss,
    NonSaturatingLoss,
    RelativisticLoss,
    WassersteinLoss,
)
from keras_gen.adversarial.optimizers import PlayerOptimizers, WeightAverage
from keras_gen.adversarial.penalties import GradientPenalty, Penalty, R1Penalty
from keras_gen.core.checks import (
    batch_of,
    check,
    check_fraction,
    check_integer,
    check_layer,
    finite_floats,
    finite_samples,
    is_array,
    same_shape,
)
from keras_gen.core.configured import check_configured
from keras_gen.core.generative_model import GenerativeModel
from keras_gen.core.logits import warn_of_activation
from keras_gen.core.random import StepSeed, starting_noise
from keras_gen.core.stateless import stateless
from keras_gen.export import keras_gen_export

LOSSES = {
    "non_saturating": NonSaturatingLoss,
    "hinge": HingeLoss,
    "wasserstein": WassersteinLoss,
    "relativistic": RelativisticLoss,
}
PENALTIES = {"r1": R1Penalty, "gradient": GradientPenalty}


@keras_gen_export("keras_gen.models.GAN")
class GAN(GenerativeModel):
    """Generative adversarial network: a generator trained against a discriminator of data and samples.

        x' = G(z),   z ~ N(0, I)      or, with a mapping,   x' = G(w),   w = mapping(z)
        loss = L_D(D(x), D(stop(x'))) + penalty   for the discriminator
             + L_G(D(x'))                         for the generator, the weights of D held constant

    Each player's term has no gradient with respect to the other's weights, so that one `fit` with one loss trains both,
    one step each. The second term is logged as `generator_loss`; `loss` is the discriminator's only, which does not
    measure sample quality. Samples are drawn with a moving average of the generator's weights.

    Args:
        generator: a Keras layer or model from latents to data.
        discriminator: a Keras layer or model from data to logits, `(batch,)` or, for a patch discriminator,
            `(batch, ...)`, averaged per sample.
        loss: `"non_saturating"`, `"hinge"`, `"wasserstein"`, `"relativistic"`, or an `AdversarialLoss` (see
            `keras_gen/adversarial/losses.py`). Defaults to `"non_saturating"`.
        penalty: `"r1"`, `"gradient"` (WGAN-GP), a `Penalty` (see `keras_gen/adversarial/penalties.py`), or `None`.
            Defaults to `None`.
        mapping: a Keras layer or model from z to w, the input latents of the generator, or `None`. Defaults to `None`.
        ema_momentum: float in (0, 1). Momentum of the moving average, after a warm-up with lower momentum; or `None`,
            no average. Defaults to `0.999`.
        seed: int or `None`. Seed of all random draws. Defaults to `None`, a seed from Keras's global generator.
        **kwargs: `name`, `dtype`, `trainable`, as for any Keras model.

    Call arguments:
        x: data `(batch, ...)`; images are scaled to [-1, 1].

    Returns:
        The data unchanged; use `fit`, `sample` and `map_latents`.

    Raises:
        ValueError: if an argument has the wrong type, or generator, discriminator, mapping and data are incompatible.

    Example:

    >>> dense, reshape = keras.layers.Dense, keras.layers.Reshape
    >>> generator = keras.Sequential([keras.Input((16,)), dense(64, "relu"), dense(64), reshape((8, 8, 1))])
    >>> discriminator = keras.Sequential([keras.layers.Flatten(), dense(64, "leaky_relu"), dense(1)])
    >>> model = keras_gen.models.GAN(generator, discriminator, penalty="r1")
    >>> model.compile(keras.optimizers.Adam(1e-3, beta_1=0.5), keras.optimizers.Adam(2e-3, beta_1=0.5))
    >>> model.fit(images, epochs=100)         # float32 (n, 8, 8, 1) in [-1, 1]
    >>> new = model.sample(16, seed=0)        # float32 (16, 8, 8, 1)

    Reference: Goodfellow et al. 2014, arXiv:1406.2661; https://kexue.fm/archives/6387 (both players in one loss);
    Karras et al. 2018, arXiv:1812.04948 (mapping).
    """

    takes_sample_weight = False
    takes_unit_images = True

    def __init__(
        self,
        generator: keras.Layer,
        discriminator: keras.Layer,
        loss: str | AdversarialLoss = "non_saturating",
        penalty: str | Penalty | None = None,
        mapping: keras.Layer | None = None,
        ema_momentum: float | None = 0.999,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(seed=seed, **kwargs)
        for name, layer in {"generator": generator, "discriminator": discriminator}.items():
            check_layer(name, layer)
        check(mapping is None or isinstance(mapping, keras.Layer), "mapping", "be None, a layer or a model", mapping)
        self.generator = generator
        self.discriminator = discriminator
        self.mapping = mapping
        self.adversarial_loss = _one_of("loss", loss, LOSSES, AdversarialLoss)
        if self.adversarial_loss.takes_logits:
            warn_of_activation("discriminator", discriminator)
        self.penalty = None if penalty is None else _one_of("penalty", penalty, PENALTIES, Penalty)
        self.ema_momentum = None if ema_momentum is None else check_fraction("ema_momentum", ema_momentum)
        self.average: WeightAverage | None = None
        self.discriminator_tracker = keras.metrics.Mean(name="discriminator_loss")
        self.generator_tracker = keras.metrics.Mean(name="generator_loss")
        self.players = PlayerOptimizers()

    def compile(  # type: ignore[override]  # Keras's second argument is the loss
        self, optimizer: Any = "adam", discriminator_optimizer: Any = None, mapping_optimizer: Any = None, **kwargs: Any
    ) -> None:
        """Configures training.

        Args:
            optimizer: Keras optimizer of the generator, and of parts without their own. Defaults to `"adam"`.
            discriminator_optimizer: Keras optimizer or `None`. Callbacks that set a learning rate set that of all
                optimizers: use a schedule for each where they differ. Defaults to `None`.
            mapping_optimizer: Keras optimizer or `None`. A mapping with the generator's learning rate may shrink its
                latent space, and with it the diversity of samples; StyleGAN uses a hundredth of that rate. Defaults to
                `None`.
            **kwargs: as for `keras.Model.compile`.
        """
        is_applicable = mapping_optimizer is None or self.mapping is not None
        check(is_applicable, "mapping_optimizer", "be None without a mapping", mapping_optimizer)
        self.players = PlayerOptimizers.get(optimizer, discriminator_optimizer, mapping_optimizer)
        self.compile_options = kwargs
        super().compile(optimizer=self.players.joined(self.discriminator, self.mapping), **kwargs)

    def get_compile_config(self) -> dict[str, Any] | None:
        if not self.compiled:
            return None
        return {**self.compile_options, **self.players.serialized(), "jit_compile": self.jit_choice}

    def build(self, input_shape: Any) -> None:
        self.data_shape = tuple(input_shape[1:])
        first = self.generator if self.mapping is None else self.mapping
        self.noise_shape = _input_shape("generator" if self.mapping is None else "mapping", first)
        latents = z = keras.Input(self.noise_shape)
        if self.mapping is not None:
            latents = self.mapping(z)
        self.latent_shape = tuple(latents.shape[1:])
        output_shape = tuple(self.generator(latents).shape[1:])
        is_data = same_shape(output_shape, self.data_shape)
        check(is_data, "generator", f"return outputs of shape {batch_of(self.data_shape)}", batch_of(output_shape))
        self.discriminator(keras.Input(self.data_shape))
        if self.ema_momentum is not None:
            self.average = WeightAverage(self._averaged(), self.ema_momentum)

    def loss_per_sample(self, x: Any, y: Any, training: bool) -> Any:
        x = ops.cast(x, "float32")
        z = keras.random.normal((ops.shape(x)[0], *self.noise_shape), dtype="float32", seed=self.seed_generator)
        latents = z if self.mapping is None else self.mapping(z, training=training)
        samples = ops.cast(self.generator(latents, training=training), "float32")
        fixed_samples = ops.stop_gradient(samples)

        real = self._logits(x, training)
        # The discriminator is updated by the call above only: on torch a second `SpectralNormalization` of the same
        # kernel would overwrite tensors that the gradient of the first needs. So running statistics are those of data.
        with stateless(self.discriminator):
            fake = self._logits(fixed_samples, training)
        loss = self.adversarial_loss.discriminator(real, fake)
        if self.penalty is not None:
            loss = loss + self._penalty(self.penalty, x, fixed_samples, training)
        with stateless(self.discriminator, frozen=True):
            fooled = self._logits(samples, training)
        generator_loss = self.adversarial_loss.generator(ops.stop_gradient(real), fooled)
        self.discriminator_tracker.update_state(loss)
        self.generator_tracker.update_state(generator_loss)
        if training and self.average is not None:
            self.average.update(self._averaged())
        generator_loss = ops.mean(generator_loss)
        self.add_loss(generator_loss - ops.stop_gradient(generator_loss))  # contributes to the gradient only
        return loss

    def check_data(self, x: Any, y: Any) -> None:
        check(y is None, "y", "be None: the model takes no labels", "a value")
        self.build_from(self.discriminator)
        if is_array(x):
            x = finite_floats("x", x)
            if not self.built:
                self.build((None, *x.shape[1:]))
            self.check_batch(x, y)

    def load_weights(self, filepath: Any, skip_mismatch: bool = False, **kwargs: Any) -> None:
        self.build_from(self.discriminator)
        super().load_weights(filepath, skip_mismatch, **kwargs)

    def map_latents(self, z: Any, batch_size: int = 256) -> np.ndarray:
        """Computes the input latents of the generator: `mapping(z)`, or `z` itself without a mapping.

        Args:
            z: `(n, *noise_shape)`.
            batch_size: int >= 1. Defaults to `256`.

        Returns:
            float32 array `(n, *latent_shape)`.

        Raises:
            ValueError: if `z` is incompatible with the model.
        """
        check_integer("batch_size", batch_size)
        self.build_from(self.discriminator)
        self.check_built()
        z = _latents("z", z, self.noise_shape)
        if self.mapping is None:
            return z

        def find(z: Any) -> Any:
            return ops.cast(self._sampling_layers()[1](z, training=False), "float32")

        return self.in_batches("map", find, z, batch_size=batch_size)

    @property
    def sampling_generator(self) -> keras.Layer:
        """The generator that `sample` uses: the moving average, if there is one."""
        return self._sampling_layers()[0]

    @property
    def sampling_mapping(self) -> keras.Layer | None:
        """The mapping that `sample` uses: the moving average, if there is one; `None` without a mapping."""
        return None if self.mapping is None else self._sampling_layers()[1]

    def sample(
        self,
        n: int | None = None,
        latents: Any = None,
        seed: int | Sequence[int] | None = None,
        noise: Any = None,
        batch_size: int = 256,
        verbose: str | int = "auto",
    ) -> np.ndarray:
        """Draws latents and generates data from them, with the averaged weights if there are any.

        Args:
            n: int >= 1, number of samples, or `None`: the length of `latents` or `noise`. Defaults to `None`.
            latents: `(n, *latent_shape)`, input latents of the generator, for example from a latent sampler, used
                instead of draws. Defaults to `None`.
            seed: int, `n` integers or `None`. Draw k depends only on `seed` and k, not on the backend or `batch_size`.
                With one seed for each sample, sample k is that of `sample(1, seed=seed[k])`. Defaults to `None`, a seed
                from the model's own generator.
            noise: `(n, *noise_shape)`, used as z instead of draws. Defaults to `None`.
            batch_size: int >= 1. Number of samples generated at a time. Defaults to `256`.
            verbose: `"auto"` (a bar in a terminal), 0 (silent), 1 (a bar) or 2 (a line). Defaults to `"auto"`.

        Returns:
            float32 array `(n, *data_shape)`.

        Raises:
            ValueError: if an argument is incompatible with the model.
        """
        self.build_from(self.discriminator)
        self.check_built()
        check(latents is None or noise is None, "noise", "be None if latents are given", "a value")
        check(n is not None or latents is not None or noise is not None, "n", "be given unless latents or noise are", n)
        if latents is not None:
            latents = _latents("latents", latents, self.latent_shape)
        if noise is not None:
            noise = _latents("noise", noise, self.noise_shape)
        n = len(latents if noise is None else noise) if n is None else check_integer("n", n)
        if latents is None:
            z = starting_noise(n, self.noise_shape, self.draw_seeds(seed, n)) if noise is None else noise
            check(len(z) == n, "noise", f"hold {n} draws", f"shape {np.shape(z)}")
            latents = self.map_latents(z, batch_size)
        check(len(latents) == n, "latents", f"hold {n} latents", f"shape {np.shape(latents)}")

        def generate(latents: Any) -> Any:
            return ops.cast(self.sampling_generator(latents, training=False), "float32")

        return finite_samples(self.in_batches("sample", generate, latents, batch_size=batch_size, verbose=verbose))

    def get_config(self) -> dict[str, Any]:
        parts = {
            **{"generator": self.generator, "discriminator": self.discriminator, "mapping": self.mapping},
            **{"loss": self.adversarial_loss, "penalty": self.penalty},
        }
        config = {name: keras.saving.serialize_keras_object(part) for name, part in parts.items()}
        return {**super().get_config(), **config, "ema_momentum": self.ema_momentum}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "GAN":
        return cls(**keras.saving.deserialize_keras_object(config, custom_objects=custom_objects))

    def _averaged(self) -> list[keras.Layer]:
        return [self.generator] if self.mapping is None else [self.generator, self.mapping]

    def _sampling_layers(self) -> list[keras.Layer]:
        return self._averaged() if self.average is None else self.average.layers

    def _logits(self, x: Any, training: bool) -> Any:
        logits = ops.cast(self.discriminator(x, training=training), "float32")
        return ops.mean(ops.reshape(logits, (ops.shape(logits)[0], -1)), axis=1)

    def _penalty(self, penalty: Penalty, x: Any, samples: Any, training: bool) -> Any:
        # Drawn here: a seed generator must not advance within `ops.jvp` or `gradient`.
        row = keras.random.randint((2,), 0, 2**31 - 1, seed=self.seed_generator)
        seed = StepSeed(ops.cast(row, self.seed_generator.state.dtype))

        def discriminator(x: Any) -> Any:
            # One scope per call: on JAX a common scope would pass the state of a differentiated call on to the next.
            with stateless(self.discriminator):
                return self._logits(x, training)

        return penalty(discriminator, x, samples, seed)

    def check_batch(self, x: Any, y: Any) -> None:
        check(y is None, "y", "be None: the model takes no labels", "a value")
        dtype = keras.backend.standardize_dtype(x.dtype)
        check("float" in dtype, "x", "be floating-point, images scaled to [-1, 1]", f"dtype {dtype}")
        expected = batch_of(self.data_shape)
        check(same_shape(x.shape[1:], self.data_shape), "x", f"have shape {expected}", f"shape {tuple(x.shape)}")


def _one_of(name: str, value: Any, choices: dict[str, Any], kind: type) -> Any:
    is_choice = isinstance(value, kind) or (isinstance(value, str) and value in choices)
    rule = f"be one of {', '.join(map(repr, choices))}, or an instance of {kind.__name__}"
    check(is_choice, name, rule, repr(value))
    value = choices[value]() if isinstance(value, str) else value
    check_configured(name, value)
    return value


def _latents(name: str, values: Any, shape: tuple[int | None, ...]) -> np.ndarray:
    values = finite_floats(name, values)
    check(same_shape(values.shape[1:], shape), name, f"have shape {batch_of(shape)}", f"shape {values.shape}")
    return values


def _input_shape(name: str, layer: keras.Layer) -> tuple[int, ...]:
    inputs: Any = getattr(layer, "inputs", None)
    is_known = inputs and len(inputs) == 1 and None not in inputs[0].shape[1:]
    check(bool(is_known), name, "be a model with one input of known shape: start it with keras.Input", layer)
    return tuple(inputs[0].shape[1:])
