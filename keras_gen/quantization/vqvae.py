from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.arrays import straight_paths
from keras_gen.core.checks import (
    as_images,
    batch_of,
    check,
    check_images_dtype,
    check_integer,
    finite_floats,
    same_shape,
)
from keras_gen.export import keras_gen_export
from keras_gen.quantization.code_generation import CodeGeneration
from keras_gen.quantization.quantizer import Quantizer


@keras_gen_export("keras_gen.models.VQVAE")
class VQVAE(CodeGeneration):
    """Autoencoder whose latents are codes from a codebook.

        loss = mean |x - decoder(quantizer(encoder(x)))|^2 + the quantizer's losses

    Train with `fit(images)`; no `loss` is given to `compile`. Training and evaluation log `reconstruction`, the
    quantizer's losses (`commitment`), and `perplexity` and `usage` of the codes over the epoch.

    Args:
        encoder: a Keras layer or model from data to vectors `(batch, ..., channels)`.
        decoder: a Keras layer or model from such vectors to data.
        quantizer: a quantizer layer, such as `VectorQuantizer(512)`.
        prior: a trained model of codes, or `None`; see `fit_prior`. Defaults to `None`.
        seed: int or `None`. Seeds `sample`. Defaults to `None`, a seed from Keras's global one.
        **kwargs: `name`, `dtype`, `trainable`, as for any Keras model.

    Call arguments:
        x: float data `(batch, ...)`; images are scaled to [-1, 1].

    Returns:
        The data unchanged: the work is in `fit`, `fit_prior`, `encode`, `decode`, `reconstruct`, `interpolate` and
        `sample`.

    Raises:
        ValueError: if an argument is of the wrong type, or encoder, quantizer, decoder and data do not fit together.

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

    def __init__(
        self,
        encoder: keras.Layer,
        decoder: keras.Layer,
        quantizer: Quantizer,
        prior: keras.Model | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(quantizer, prior, seed, **kwargs)
        for name, layer in {"encoder": encoder, "decoder": decoder}.items():
            check(isinstance(layer, keras.Layer), name, "be a keras.Layer or keras.Model", layer)
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
        # Training is the model's work; Keras calls this before `compute_loss`, so it costs nothing.
        return x

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        check(y is None, "y", "be None: the model takes no labels", "a value")
        check_images_dtype("x", x)
        fits = same_shape(x.shape[1:], self.data_shape)  # what a dataset gave; else the loss would broadcast
        check(fits, "x", f"have shape {('n', *self.data_shape)}", f"shape {tuple(x.shape)}")
        weight_penalty = sum(self.losses)
        quantized, _, losses = self.quantizer.quantize(self.encoder(x, training=training), training=training)
        self.track(losses)
        return self.decoding_loss(x, quantized, sample_weight, training) + sum(losses.values()) + weight_penalty

    def decoding_loss(self, x: Any, quantized: Any, sample_weight: Any, training: bool) -> Any:
        """Returns the part of the loss that judges what is decoded, a scalar, and logs it."""
        error = squared_error(x, self.decoder(quantized, training=training))
        self.track({"reconstruction": error}, sample_weight)
        if sample_weight is not None:
            error = error * ops.reshape(ops.cast(sample_weight, "float32"), (-1,))
        return ops.mean(error)

    def track(self, values: dict[str, Any], sample_weight: Any = None) -> None:
        """Adds values to the means that are logged under these names."""
        for tracker in self.loss_trackers:
            if tracker.name in values:
                tracker.update_state(values[tracker.name], sample_weight)

    def check_data(self, x: Any, y: Any) -> None:
        check(y is None, "y", "be None: the model takes no labels", "a value")
        if hasattr(x, "shape") and hasattr(x, "dtype"):
            self.prepare_data("x", x)

    def prepare_data(self, name: str, x: Any) -> np.ndarray:
        """Returns data as a float32 array, after a check of dtype, shape and values."""
        x = as_images(name, x)
        if not self.built:
            self.build((None, *x.shape[1:]))
        expected = batch_of(self.data_shape)
        check(x.shape[1:] == self.data_shape, name, f"have shape {expected}", f"shape {x.shape}")
        return x

    def encode(self, x: Any, batch_size: int = 256) -> np.ndarray:
        """Finds the codes of data.

        Args:
            x: `(n, *data_shape)`.
            batch_size: int >= 1. Defaults to `256`.

        Returns:
            int32 array `(n, *code_shape)`.

        Raises:
            ValueError: if `x` does not fit the model.
        """

        def encode(x: Any) -> Any:
            return self.quantizer.encode(self.encoder(x, training=False))

        return self.in_batches("encode", encode, self.prepare_data("x", x), batch_size=batch_size)

    def decode(self, codes: Any, batch_size: int = 256, verbose: str | int = 0) -> np.ndarray:
        """Finds the data of codes.

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
        codes = np.asarray(ops.convert_to_numpy(codes))
        valid = codes.dtype.kind in "iu" and codes.shape[1:] == self.code_shape and len(codes) > 0
        expected = batch_of(self.code_shape)
        check(valid, "codes", f"be integers of shape {expected}", f"{codes.dtype} of shape {codes.shape}")
        sizes = np.array(self.quantizer.code_sizes)
        inside = bool((codes >= 0).all() and (codes < sizes).all())
        check(inside, "codes", f"be in 0 .. {sizes.max() - 1}", f"values in [{codes.min()}, {codes.max()}]")

        def decode(codes: Any) -> Any:
            return ops.cast(self.decoder(self.quantizer.decode(codes), training=False), "float32")

        return self.in_batches("decode", decode, codes.astype("int32"), batch_size=batch_size, verbose=verbose)

    def encode_vectors(self, x: Any, batch_size: int = 256) -> np.ndarray:
        """Finds the vectors of data, before the codebook replaces them.

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
        """Replaces vectors by their nearest codes, and finds the data of these.

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
            quantized = self.quantizer.decode(self.quantizer.encode(vectors))
            return ops.cast(self.decoder(quantized, training=False), "float32")

        return self.in_batches("decode_vectors", decode, vectors, batch_size=batch_size, verbose=verbose)

    def reconstruct(self, x: Any, quantize: bool = True, batch_size: int = 256) -> np.ndarray:
        """Encodes and decodes.

        Args:
            x: `(n, *data_shape)`.
            quantize: bool. Whether the codebook is in between. Defaults to `True`.
            batch_size: int >= 1. Defaults to `256`.

        Returns:
            float32 array `(n, *data_shape)`.

        Raises:
            ValueError: if `x` does not fit the model.
        """
        if quantize:
            return self.decode(self.encode(x, batch_size), batch_size)

        def reconstruct(x: Any) -> Any:
            return ops.cast(self.decoder(self.encoder(x, training=False), training=False), "float32")

        return self.in_batches("reconstruct", reconstruct, self.prepare_data("x", x), batch_size=batch_size)

    def interpolate(self, x_a: Any, x_b: Any, points: int = 9, batch_size: int = 256) -> np.ndarray:
        """Mixes the vectors of two data, quantizes the mixture again and decodes it.

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

    def get_config(self) -> dict[str, Any]:
        parts = {"encoder": self.encoder, "decoder": self.decoder}
        return {**super().get_config(), **{k: keras.saving.serialize_keras_object(v) for k, v in parts.items()}}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "VQVAE":
        return cls(**keras.saving.deserialize_keras_object(config, custom_objects=custom_objects))


def squared_error(x: Any, decoded: Any) -> Any:
    """Returns the mean squared difference of each sample, float32 `(batch,)`."""
    error = ops.square(ops.cast(x, "float32") - ops.cast(decoded, "float32"))
    return ops.mean(error, axis=tuple(range(1, len(error.shape))))
