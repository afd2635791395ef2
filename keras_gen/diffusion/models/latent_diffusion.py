"""Diffusion in the latent space of an autoencoder."""

from collections.abc import Sequence
from typing import Any, Self

import keras
import numpy as np
from keras import ops

from keras_gen.core.checks import as_numpy, check, is_array, is_integer
from keras_gen.core.replicas import sharing
from keras_gen.diffusion.models.ddpm import DDPM
from keras_gen.diffusion.models.diffusion_model import DiffusionModel
from keras_gen.diffusion.models.encoded_model import (
    EncodedModel,
    check_autoencoder,
    decode_with,
    encode_with,
    serialized,
)
from keras_gen.diffusion.samplers.base import DiffusionSampler, check_sampler
from keras_gen.diffusion.samplers.guidance import Guidance
from keras_gen.export import keras_gen_export
from keras_gen.pretrained.pipeline import DROPOUT, check_origin, read_pipeline
from keras_gen.pretrained.writing import write_pipeline


def check_labels(labels: Any) -> None:
    """Checks that `labels` is `None` or a dict from names to classes."""
    named = labels.items() if isinstance(labels, dict) else ()
    are_classes = len(named) > 0 and all(isinstance(name, str) and is_integer(number) for name, number in named)
    check(labels is None or are_classes, "labels", "be a dict of integers by name, or None", repr(labels))


def moments(vectors: np.ndarray) -> tuple[np.ndarray, np.float32]:
    """Returns the mean of each channel, and the standard deviation of all dimensions around it, float32."""
    rows = vectors.reshape(-1, vectors.shape[-1])
    count = sharing.total_of_processes(np.array(len(rows)))
    mean = sharing.total_of_processes(rows.sum(axis=0, dtype="float64")) / count
    std = np.sqrt(sharing.total_of_processes(np.square(rows - mean).mean(axis=1).sum()) / count)
    rule = "have a finite, nonzero standard deviation"
    check(0 < std < np.finfo("float32").max, "latents", rule, f"standard deviation {std}")
    return mean.astype("float32"), np.float32(std)


