"""Base class of diffusion models whose data are first encoded by frozen parts."""

import functools
from collections.abc import Callable
from typing import Any, Self

import keras
import numpy as np
from keras import ops

from keras_gen.core.checks import check, check_integer, is_array
from keras_gen.core.compiled import even_batches, progress_bar
from keras_gen.core.generative_model import GenerativeModel
from keras_gen.core.replicas import sharing
from keras_gen.diffusion.models.diffusion_model import DiffusionModel


class EncodedModel(GenerativeModel):
    """A diffusion model, and frozen parts that encode images and their conditions before it is trained.

    To implement one: set the attribute `diffusion`, define `frozen_parts` and `encoded` and, if statistics of the
    training data are to be measured, `encoded_for_training`.
    """

    diffusion: DiffusionModel

    @property
    def frozen_parts(self) -> list[keras.Layer]:
        """The parts that are not trained."""
        raise NotImplementedError

    def encoded(self, x: Any, y: Any, verbose: str | int) -> tuple[Any, Any]:
        """Returns the data and conditions of the diffusion model for images `x` with conditions `y`."""
        raise NotImplementedError

    def encoded_for_training(self, x: Any, y: Any, verbose: str | int) -> tuple[Any, Any]:
        """Returns the same for the data of `fit`."""
        return self.encoded(x, y, verbose)

    @property
    def metrics(self) -> list[keras.Metric]:
        # Without those of parts that training does not call: the usage of their codes would be meaningless.
        excluded = {metric.name for part in self.frozen_parts for metric in getattr(part, "metrics", [])} - {"loss"}
        return [metric for metric in super().metrics if metric.name not in excluded]

    def loss_per_sample(self, x: Any, y: Any, training: bool) -> Any:
        return self.diffusion.loss_per_sample(x, y, training)

    def check_batch(self, x: Any, y: Any) -> None:
        self.diffusion.check_batch(x, y)

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: str | int = "auto",
        **kwargs: Any,
    ) -> keras.callbacks.History:
        """Encodes the data once, and trains the diffusion model on the result; see `keras.Model.fit`.

        All encodings are kept in memory during training.

        Args:
            x: images `(n, height, width, channels)`. A dataset or `keras.utils.PyDataset` must yield latents instead,
                as returned by `encode`, and conditions as the network takes them.
            y: the conditions of the images: captions for a text-to-image model; for any other one with a conditional
                network, labels or conditions `(n, ...)`, or a dict of them. Defaults to `None`.
            batch_size: as for `keras.Model.fit`.
            epochs: as for `keras.Model.fit`.
            verbose: as for `keras.Model.fit`; also whether to show the progress of encoding.
            **kwargs: as for `keras.Model.fit`. `validation_data` are like `x` and `y`.

        Returns:
            The `History`.

        Raises:
            ValueError: if the data are incompatible with the model.
        """
        validation = kwargs.get("validation_data")
        with sharing.alone():  # processes encode their own images
            if is_array(x):
                x, y = self.encoded_for_training(x, y, verbose)
            if isinstance(validation, tuple | list):
                other_x, other_y = (*validation, None, None)[:2]
                if is_array(other_x):
                    other_x, other_y = self.encoded(other_x, other_y, verbose)
                kwargs["validation_data"] = (other_x, other_y, *validation[2:])
        return super().fit(x, y, batch_size, epochs, verbose, **kwargs)

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: str | int = "auto",
        **kwargs: Any,
    ) -> Any:
        """Returns the loss on images `x` with conditions `y`, or on a dataset; see `fit` and `keras.Model.evaluate`."""
        # Keras's `fit` calls this for validation, with this argument; its data are already encoded by `fit` above.
        if is_array(x) and not kwargs.get("_use_cached_eval_dataset", False):
            with sharing.alone():
                x, y = self.encoded(x, y, verbose)
        return super().evaluate(x, y, batch_size, verbose, **kwargs)

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        return cls(**keras.saving.deserialize_keras_object(config, custom_objects=custom_objects))


def serialized(part: Any) -> Any:
    """Returns the configuration of a part, or `None` for `None`, without that of its training.

    Otherwise loading would recreate its optimizer, although its weights are frozen or trained by another one.
    """
    config = keras.saving.serialize_keras_object(part)
    return config and {key: value for key, value in config.items() if key != "compile_config"}


def check_autoencoder(autoencoder: Any) -> None:
    """Raises `ValueError` unless `autoencoder` is a built autoencoder."""
    methods = all(callable(getattr(autoencoder, name, None)) for name in ("encode", "decode"))
    rule = "be a keras.Layer or keras.Model with methods encode and decode"
    check(isinstance(autoencoder, keras.Layer) and methods, "autoencoder", rule, autoencoder)
    check(autoencoder.built, "autoencoder", "be built: train it first, it is not trained here", autoencoder)


def encode_with(autoencoder: keras.Layer, x: np.ndarray, batch_size: int = 1, verbose: str | int = 0) -> np.ndarray:
    """Encodes images to real-valued latents."""
    encode = getattr(autoencoder, "encode_vectors", autoencoder.encode)
    vectors = batchwise(encode, x, batch_size, verbose)
    rule = "encode to real numbers, not to codes"
    check(vectors.dtype.kind == "f", "autoencoder", rule, f"latents of {vectors.dtype}")
    return vectors


def decode_with(
    autoencoder: keras.Layer, z: np.ndarray, batch_size: int = 1, verbose: str | int = 0, **options: Any
) -> np.ndarray:
    """Decodes real-valued latents to images; `options` are further arguments of the autoencoder's method."""
    decode = functools.partial(getattr(autoencoder, "decode_vectors", autoencoder.decode), **options)
    return batchwise(decode, z, batch_size, verbose).astype("float32", copy=False)


def batchwise(function: Callable[[np.ndarray], Any], x: np.ndarray, batch_size: int, verbose: str | int) -> np.ndarray:
    """Computes `function(x)` in batches of equal size, so that compiled functions are not recompiled."""
    batches = list(even_batches(len(x), check_integer("batch_size", batch_size)))
    bar = progress_bar(len(batches), verbose)
    parts = []
    for rows in batches:
        parts.append(np.asarray(ops.convert_to_numpy(function(x[rows]))))
        bar.add(1)
    return np.concatenate(parts)[: len(x)]
