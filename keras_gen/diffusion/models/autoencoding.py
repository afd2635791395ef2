"""What a latent diffusion model asks of an autoencoder: `encode(x)` and `decode(z)`, of NumPy arrays.

Where `encode` gives codes, as of `VQVAE`, `encode_vectors` gives what the codes are to replace, and `decode_vectors`
reads such vectors.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.batches import even_batches
from keras_gen.core.checks import check, check_integer
from keras_gen.core.loop import progress_bar


def check_autoencoder(autoencoder: Any) -> None:
    """Refuses what is no autoencoder, or one that has no weights yet."""
    methods = all(callable(getattr(autoencoder, name, None)) for name in ("encode", "decode"))
    rule = "be a keras.Layer or keras.Model with methods encode and decode"
    check(isinstance(autoencoder, keras.Layer) and methods, "autoencoder", rule, autoencoder)
    check(autoencoder.built, "autoencoder", "be built, which training does: it is not trained here", autoencoder)


def encode_with(autoencoder: keras.Layer, x: np.ndarray, batch_size: int = 1, verbose: str | int = 0) -> np.ndarray:
    """Returns the vectors of images."""
    encode = getattr(autoencoder, "encode_vectors", autoencoder.encode)
    vectors = batchwise(encode, x, batch_size, verbose)
    real = vectors.dtype.kind == "f"
    check(real, "autoencoder", "encode to real numbers, not to codes", f"latents of {vectors.dtype}")
    return vectors


def decode_with(autoencoder: keras.Layer, z: np.ndarray, batch_size: int = 1, verbose: str | int = 0) -> np.ndarray:
    """Returns the images of vectors."""
    decode = getattr(autoencoder, "decode_vectors", autoencoder.decode)
    return batchwise(decode, z, batch_size, verbose).astype("float32", copy=False)


def batchwise(function: Callable[[np.ndarray], Any], x: np.ndarray, batch_size: int, verbose: str | int) -> np.ndarray:
    """Returns `function(x)`, computed for batches of one size, so that nothing compiled is compiled twice."""
    batches = list(even_batches(len(x), check_integer("batch_size", batch_size)))
    bar = progress_bar(len(batches), verbose)
    parts = []
    for rows in batches:
        parts.append(np.asarray(ops.convert_to_numpy(function(x[rows]))))
        bar.add(1)
    return np.concatenate(parts)[: len(x)]


def moments(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean of each channel and the deviation of all numbers from it, float32."""
    mean = vectors.mean(axis=tuple(range(vectors.ndim - 1)), dtype="float64")
    deviation = np.sqrt(np.mean(np.square(vectors - mean)))
    holds = 0 < deviation < np.finfo("float32").max
    check(holds, "latents", "have a deviation that is finite and not 0", f"deviation {deviation}")
    return mean.astype("float32"), np.float32(deviation)