@keras_gen_export("keras_gen.models.LatentDiffusion")
class LatentDiffusion(EncodedModel):
    """Latent diffusion: an autoencoder compresses images, and a diffusion model learns the distribution of the latents.

        z = (encode(x) - mean) / deviation,   x = decode(mean + deviation z)

    First train the autoencoder, then this model on the same images: `fit` encodes each image once, measures the mean of
    each channel and one standard deviation of all latents, and trains the diffusion model on `z`. The autoencoder is
    frozen; its weights and both statistics are saved in files. A later `fit` does not measure them again, since the
    diffusion model would have to be retrained; `adapt` does.

    Other methods of diffusion models, such as editing, inversion or densities, are those of `model.diffusion`, applied
    to latents from `encode`. Unlike pixels, these are not bounded by 1: here `clip_x0` is in units of standard
    deviations; 4 is a sensible value.

    Args:
        autoencoder: a trained model with methods `encode(x)` and `decode(z)` of NumPy arrays, such as `VAE`. Methods
            `encode_vectors` and `decode_vectors` take precedence, as for `VQVAE`, whose `encode` returns codes.
        diffusion: a diffusion model, such as `DDPM`, whose network takes such latents. They have standard deviation 1:
            use `sigma_data=1` for an `EDM`.
        seed: int or `None`. Seeds `sample`; training draws from the generator of `diffusion`. Defaults to `None`, a
            seed from Keras's global generator.
        sampler: a `DiffusionSampler`, the default of `sample`. Defaults to `None`, that of `diffusion`.
        labels: dict from names to classes. `sample` then also takes names as conditions. Defaults to `None`, no names.
        origin: dict or `None`. What `from_diffusers` remembers for `to_diffusers`. Defaults to `None`.
        **kwargs: `name`, `dtype`, `trainable`, as for any Keras model.

    Call arguments:
        x: float latents `(batch, ...)`, channels last, of standard deviation 1.

    Returns:
        The latents unchanged; use `fit` and `sample`.

    Raises:
        ValueError: if an argument has the wrong type, the autoencoder is not built, latents are incompatible with the
            diffusion model, or the autoencoder's output does not have the shape of its input.

    Example:

    >>> autoencoder.fit(images)               # float32 (n, 32, 32, 3) in [-1, 1]; latents (n, 8, 8, 4)
    >>> diffusion = keras_gen.models.DDPM(keras_gen.models.UNet((8, 8, 4), num_classes=10), condition_dropout=0.1)
    >>> model = keras_gen.models.LatentDiffusion(autoencoder, diffusion)
    >>> model.compile(keras.optimizers.Adam(1e-3, use_ema=True))
    >>> model.fit(images, labels)
    >>> new = model.sample(16, condition=3)   # float32 (16, 32, 32, 3)

    Reference: Rombach et al. 2021, arXiv:2112.10752.
    """

    def __init__(
        self,
        autoencoder: keras.Layer,
        diffusion: DiffusionModel,
        seed: int | None = None,
        sampler: DiffusionSampler | None = None,
        labels: dict[str, int] | None = None,
        origin: dict[str, Any] | None = None,
        **kwargs: Any,
    ):
        super().__init__(seed=seed, **kwargs)
        check_sampler(sampler)
        check_autoencoder(autoencoder)
        check(isinstance(diffusion, DiffusionModel), "diffusion", "be a diffusion model, such as DDPM", diffusion)
        rule = "have sigma_data=1, the standard deviation of the latents"
        check(getattr(diffusion.prediction, "sigma_data", 1) == 1, "diffusion", rule, diffusion.sigma_data)
        autoencoder.trainable = False
        self.autoencoder = autoencoder
        self.diffusion = diffusion
        self.sampler = sampler
        check_labels(labels)
        self.labels = labels
        check_origin(origin)
        self.origin = origin
        self.takes_sample_weight = diffusion.takes_sample_weight
        if diffusion.built:
            self.build((None, *diffusion.built_shape()))

    @classmethod
    def from_diffusers(cls, folder: Any, variant: str | None = None, dtype: Any = None) -> Self:
        """Reads a whole pipeline of the library diffusers whose conditions are classes: DiT.

        The statistics of the latents are the autoencoder's `scaling_factor` and `shift_factor`; nothing is measured.

        Args:
            folder: path of a folder with `model_index.json`, as written by `save_pretrained`.
            variant: as for `TextToImage.from_diffusers`. Defaults to `None`.
            dtype: the dtype policy of all networks. Defaults to `None`, Keras's global policy.

        Returns:
            The model, whose default sampler is that of the folder, with 50 steps, and whose `sample` takes classes by
            the names that the folder gives them.

        Raises:
            ValueError: as for `TextToImage.from_diffusers`.
            ImportError: if `safetensors` is not installed.
        """
        pipeline = read_pipeline("LatentDiffusion", folder, variant, dtype)
        network = pipeline.network
        # Twice the channels: the second half determines the variance.
        learns_variance = network.output_shape[-1] == 2 * network.input_shape[0][-1]
        variance = "learned_range" if learns_variance else pipeline.variance
        diffusion = DDPM(network, pipeline.schedule, pipeline.prediction, variance, condition_dropout=DROPOUT)
        named = pipeline.origin["index"].get("id2label") or {}
        labels = {name.strip(): int(number) for number, names in named.items() for name in names.split(",")}
        model = cls(pipeline.autoencoder, diffusion, None, pipeline.sampler, labels or None, pipeline.origin)
        model.latent_mean.assign(0 * model.latent_mean + pipeline.autoencoder.shift_factor)
        model.latent_deviation.assign(1 / pipeline.autoencoder.scaling_factor)
        model.measured.assign(1)
        return model

    def to_diffusers(self, folder: Any) -> None:
        """Writes the model so that diffusers reads it as a pipeline; see `TextToImage.to_diffusers`.

        Args:
            folder: path of the folder. If it does not exist, it is created.

        Raises:
            ValueError: if diffusers has no such pipeline, the statistics of the latents are not given by the
                autoencoder's `scaling_factor` and `shift_factor`, or `folder` is not the path of a folder.
            ImportError: if `safetensors` is not installed.
        """
        mean, deviation = self._moments()
        scale, shift = (getattr(self.autoencoder, name, np.nan) for name in ("scaling_factor", "shift_factor"))
        is_told = np.allclose(mean, shift) and bool(np.isclose(deviation, 1 / scale))
        rule = "have 1 / deviation and mean of the latents as scaling_factor and shift_factor"
        check(is_told, "autoencoder", rule, f"{1 / deviation} and {mean} with {scale} and {shift}")
        formulas = self.diffusion.schedule, self.diffusion.prediction
        with self.averaged_weights():
            write_pipeline(folder, self.diffusion.network, self.autoencoder, [], [], *formulas, self.origin, {})

    def build(self, input_shape: Any) -> None:
        # The shape may be that of images or of latents: the number of channels is taken from the diffusion model.
        self.diffusion.check_built()
        if hasattr(self, "latent_mean"):
            return
        options = {"dtype": "float32", "trainable": False, "autocast": False}
        channels = self.diffusion.built_shape()[-1:]
        self.latent_mean = self.add_weight(name="latent_mean", shape=channels, initializer="zeros", **options)
        self.latent_deviation = self.add_weight(name="latent_deviation", shape=(), initializer="ones", **options)
        options["dtype"] = "int32"
        self.measured = self.add_weight(name="measured", shape=(), initializer="zeros", **options)

    def check_data(self, x: Any, y: Any) -> None:
        rule = "be an array of images until `adapt` is called: datasets must yield latents from `encode`"
        check(is_array(x) or self._is_measured(), "x", rule, type(x).__name__)
        self.diffusion.check_data(x, y)

    def check_sampling(self, n: int, **options: Any) -> None:
        self.check_built()
        self.diffusion.check_sampling(n, **{**options, "condition": self._classes(options.get("condition"))})

    def adapt(self, x: Any, batch_size: int = 256, verbose: str | int = "auto") -> None:
        """Measures mean and standard deviation of the latents of images; afterwards, retrain the diffusion model.

        Args:
            x: images `(n, height, width, channels)`, the training set or a few thousand images of it.
            batch_size: int >= 1. Number of images encoded at a time. Defaults to `256`.
            verbose: `"auto"` (a bar in a terminal), 0 (silent), 1 (a bar) or 2 (a line). Defaults to `"auto"`.

        Raises:
            ValueError: if the images are incompatible with the model, or their latents are all equal or not finite.
        """
        self._measure(self._vectors(x, batch_size, verbose))

    def encode(self, x: Any, batch_size: int = 256, verbose: str | int = 0) -> np.ndarray:
        """Encodes images to latents of standard deviation 1.

        Args:
            x: images `(n, height, width, channels)`.
            batch_size: int >= 1. Defaults to `256`.
            verbose: `"auto"`, 0 or 1: whether to show progress. Defaults to `0`.

        Returns:
            float32 array `(n, *latent_shape)`; before `fit` or `adapt`, the unscaled latents of the autoencoder.

        Raises:
            ValueError: if `x` is incompatible with the model.
        """
        return self._standardized(self._vectors(x, batch_size, verbose))

    def decode(self, z: Any, batch_size: int = 256, verbose: str | int = 0) -> np.ndarray:
        """Decodes latents to images.

        Args:
            z: `(n, *latent_shape)`, as returned by `encode` or `diffusion.sample`.
            batch_size: int >= 1. Defaults to `256`.
            verbose: `"auto"`, 0 or 1: whether to show progress. Defaults to `0`.

        Returns:
            float32 array `(n, height, width, channels)`.

        Raises:
            ValueError: if `z` is incompatible with the model.
        """
        self.check_built()
        z = self.diffusion.prepare_images("z", z)
        mean, deviation = self._moments()
        return decode_with(self.autoencoder, mean + deviation * z, batch_size, verbose)

    def reconstruct(self, x: Any, batch_size: int = 256) -> np.ndarray:
        """Encodes and decodes images: an upper bound of the sample quality.

        Args:
            x: images `(n, height, width, channels)`.
            batch_size: int >= 1. Defaults to `256`.

        Returns:
            float32 array `(n, height, width, channels)`.

        Raises:
            ValueError: if `x` is incompatible with the model.
        """
        return self.decode(self.encode(x, batch_size), batch_size)

    def sample(
        self,
        n: int,
        sampler: DiffusionSampler | None = None,
        condition: Any = None,
        guidance: Guidance | None = None,
        seed: int | Sequence[int] | None = None,
        noise: Any = None,
        step_noise: Any = None,
        batch_size: int = 64,
        verbose: str | int = "auto",
    ) -> np.ndarray:
        """Generates latents and decodes them: `decode(diffusion.sample(n, ...))`.

        Args:
            n: int >= 1. Number of images.
            sampler: a `DiffusionSampler`, with `clip_x0` in standard deviations of the latents. Defaults to `None`, the
                model's `sampler`, or the default of `diffusion`, without clipping.
            condition: for a conditional network, an int, the label of all images, an array `(n, ...)`, or a dict of
                arrays, if that is what the network takes; with `labels` also names. Defaults to `None`.
            guidance: a `Guidance`, such as `ClassifierFreeGuidance(2.0)`. Defaults to `None`.
            seed: int, `n` integers or `None`. The starting noise of latent k depends only on `seed` and k. With one
                seed for each image, image k is that of `sample(1, seed=seed[k])`. Defaults to `None`, a seed from the
                model's own generator.
            noise: `(n, *latent_shape)`, starting noise to use instead of a standard normal draw. Defaults to `None`.
            step_noise: `(steps, n, *latent_shape)`, noise to use at each step instead of draws. Defaults to `None`.
            batch_size: int >= 1. Number of images processed at a time. Defaults to `64`.
            verbose: `"auto"` (a bar in a terminal), 0 (silent), 1 (a bar) or 2 (a line). Defaults to `"auto"`.

        Returns:
            float32 array `(n, height, width, channels)`.

        Raises:
            ValueError: if an argument is incompatible with the model, or the sampler has more steps than the schedule.
        """
        self.check_built()
        options = {"noise": noise, "step_noise": step_noise, "batch_size": batch_size, "verbose": verbose}
        sampler = self.sampler if sampler is None else sampler
        z = self.diffusion.sample(n, sampler, self._classes(condition), guidance, self.draw_seeds(seed, n), **options)
        return self.decode(z, batch_size, verbose)

    def get_config(self) -> dict[str, Any]:
        parts = {"autoencoder": self.autoencoder, "diffusion": self.diffusion, "sampler": self.sampler}
        own = {name: serialized(part) for name, part in parts.items()}
        return {**super().get_config(), **own, "labels": self.labels, "origin": self.origin}

    def _classes(self, condition: Any) -> Any:
        """Returns classes by number where they were given by name."""
        names = [condition] if isinstance(condition, str) else condition
        are_names = isinstance(names, list | tuple) and any(isinstance(name, str) for name in names)
        if self.labels is None or not are_names:
            return condition
        unknown = [name for name in names if name not in self.labels]
        check(not unknown, "condition", "be classes by number, or by name as in `labels`", unknown[:5])
        numbers = np.array([self.labels[name] for name in names], "int32")
        return int(numbers[0]) if isinstance(condition, str) else numbers

    @property
    def frozen_parts(self) -> list[keras.Layer]:
        return [self.autoencoder]

    def encoded(self, x: Any, y: Any, verbose: str | int) -> tuple[Any, Any]:
        return self._standardized(self._vectors_with(x, y, verbose)), y

    def encoded_for_training(self, x: Any, y: Any, verbose: str | int) -> tuple[Any, Any]:
        vectors = self._vectors_with(x, y, verbose)
        if not self._is_measured():
            self._measure(vectors)
        return self._standardized(vectors), y

    def _vectors_with(self, x: Any, y: Any, verbose: str | int) -> np.ndarray:
        """Returns the autoencoder's latents of images, after checking the images' conditions."""
        if not self.diffusion.built:
            self.diffusion.meet(encode_with(self.autoencoder, as_numpy("x", x)[:1]), y)
        self.diffusion.prepare_condition(y, len(x), "y")
        return self._vectors(x, 256, verbose)

    def _vectors(self, x: Any, batch_size: int, verbose: str | int) -> np.ndarray:
        """Returns the autoencoder's latents of images, after checking all parts with a single image."""
        x = as_numpy("x", x)
        check(x.ndim > 0 and len(x) > 0, "x", "hold at least one image", f"shape {x.shape}")
        latents = self.diffusion.prepare_images("latents", encode_with(self.autoencoder, x[:1]))
        expected, shape = x.shape[1:], decode_with(self.autoencoder, latents).shape[1:]
        check(shape == expected, "autoencoder", f"decode to its input's shape, {expected}", f"shape {shape}")
        if not self.built:
            self.build((None, *expected))
        return self.diffusion.prepare_images("latents", encode_with(self.autoencoder, x, batch_size, verbose))

    def _measure(self, vectors: np.ndarray) -> None:
        mean, deviation = moments(vectors)
        self.latent_mean.assign(mean)
        self.latent_deviation.assign(deviation)
        self.measured.assign(1)

    def _is_measured(self) -> bool:
        return self.built and bool(ops.convert_to_numpy(self.measured))

    def _moments(self) -> tuple[np.ndarray, np.ndarray]:
        return ops.convert_to_numpy(self.latent_mean), ops.convert_to_numpy(self.latent_deviation)

    def _standardized(self, vectors: np.ndarray) -> np.ndarray:
        mean, deviation = self._moments()
        return (vectors - mean) / deviation
