"""VQ-VAE: an autoencoder with discrete latent codes, and a prior over the codes."""

import warnings
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.arrays import mean_square, straight_paths
from keras_gen.core.checks import (
    as_images,
    as_numpy,
    batch_of,
    check,
    check_flag,
    check_image_range,
    check_images_dtype,
    check_integer,
    check_layer,
    finite_floats,
    finite_samples,
    is_array,
    same_shape,
)
from keras_gen.core.configured import check_configured
from keras_gen.core.exporting.graph import Graph, Input
from keras_gen.core.generative_model import GenerativeModel
from keras_gen.core.replicas import sharing
from keras_gen.export import keras_gen_export
from keras_gen.quantization.quantizer import Quantizer


class PriorHolder:
    """Hides the prior from Keras's tracking, which would add its weights to those trained by `fit`."""

    def __init__(self, model: keras.Model | None):
        self.model = model


@keras_gen_export("keras_gen.models.VQVAE")
class VQVAE(GenerativeModel):
    """VQ-VAE: autoencoder with discrete latents, the codes of a quantizer.

        loss = mean |x - decoder(quantizer(encoder(x)))|^2 + the quantizer's losses

    Train with `fit(images)`; no `loss` is given to `compile`. Training and evaluation log `reconstruction`, the
    quantizer's losses (`commitment`), and `perplexity` and `usage` of the codes over the epoch.

    Args:
        encoder: a Keras layer or model from data to vectors `(batch, ..., channels)`.
        decoder: a Keras layer or model from such vectors to data.
        quantizer: a quantizer layer, such as `VectorQuantizer(512)`.
        prior: a trained prior over the codes, or `None`; see `fit_prior`. Defaults to `None`.
        seed: int or `None`. Seeds `sample`. Defaults to `None`, a seed from Keras's global one.
        **kwargs: `name`, `dtype`, `trainable`, as for any Keras model.

    Call arguments:
        x: float data `(batch, ...)`; images are scaled to [-1, 1].

    Returns:
        The data unchanged; use `fit`, `fit_prior`, `encode`, `decode`, `reconstruct`, `interpolate` and `sample`.

    Raises:
        ValueError: if an argument is of the wrong type, or shapes of encoder, quantizer, decoder and data do not match.

    Example:

    >>> conv, up = keras.layers.Conv2D, keras.layers.Conv2DTranspose
    >>> encoder = keras.Sequential([keras.Input((28, 28, 1)), conv(32, 4, 2, "same", activation="relu"), conv(16, 1)])
    >>> decoder = keras.Sequential([keras.Input((14, 14, 16)), up(32, 4, 2, "same", activation="relu"), conv(1, 1)])
    >>> model = keras_gen.models.VQVAE(encoder, decoder, keras_gen.layers.VectorQuantizer(128))
    >>> model.compile("adam")
    >>> model.fit(images)                     # float32 (n, 28, 28, 1) in [-1, 1]
    >>> codes = model.encode(images)          # int32 (n, 14, 14)
    >>> again = model.decode(codes)           # float32 (n, 28, 28, 1)
    >>> prior = keras_gen.models.CodeTransformer(128, max_length=196)
    >>> prior.compile("adam")
    >>> model.fit_prior(prior, images)
    >>> new = model.sample(16)                # float32 (16, 28, 28, 1)

    Reference: https://kexue.fm/archives/6760; van den Oord et al. 2017, arXiv:1711.00937.
    """

    takes_unit_images = True

    def __init__(
        self,
        encoder: keras.Layer,
        decoder: keras.Layer,
        quantizer: Quantizer,
        prior: keras.Model | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(seed=seed, **kwargs)
        check(isinstance(quantizer, Quantizer), "quantizer", "be a quantizer layer", quantizer)
        check_configured("quantizer", quantizer)
        self.quantizer = quantizer
        self.prior_holder = PriorHolder(None if prior is None else self._checked_prior(prior))
        for name, layer in {"encoder": encoder, "decoder": decoder}.items():
            check_layer(name, layer)
        self.encoder = encoder
        self.decoder = decoder
        names = ("reconstruction", *quantizer.loss_names)
        self.loss_trackers = [keras.metrics.Mean(name=name) for name in names]
        self.build_from(encoder)

    def build(self, input_shape: Any) -> None:
        self.data_shape = tuple(input_shape[1:])
        vectors = self.encoder(keras.Input(self.data_shape))
        self.vector_shape = tuple(vectors.shape[1:])
        if not self.quantizer.built:
            self.quantizer.build((None, *self.vector_shape))
        shape = tuple(self.decoder(keras.Input(self.vector_shape)).shape[1:])
        check(shape == self.data_shape, "decoder", f"give outputs of shape {self.data_shape}", f"shape {shape}")
        self.code_shape = tuple(self.quantizer.encode(ops.zeros((1, *self.vector_shape))).shape[1:])

    def call(self, x: Any) -> Any:
        return self.reconstruction(x) if self.reconstructing else x

    def reconstruction(self, x: Any) -> Any:
        # Not by a call of the quantizer, which counts the codes that it sees.
        return self._to_data(self._to_codes(x))

    def _to_codes(self, x: Any) -> Any:
        return self.quantizer.encode(self.encoder(x, training=False))

    def _to_data(self, codes: Any) -> Any:
        return ops.cast(self.decoder(self.quantizer.decode(codes), training=False), "float32")

    def method_graphs(self) -> list[Graph]:
        self.check_built()
        x, codes = Input("x", (None, *self.data_shape)), Input("codes", (None, *self.code_shape), "int32")
        encode, decode = (self._to_codes, [x], "codes"), (self._to_data, [codes], "x")
        return [Graph("encode", *encode, [self]), Graph("decode", *decode, [self])]

    @property
    def reconstructing_layers(self) -> list[keras.Layer]:
        return [self.encoder, self.quantizer, self.decoder]

    def loss_per_sample(self, x: Any, y: Any, training: bool) -> Any:
        quantized, _, losses = self.quantizer.quantize_vectors(self.encoder(x, training=training), training=training)
        for name, loss in losses.items():
            self.trackers[name].update_state(loss, ops.shape(x)[0])  # a mean over these rows: batches may be unequal
            self.add_loss(loss)
        return self.decoding_loss(x, quantized, training)

    def decoding_loss(self, x: Any, quantized: Any, training: bool) -> Any:
        """Returns the reconstruction term of the loss, `(batch,)`, and logs it."""
        error = squared_error(x, self.decoder(quantized, training=training))
        self.track(self.trackers["reconstruction"], error)
        return error

    @property
    def trackers(self) -> dict[str, keras.metrics.Metric]:
        """The logged means, by name."""
        return {tracker.name: tracker for tracker in self.loss_trackers}

    def check_batch(self, x: Any, y: Any) -> None:
        check(y is None, "y", "be None: the model takes no labels", "a value")
        check_images_dtype("x", x)
        is_data = same_shape(x.shape[1:], self.data_shape)  # for batches of a dataset: the loss would broadcast
        check(is_data, "x", f"have shape {batch_of(self.data_shape)}", f"shape {tuple(x.shape)}")

    @property
    def prior(self) -> keras.Model | None:
        """The model from which `sample` draws codes, or `None`.

        Its weights do not belong to this model and are not trained by its `fit`; saved files contain both.
        """
        return self.prior_holder.model

    def fit(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """Trains the model; see `keras.Model.fit`. It changes the codes: fit a prior afterwards."""
        if self.prior is not None:
            warnings.warn("`fit` changes the meaning of codes: fit the prior again, with `fit_prior`.", stacklevel=2)
        return super().fit(*args, **kwargs)

    def check_data(self, x: Any, y: Any) -> None:
        check(y is None, "y", "be None: the model takes no labels", "a value")
        if is_array(x):
            self.prepare_data("x", x)

    def prepare_data(self, name: str, x: Any) -> np.ndarray:
        """Returns data as a float32 array, after checking dtype, shape and values."""
        x = as_images(name, x)
        if self.takes_unit_images:
            check_image_range(name, x)
        if not self.built:
            self.build((None, *x.shape[1:]))
        expected = batch_of(self.data_shape)
        check(x.shape[1:] == self.data_shape, name, f"have shape {expected}", f"shape {x.shape}")
        return x

    def encode(self, x: Any, batch_size: int = 256) -> np.ndarray:
        """Encodes data to codes.

        Args:
            x: `(n, *data_shape)`.
            batch_size: int >= 1. Defaults to `256`.

        Returns:
            int32 array `(n, *code_shape)`.

        Raises:
            ValueError: if `x` does not fit the model.
        """
        return self.in_batches("encode", self._to_codes, self.prepare_data("x", x), batch_size=batch_size)

    def decode(self, codes: Any, batch_size: int = 256, verbose: str | int = 0) -> np.ndarray:
        """Decodes codes to data.

        Args:
            codes: integers `(n, *code_shape)`.
            batch_size: int >= 1. Defaults to `256`.
            verbose: `"auto"`, 0 or 1: whether to show progress. Defaults to `0`.

        Returns:
            float32 array `(n, *data_shape)`.

        Raises:
            ValueError: if `codes` does not fit the model.
        """
        self.check_built()
        codes = as_numpy("codes", codes)
        is_codes = codes.dtype.kind in "iu" and codes.shape[1:] == self.code_shape and len(codes) > 0
        expected = batch_of(self.code_shape)
        check(is_codes, "codes", f"be integers of shape {expected}", f"{codes.dtype} of shape {codes.shape}")
        sizes = np.array(self.quantizer.code_sizes)
        is_in_range = bool((codes >= 0).all() and (codes < sizes).all())
        check(is_in_range, "codes", f"be in 0 .. {sizes.max() - 1}", f"values in [{codes.min()}, {codes.max()}]")

        data = self.in_batches("decode", self._to_data, codes.astype("int32"), batch_size=batch_size, verbose=verbose)
        return finite_samples(data)

    def encode_vectors(self, x: Any, batch_size: int = 256) -> np.ndarray:
        """Encodes data to continuous vectors, before quantization.

        Args:
            x: `(n, *data_shape)`.
            batch_size: int >= 1. Defaults to `256`.

        Returns:
            float32 array `(n, *vector_shape)`.

        Raises:
            ValueError: if `x` does not fit the model.
        """

        def encode(x: Any) -> Any:
            return ops.cast(self.encoder(x, training=False), "float32")

        return self.in_batches("encode_vectors", encode, self.prepare_data("x", x), batch_size=batch_size)

    def decode_vectors(self, vectors: Any, batch_size: int = 256, verbose: str | int = 0) -> np.ndarray:
        """Quantizes vectors and decodes them to data.

        Args:
            vectors: `(n, *vector_shape)`.
            batch_size: int >= 1. Defaults to `256`.
            verbose: `"auto"`, 0 or 1: whether to show progress. Defaults to `0`.

        Returns:
            float32 array `(n, *data_shape)`.

        Raises:
            ValueError: if `vectors` does not fit the model.
        """
        self.check_built()
        vectors = finite_floats("vectors", vectors)
        expected = batch_of(self.vector_shape)
        check(vectors.shape[1:] == self.vector_shape, "vectors", f"have shape {expected}", f"shape {vectors.shape}")

        def decode(vectors: Any) -> Any:
            return self._to_data(self.quantizer.encode(vectors))

        return self.in_batches("decode_vectors", decode, vectors, batch_size=batch_size, verbose=verbose)

    def reconstruct(self, x: Any, quantize: bool = True, batch_size: int = 256) -> np.ndarray:
        """Encodes and decodes data.

        Args:
            x: `(n, *data_shape)`.
            quantize: bool. Whether to quantize the vectors in between. Defaults to `True`.
            batch_size: int >= 1. Defaults to `256`.

        Returns:
            float32 array `(n, *data_shape)`.

        Raises:
            ValueError: if `x` does not fit the model.
        """
        if check_flag("quantize", quantize):
            return self.decode(self.encode(x, batch_size), batch_size)

        def reconstruct(x: Any) -> Any:
            return ops.cast(self.decoder(self.encoder(x, training=False), training=False), "float32")

        return self.in_batches("reconstruct", reconstruct, self.prepare_data("x", x), batch_size=batch_size)

    def interpolate(self, x_a: Any, x_b: Any, points: int = 9, batch_size: int = 256) -> np.ndarray:
        """Interpolates linearly between the vectors of `x_a` and `x_b`, before quantization, and decodes the path.

        Args:
            x_a: `(n, *data_shape)`, at weight 0.
            x_b: `(n, *data_shape)`, at weight 1.
            points: int >= 2. Number of weights, from 0 to 1. Defaults to `9`.
            batch_size: int >= 1. Defaults to `256`.

        Returns:
            float32 array `(n, points, *data_shape)`.

        Raises:
            ValueError: if an argument does not fit the model.
        """
        check_integer("points", points, at_least=2)
        x_a, x_b = self.prepare_data("x_a", x_a), self.prepare_data("x_b", x_b)
        check(x_a.shape == x_b.shape, "x_b", f"have the shape of x_a, {x_a.shape}", f"shape {x_b.shape}")

        a, b = (self.encode_vectors(x, batch_size) for x in (x_a, x_b))
        path = straight_paths(a, b, points)
        decoded = self.decode_vectors(path.reshape(-1, *self.vector_shape), batch_size)
        return decoded.reshape(len(x_a), points, *self.data_shape)

    def fit_prior(self, prior: keras.Model, x: Any, y: Any = None, **kwargs: Any) -> keras.callbacks.History:
        """Trains a prior on the codes of data, from which `sample` draws: compress first, then generate.

        If this model is trained further, its codes change, and the prior must be fitted again.

        Args:
            prior: a compiled model of codes, such as `CodeTransformer` or `PixelCNN`, with the codebook's number of
                codes.
            x: `(n, *data_shape)`, encoded once.
            y: labels or conditions `(n, ...)`, for a conditional prior. Defaults to `None`.
            **kwargs: as for `keras.Model.fit`; `validation_data` holds data, not codes.

        Returns:
            The `History` of the prior's `fit`.

        Raises:
            ValueError: if `x` does not fit the model, or the prior does not fit the codes.
        """
        self._checked_prior(prior)
        with sharing.alone():
            codes = self.encode(x)
            if isinstance(kwargs.get("validation_data"), tuple | list):
                validation_x, *rest = kwargs["validation_data"]
                kwargs["validation_data"] = (self.encode(validation_x), *(rest or [None]))
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

        Codes are drawn from the prior, see `fit_prior`. Without one they are uniform and independent, which illustrates
        the codes but does not generate realistic data.

        Args:
            n: int >= 1. Number of samples.
            condition: for a conditional prior, one for each sample or one for all. Defaults to `None`.
            seed: int or `None`. Codes k depend on `seed` and k only. Defaults to `None`, a draw from the model's own
                generator.
            noise: `(n, *code_shape)`, the `noise` of the prior's `sample`; without a prior, the codes to decode.
                Defaults to `None`, a draw.
            batch_size: int >= 1. Defaults to `256`.
            verbose: `"auto"` (a bar in a terminal), 0 (silent), 1 (a bar) or 2 (a line). Defaults to `"auto"`.
            **options: further options of the prior's `sample`, such as `temperature` or `guidance`.

        Returns:
            float32 array `(n, *data_shape)`.

        Raises:
            ValueError: if an argument does not fit the model.
        """
        check_integer("n", n)
        self.check_built()
        self.check_sampling(n, condition, **options)
        seed = self.draw_seed(seed) if noise is None else seed
        shared: dict[str, Any] = {"batch_size": batch_size, "verbose": verbose}
        if self.prior is not None:
            noise = self.prior.sample(n, condition, seed=seed, noise=noise, **shared, **options)
        elif noise is None:
            noise = np.random.default_rng(seed).integers(0, self.quantizer.code_sizes, (n, *self._index_shape()))
            noise = noise.reshape(n, *self.code_shape)
        noise = as_numpy("noise", noise)
        check(noise.shape[:1] == (n,), "noise", f"hold codes for {n} samples", f"shape {noise.shape}")
        return self.decode(noise, **shared)

    def check_sampling(self, n: int, condition: Any = None, **options: Any) -> None:
        if self.prior is not None:
            self.prior.check_sampling(n, condition, **options)
            return
        check(condition is None, "condition", "be None for a model without a prior", "a value")
        is_plain = set(options) <= {"seed", "noise", "batch_size", "verbose"}
        check(is_plain, "options", "be empty for a model without a prior", sorted(options))

    def get_config(self) -> dict[str, Any]:
        parts = {"encoder": self.encoder, "decoder": self.decoder, "quantizer": self.quantizer, "prior": self.prior}
        return {**super().get_config(), **{k: keras.saving.serialize_keras_object(v) for k, v in parts.items()}}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "VQVAE":
        return cls(**keras.saving.deserialize_keras_object(config, custom_objects=custom_objects))

    def _checked_prior(self, prior: keras.Model) -> keras.Model:
        is_code_model = isinstance(prior, GenerativeModel) and hasattr(prior, "num_codes")
        check(is_code_model, "prior", "be a model of codes, such as CodeTransformer", prior)
        sizes = sorted(set(self.quantizer.code_sizes))
        rule = f"have the codebook's number of codes, {' or '.join(map(str, sizes))}"
        check(sizes == [prior.num_codes], "prior", rule, f"num_codes={prior.num_codes}")
        return prior

    def _index_shape(self) -> tuple[int, ...]:
        # The last axis indexes the codebooks, if there are several.
        return self.code_shape if len(self.quantizer.code_sizes) > 1 else (*self.code_shape, 1)


def squared_error(x: Any, decoded: Any) -> Any:
    """Returns the mean squared error of each sample, float32 `(batch,)`."""
    return mean_square(ops.cast(x, "float32") - ops.cast(decoded, "float32"))
