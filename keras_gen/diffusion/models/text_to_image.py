"""Images from texts: a latent diffusion model whose condition is made of encoded prompts."""

from collections.abc import Sequence
from typing import Any, Self

import keras
import numpy as np

from keras_gen.core.checks import (
    as_images,
    check,
    check_broadcast,
    check_given,
    check_integer,
    is_integer,
    real_array,
)
from keras_gen.core.random import starting_noise
from keras_gen.diffusion.models.ddpm import DDPM
from keras_gen.diffusion.models.diffusion_model import DiffusionModel
from keras_gen.diffusion.models.encoded_model import (
    EncodedModel,
    check_autoencoder,
    decode_with,
    encode_with,
    serialized,
)
from keras_gen.diffusion.models.encodes_prompts import EncodesPrompts, given_or_usual
from keras_gen.diffusion.models.rectified_flow import RectifiedFlow
from keras_gen.diffusion.samplers.base import DiffusionSampler, check_sampler
from keras_gen.diffusion.samplers.ddim import DDIMSampler
from keras_gen.diffusion.samplers.euler import EulerSampler
from keras_gen.diffusion.samplers.guidance import Guidance
from keras_gen.diffusion.schedules.discrete import DiscreteSchedule
from keras_gen.diffusion.schedules.time_samplers import LogitNormalTime
from keras_gen.export import keras_gen_export
from keras_gen.networks.backbones.image_network import inputs_of
from keras_gen.pretrained.pipeline import DROPOUT, Pipeline, check_origin, read_pipeline
from keras_gen.pretrained.prompts import (
    StableDiffusionXL,
    family_of,
    number_of,
    repeated,
)
from keras_gen.pretrained.writing import write_pipeline

ZERO_NULL = "force_zeros_for_empty_prompt"  # in the index of Stable Diffusion XL: whether zero is the null condition


@keras_gen_export("keras_gen.models.TextToImage")
class TextToImage(EncodesPrompts, EncodedModel):
    """Text to image: text encoders make the condition of a diffusion model of the latents of an autoencoder.

        condition = encoders(tokenizers(prompt)),   z ~ diffusion given condition,   image = decode(z / scale + shift)

    `from_diffusers` reads Stable Diffusion 1, 2, XL, 3 and 3.5 as they are published; `to_diffusers` writes them. A
    model of one's own takes any network whose condition are tokens, and any encoder that returns such. Encoders and
    autoencoder are frozen. Which encoder gives what follows from the network's condition:

        tokens                 the tokens of one encoder (Stable Diffusion 1 and 2)
        tokens, pooled, sizes  two CLIP encoders (Stable Diffusion XL); sizes are those of the image
        tokens, pooled         two CLIP encoders and a T5 encoder, or 256 zeros in its place (Stable Diffusion 3)

    `fit(images, captions)` continues training: it encodes all images and captions, then trains the diffusion model. A
    fraction of captions is replaced if the diffusion model has a `condition_dropout`. The encodings are in memory: for
    Stable Diffusion 1, 236 kB for each different caption. `release_encoders` frees that of the encoders.

    Args:
        diffusion: a diffusion model, such as `DDPM`, whose network takes such a condition.
        text_encoders: the text encoder, or a sequence of them, called as `encoder(ids)`, which return a dict with
            `"tokens"` and, as of CLIP, `"penultimate"` and `"pooled"`.
        tokenizers: a tokenizer for each of them, or a single one.
        autoencoder: a trained autoencoder, such as `AutoencoderKL`, whose `scaling_factor` and `shift_factor` apply if
            it has them. Defaults to `None`: the diffusion model is one of pixels.
        sampler: a `DiffusionSampler`, the default of `sample`. Defaults to `None`, which is `DDIMSampler(50)` in
            discrete time, `EulerSampler(28)` otherwise.
        image_size: height and width of images unless others are asked for. Defaults to `None`: those of the network,
            if it takes one size alone.
        origin: dict or `None`. What `from_diffusers` remembers for `to_diffusers`. Defaults to `None`.
        seed: int or `None`. Seeds `sample`; training draws from the generator of `diffusion`. Defaults to `None`, a
            seed from Keras's global generator.
        **kwargs: `name`, `dtype`, `trainable`, as for any Keras model.

    Call arguments:
        x: float latents `(batch, ...)`, channels last.

    Returns:
        The latents unchanged; use `fit` and `sample`.

    Raises:
        ValueError: if an argument has the wrong type, the numbers of encoders and tokenizers differ or are not those
            that the network's condition needs, or the autoencoder is not built.

    Example:

    >>> model = keras_gen.models.TextToImage.from_diffusers("stable-diffusion-v1-5", variant="fp16")
    >>> guidance = keras_gen.samplers.ClassifierFreeGuidance(7.5)
    >>> images = model.sample(["a photo of a cat", "a red bus"], guidance=guidance, seed=0)    # (2, 512, 512, 3)

    Reference: Rombach et al. 2021, arXiv:2112.10752; Podell et al. 2023, arXiv:2307.01952; Esser et al. 2024,
    arXiv:2403.03206; https://kexue.fm/archives/9257 for guidance.
    """

    def __init__(
        self,
        diffusion: DiffusionModel,
        text_encoders: Any,
        tokenizers: Any,
        autoencoder: keras.Layer | None = None,
        sampler: DiffusionSampler | None = None,
        image_size: Sequence[int] | None = None,
        origin: dict[str, Any] | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(seed=seed, **kwargs)
        check(isinstance(diffusion, DiffusionModel), "diffusion", "be a diffusion model, such as DDPM", diffusion)
        self.family = family_of(diffusion.network)
        text_encoders, tokenizers = _as_list(text_encoders), _as_list(tokenizers)
        are_layers = all(isinstance(encoder, keras.Layer) for encoder in text_encoders)
        check(are_layers, "text_encoders", "be Keras layers", text_encoders)
        rule = f"be {' or '.join(map(str, self.family.encoders))} for the network's condition"
        check(len(text_encoders) in self.family.encoders, "text_encoders", rule, len(text_encoders))
        are_callable = all(callable(tokenizer) for tokenizer in tokenizers)
        rule = f"be {len(text_encoders)} tokenizers, one for each text encoder"
        check(are_callable and len(tokenizers) == len(text_encoders), "tokenizers", rule, tokenizers)
        if autoencoder is not None:
            check_autoencoder(autoencoder)
        check_sampler(sampler)
        self.diffusion = diffusion
        self.text_encoders = text_encoders
        self.tokenizers = tokenizers
        self.autoencoder = autoencoder
        for part in self.frozen_parts:
            part.trainable = False
        self.sampler = default_sampler(diffusion) if sampler is None else sampler
        self.image_size = None if image_size is None else _checked_size(image_size)
        check_origin(origin)
        self.origin = origin
        self.takes_sample_weight = diffusion.takes_sample_weight
        if not diffusion.built and inputs_of(diffusion.network):
            diffusion.build(inputs_of(diffusion.network)[0].shape)
        diffusion.check_built()
        self.build((None, *diffusion.built_shape()))

    def build(self, input_shape: Any) -> None:
        self.diffusion.check_built()

    @classmethod
    def from_diffusers(cls, folder: Any, variant: str | None = None, dtype: Any = None) -> Self:
        """Reads a whole pipeline of the library diffusers: Stable Diffusion 1, 2, XL, 3 or 3.5.

        Index, scheduler and the presence of all parts are checked before any weights are read. Parts that are not used
        (a safety checker, an image encoder) stay in the folder, from where `to_diffusers` copies them.

        Args:
            folder: path of a folder with `model_index.json`, as written by `save_pretrained`.
            variant: str or `None`. The variant of the files of weights, such as `"fp16"`; parts without it are read
                from their plain files. Defaults to `None`.
            dtype: the dtype policy of all networks. Weights in another precision are converted. Defaults to `None`,
                Keras's global policy.

        Returns:
            The model, whose default sampler is that of the folder, with 50 steps, or 28 for flow matching.

        Raises:
            ValueError: with the file's path, if the folder is not that of such a pipeline, a part is missing or not
                supported, or its files are damaged.
            ImportError: if `safetensors` or `tokenizers` is not installed.
        """
        pipeline = read_pipeline("TextToImage", folder, variant, dtype)
        return cls(
            diffusion_of(pipeline),
            pipeline.text_encoders,
            pipeline.tokenizers,
            pipeline.autoencoder,
            sampler=pipeline.sampler,
            image_size=pipeline.image_size,
            origin=pipeline.origin,
        )

    def to_diffusers(self, folder: Any) -> None:
        """Writes the model so that diffusers reads it as a pipeline.

        The weights are what `sample` uses, averages included, in their own precision. A model that was read keeps its
        scheduler, and its unused parts are copied from the folder of which it was read, if they are still there.

        Args:
            folder: path of the folder. If it does not exist, it is created.

        Raises:
            ValueError: if diffusers has no such pipeline, or `folder` is not the path of a folder.
            ImportError: if `safetensors` is not installed.
        """
        self._check_whole()
        is_xl = isinstance(self.family, StableDiffusionXL)
        with self.averaged_weights():
            write_pipeline(
                folder,
                self.diffusion.network,
                self.autoencoder,
                self.text_encoders,
                self.tokenizers,
                self.diffusion.schedule,
                self.diffusion.prediction,
                self.origin,
                {ZERO_NULL: self.diffusion.condition_dropout > 0} if is_xl else {},
            )

    def encode(self, x: Any, batch_size: int | None = None, verbose: str | int = 0) -> np.ndarray:
        """Encodes images to latents, as the diffusion model takes them.

        Args:
            x: images `(n, height, width, channels)`, in [-1, 1].
            batch_size: int >= 1 or `None`. Defaults to `None`, 8.
            verbose: `"auto"`, 0 or 1: whether to show progress. Defaults to `0`.

        Returns:
            float32 array `(n, *latent_shape)`.

        Raises:
            ValueError: if `x` is incompatible with the model.
        """
        x = as_images("x", x)
        if self.autoencoder is None:
            return self.diffusion.prepare_images("x", x)
        z = encode_with(self.autoencoder, x, given_or_usual(batch_size), verbose)
        return self.diffusion.prepare_images("latents", (z - self._shift) * self._scale)

    def decode(
        self, z: Any, batch_size: int | None = None, verbose: str | int = 0, tile_size: int | None = None
    ) -> np.ndarray:
        """Decodes latents to images.

        Args:
            z: `(n, *latent_shape)`, as returned by `encode` or `diffusion.sample`.
            batch_size: int >= 1 or `None`. Defaults to `None`, 8.
            verbose: `"auto"`, 0 or 1: whether to show progress. Defaults to `0`.
            tile_size: int or `None`. Height and width of the tiles in which large images are decoded, to save memory,
                as for `AutoencoderKL`. Defaults to `None`, images as a whole.

        Returns:
            float32 array `(n, height, width, channels)`, in [-1, 1].

        Raises:
            ValueError: if `z` is incompatible with the model.
        """
        z = self.diffusion.prepare_images("z", z)
        if self.autoencoder is not None:
            options = {} if tile_size is None else {"tile_size": tile_size}
            z = decode_with(
                self.autoencoder, z / self._scale + self._shift, given_or_usual(batch_size), verbose, **options
            )
        return np.clip(z, -1.0, 1.0)

    def sample(
        self,
        prompts: str | Sequence[str],
        sampler: DiffusionSampler | None = None,
        guidance: Guidance | None = None,
        negative_prompts: str | Sequence[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        noise: Any = None,
        seed: int | Sequence[int] | None = None,
        batch_size: int | None = None,
        verbose: str | int = "auto",
        tile_size: int | None = None,
    ) -> np.ndarray:
        """Generates one image for each prompt.

        Args:
            prompts: a string, or a sequence of `n` strings. An empty one is allowed. Or what `encode_prompts` returned
                for them.
            sampler: a `DiffusionSampler`, such as `keras_gen.samplers.from_diffusers(path, steps=20)`. Defaults to
                `None`, the model's `sampler`.
            guidance: a `Guidance`. Defaults to `None`, no guidance; `ClassifierFreeGuidance(7.5)` is usual.
            negative_prompts: a string for all images, or `n` strings, from which `ClassifierFreeGuidance` leads away;
                or what `encode_prompts` returned for them. Defaults to `None`: the null condition if the diffusion
                model has a `condition_dropout`, and otherwise the empty prompt.
            height: int or `None`, height of the images. Defaults to `None`, that of `noise` or the model's
                `image_size`.
            width: int or `None`, width of the images. Defaults to `None`, as for `height`.
            noise: `(n, *latent_shape)`, starting noise to use instead of a standard normal draw. Defaults to `None`.
            seed: int, `n` integers or `None`. The starting noise of image k depends only on `seed` and k. Defaults to
                `None`, a seed from the model's own generator.
            batch_size: int >= 1 or `None`. Number of prompts or images processed at a time. Defaults to `None`, 8.
            verbose: `"auto"` (a bar in a terminal), 0 (silent), 1 (a bar) or 2 (a line). Defaults to `"auto"`.
            tile_size: as for `decode`. Defaults to `None`.

        Returns:
            float32 array `(n, height, width, channels)`, in [-1, 1].

        Raises:
            ValueError: if an argument is incompatible with the model.
        """
        options = self._arguments(prompts, guidance, negative_prompts, height, width, noise, seed, batch_size, verbose)
        z = self.diffusion.sample(sampler=self._resolved(sampler), **options)
        return self.decode(z, batch_size, tile_size=tile_size)

    def denoising_path(
        self,
        prompts: str | Sequence[str],
        frames: int = 8,
        sampler: DiffusionSampler | None = None,
        guidance: Guidance | None = None,
        negative_prompts: str | Sequence[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        noise: Any = None,
        of: str = "x_t",
        seed: int | Sequence[int] | None = None,
        batch_size: int | None = None,
        verbose: str | int = "auto",
    ) -> np.ndarray:
        """Generates one image for each prompt and returns the decoded trajectories, at `frames` evenly spaced steps.

        Args:
            prompts: as for `sample`.
            frames: int >= 1. Number of states after the noise, the last being the generated image. Defaults to `8`.
            sampler: as for `sample`.
            guidance: as for `sample`.
            negative_prompts: as for `sample`.
            height: as for `sample`.
            width: as for `sample`.
            noise: as for `sample`.
            of: `"x_t"`, the states themselves, or `"x0"`, the latents that the network predicts from them. Defaults to
                `"x_t"`.
            seed: as for `sample`.
            batch_size: as for `sample`.
            verbose: as for `sample`.

        Returns:
            float32 array `(frames + 1, n, height, width, channels)`.

        Raises:
            ValueError: as for `sample`, and if there are more frames than steps.
        """
        options = self._arguments(prompts, guidance, negative_prompts, height, width, noise, seed, batch_size, verbose)
        path = self.diffusion.denoising_path(frames=frames, sampler=self._resolved(sampler), of=of, **options)
        return np.stack([self.decode(z, batch_size) for z in path])

    def image_to_image(
        self,
        x: Any,
        prompts: str | Sequence[str],
        strength: float = 0.5,
        sampler: DiffusionSampler | None = None,
        guidance: Guidance | None = None,
        negative_prompts: str | Sequence[str] | None = None,
        noise: Any = None,
        seed: int | None = None,
        batch_size: int | None = None,
        verbose: str | int = "auto",
    ) -> np.ndarray:
        """Generates variations of images by prompts: adds noise to their latents, and removes it by the last steps.

        Args:
            x: images `(n, height, width, channels)`, in [-1, 1].
            prompts: a string for all images, or `n` strings; or what `encode_prompts` returned for them.
            strength: float in (0, 1], the fraction of the sampler's steps that is used. Defaults to `0.5`.
            sampler: as for `sample`.
            guidance: as for `sample`.
            negative_prompts: as for `sample`.
            noise: `(n, *latent_shape)`, noise to add. Defaults to `None`, a draw.
            seed: int or `None`. Defaults to `None`, a seed from the model's own generator.
            batch_size: as for `sample`.
            verbose: as for `sample`.

        Returns:
            float32 array `(n, height, width, channels)`.

        Raises:
            ValueError: as for `sample`, and if `strength` is outside (0, 1].

        Reference: Meng et al. 2021, arXiv:2108.01073.
        """
        z, options = self._edited(x, prompts, guidance, negative_prompts, batch_size, verbose)
        seed = self.draw_seed(seed)
        z = self.diffusion.image_to_image(z, strength, self._resolved(sampler), noise, seed, **options)
        return self.decode(z, batch_size)

    def inpaint(
        self,
        x: Any,
        mask: Any,
        prompts: str | Sequence[str],
        sampler: DiffusionSampler | None = None,
        guidance: Guidance | None = None,
        negative_prompts: str | Sequence[str] | None = None,
        seed: int | None = None,
        batch_size: int | None = None,
        verbose: str | int = "auto",
    ) -> np.ndarray:
        """Inpaints unknown pixels of images by prompts: in each step, known latents of z0 are those of the image.

        A latent is known if all of its pixels are.

        Args:
            x: images `(n, height, width, channels)`, in [-1, 1]; values of unknown pixels are ignored.
            mask: bool array that broadcasts to `x`: true for known pixels.
            prompts: a string for all images, or `n` strings; or what `encode_prompts` returned for them.
            sampler: as for `sample`.
            guidance: as for `sample`.
            negative_prompts: as for `sample`.
            seed: int or `None`. Defaults to `None`, a seed from the model's own generator.
            batch_size: as for `sample`.
            verbose: as for `sample`.

        Returns:
            float32 array `(n, height, width, channels)`, equal to `x` at known pixels.

        Raises:
            ValueError: as for `sample`, and if `mask` does not broadcast to `x`.

        Reference: Song et al. 2020, arXiv:2011.13456, appendix I.2.
        """
        x, mask = real_array("x", x), real_array("mask", mask)
        check(mask.dtype == bool, "mask", "be boolean", f"dtype {mask.dtype}")
        check_broadcast("mask", mask, x.shape)
        mask = np.broadcast_to(mask, x.shape)
        x = np.where(mask, x, np.zeros((), x.dtype))  # unknown pixels may be NaN
        z, options = self._edited(x, prompts, guidance, negative_prompts, batch_size, verbose)
        n, height, width, _ = z.shape
        cells = mask.reshape(n, height, self._factor, width, self._factor, -1)
        known = np.broadcast_to(cells.all(axis=(2, 4, 5))[..., None], z.shape)
        z = self.diffusion.inpaint(z, known, self._resolved(sampler), self.draw_seed(seed), **options)
        return np.where(mask, x, self.decode(z, batch_size)).astype("float32")

    def interpolate(
        self,
        x_a: Any,
        x_b: Any,
        prompts: str | Sequence[str],
        t0: Any,
        points: int = 9,
        sampler: DiffusionSampler | None = None,
        guidance: Guidance | None = None,
        negative_prompts: str | Sequence[str] | None = None,
        noise: Any = None,
        seed: int | None = None,
        batch_size: int | None = None,
        verbose: str | int = "auto",
    ) -> np.ndarray:
        """Interpolates between images: mixes their latents, adds the noise of time `t0`, and denoises.

        Args:
            x_a: images `(n, height, width, channels)`, in [-1, 1].
            x_b: images like `x_a`.
            prompts: a string for all pairs, or `n` strings; or what `encode_prompts` returned for them.
            t0: a time of the diffusion model's schedule; noisier times give freer results.
            points: int >= 2. Number of weights, from 0 to 1. Defaults to `9`.
            sampler: as for `sample`.
            guidance: as for `sample`.
            negative_prompts: as for `sample`.
            noise: `(n, *latent_shape)`, noise to add, the same for all points. Defaults to `None`, a draw.
            seed: int or `None`. Defaults to `None`, a seed from the model's own generator.
            batch_size: as for `sample`.
            verbose: as for `sample`.

        Returns:
            float32 array `(n, points, height, width, channels)`.

        Raises:
            ValueError: as for `sample`, and if `x_a` and `x_b` differ in shape or `points` is less than 2.

        Reference: https://kexue.fm/archives/9119; Ho et al. 2020, arXiv:2006.11239, section 4.3.
        """
        check_integer("points", points, at_least=2)
        z_a = self.encode(x_a, batch_size)
        prompts = repeated(self._prompts("prompts", prompts, len(z_a)), points)
        negatives = negative_prompts
        if negatives is not None:
            negatives = repeated(self._prompts("negative_prompts", negatives, len(z_a)), points)
        options = self._given(prompts, guidance, negatives, self._size_of(z_a), batch_size, verbose)
        options = {**options, "sampler": self._resolved(sampler)}
        z_b = self.encode(x_b, batch_size)
        z = self.diffusion.interpolate(z_a, z_b, t0, points, noise, self.draw_seed(seed), **options)
        return self.decode(z.reshape(-1, *z.shape[2:]), batch_size).reshape(len(z_a), points, *np.shape(x_a)[1:])

    def invert(
        self,
        x: Any,
        prompts: str | Sequence[str],
        sampler: DiffusionSampler | None = None,
        iterations: int = 3,
        guidance: Guidance | None = None,
        negative_prompts: str | Sequence[str] | None = None,
        batch_size: int | None = None,
        verbose: str | int = "auto",
    ) -> np.ndarray:
        """Finds the noise from which a deterministic sampler generates the latents of images.

        Args:
            x: images `(n, height, width, channels)`, in [-1, 1].
            prompts: a string for all images, or `n` strings; or what `encode_prompts` returned for them.
            sampler: a `DDIMSampler` with `eta=0`, or an `EulerSampler`. Defaults to `None`, the model's `sampler`.
            iterations: int >= 1, network evaluations for each step. Defaults to `3`.
            guidance: as for `sample`; a high scale makes the inversion less exact.
            negative_prompts: as for `sample`.
            batch_size: as for `sample`.
            verbose: as for `sample`.

        Returns:
            float32 array `(n, *latent_shape)`, the `noise` for `sample`.

        Raises:
            ValueError: as for `sample`, and if the sampler is not supported.

        Reference: Song et al. 2020, arXiv:2010.02502, section 4.3; https://kexue.fm/archives/9181.
        """
        z, options = self._edited(x, prompts, guidance, negative_prompts, batch_size, verbose)
        return self.diffusion.invert(z, self._resolved(sampler), iterations, **options)

    def check_data(self, x: Any, y: Any) -> None:
        self.diffusion.check_data(x, y)

    def save(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Saves the model, unless its encoders are released; see `keras.Model.save`."""
        self._check_whole()  # before there is half a file
        super().save(filepath, *args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        self._check_whole()
        own = {
            "diffusion": serialized(self.diffusion),
            "text_encoders": [serialized(encoder) for encoder in self.text_encoders],
            "tokenizers": [serialized(tokenizer) for tokenizer in self.tokenizers],
            "autoencoder": serialized(self.autoencoder),
            "sampler": serialized(self.sampler),
        }
        return {**super().get_config(), **own, "image_size": self.image_size, "origin": self.origin}

    @property
    def frozen_parts(self) -> list[keras.Layer]:
        return [*self.text_encoders, *([] if self.autoencoder is None else [self.autoencoder])]

    @property
    def _factor(self) -> int:
        """Height and width of the pixels of one latent."""
        return 1 if self.autoencoder is None else self.autoencoder.multiple

    @property
    def _scale(self) -> float:
        return getattr(self.autoencoder, "scaling_factor", 1.0)

    @property
    def _shift(self) -> float:
        return getattr(self.autoencoder, "shift_factor", 0.0)

    def _resolved(self, sampler: DiffusionSampler | None) -> DiffusionSampler:
        return self.diffusion.resolve(self.sampler if sampler is None else sampler)

    def _size_of(self, z: Any) -> tuple[int, int]:
        """Returns height and width, in pixels, of the images of latents `(n, height, width, channels)`."""
        height, width = np.shape(z)[1:3]
        return self._factor * height, self._factor * width

    def _size(self, height: Any, width: Any, default: Sequence[int] | None = None) -> tuple[int, int]:
        """Returns height and width of images in pixels, after checking them."""
        network, inputs = self.diffusion.network, inputs_of(self.diffusion.network)
        taken = inputs[0].shape[1:3] if inputs else self.diffusion.built_shape()[:2]
        fixed = [side and self._factor * side for side in taken]
        usual = default or self.image_size or fixed
        multiple = self._factor * getattr(network, "multiple", 1)
        rule = "be given: neither the model nor the network has an image size of its own"
        size = []
        for name, given, other, only in zip(("height", "width"), (height, width), usual, fixed, strict=True):
            side = check_integer(name, check_given(name, other if given is None else given, rule))
            check(side % multiple == 0, name, f"be a multiple of {multiple} for the autoencoder and the network", side)
            check(only in (None, side), name, f"be {only}, the only one that the network takes", side)
            size.append(side)
        return size[0], size[1]

    def _arguments(
        self,
        prompts: Any,
        guidance: Guidance | None,
        negative_prompts: Any,
        height: Any,
        width: Any,
        noise: Any,
        seed: Any,
        batch_size: int | None,
        verbose: str | int,
    ) -> dict[str, Any]:
        """Returns the arguments of the diffusion model's `sample` but for the sampler."""
        prompts = self._prompts("prompts", prompts)
        n = number_of(prompts)
        if noise is not None:
            noise = real_array("noise", noise)
            rule = f"have shape (n, height, width, channels), for {n} prompts"
            check(noise.ndim == 4 and len(noise) == n, "noise", rule, f"shape {noise.shape}")
        size = self._size(height, width, None if noise is None else self._size_of(noise))
        shape: tuple[Any, ...] = (n, *(side // self._factor for side in size), self.diffusion.built_shape()[-1])
        seed = self.draw_seeds(seed, n)
        if noise is None:
            noise = starting_noise(n, shape[1:], seed)
        check(noise.shape == shape, "noise", f"have shape {shape}", f"shape {noise.shape}")
        given = self._given(prompts, guidance, negative_prompts, size, batch_size, verbose)
        return {"n": n, "noise": noise, "seed": seed, **given}

    def _edited(
        self, x: Any, prompts: Any, guidance: Any, negative_prompts: Any, batch_size: int | None, verbose: str | int
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Returns the latents of images, and the further arguments of the diffusion model's methods."""
        x = as_images("x", x)
        check(x.ndim == 4, "x", "have shape (n, height, width, channels)", f"shape {x.shape}")
        size = self._size(*x.shape[1:3])
        prompts = self._prompts("prompts", prompts, len(x))
        options = self._given(prompts, guidance, negative_prompts, size, batch_size, verbose)
        return self.encode(x, batch_size), options

    def encoded(self, x: Any, y: Any, verbose: str | int) -> tuple[Any, Any]:
        x = as_images("x", x)
        captions = self._prompts("y", check_given("y", y, "be given: the captions"), len(x))
        (condition,) = self._conditions([captions], self._size(*x.shape[1:3]), None)
        return self.encode(x, verbose=verbose), condition


def diffusion_of(pipeline: Pipeline) -> DiffusionModel:
    """Returns the diffusion model of a pipeline that was read."""
    if pipeline.prediction == "velocity":
        return RectifiedFlow(pipeline.network, pipeline.schedule, LogitNormalTime())
    family = family_of(pipeline.network)
    options: dict[str, Any] = {}
    if isinstance(family, StableDiffusionXL) and pipeline.origin["index"].get(ZERO_NULL, True):
        null = family.zeros(pipeline.tokenizers[0].max_length)
        options = {"condition_dropout": DROPOUT, "null_condition": null}
    return DDPM(pipeline.network, pipeline.schedule, pipeline.prediction, pipeline.variance, **options)


def default_sampler(diffusion: DiffusionModel) -> DiffusionSampler:
    """Returns the sampler of a model that was given none."""
    return DDIMSampler(50) if isinstance(diffusion.schedule, DiscreteSchedule) else EulerSampler(28)


def _as_list(things: Any) -> list[Any]:
    return list(things) if isinstance(things, list | tuple) else [things]


def _checked_size(size: Any) -> tuple[int, int]:
    is_pair = isinstance(size, list | tuple) and len(size) == 2 and all(is_integer(side) and side >= 1 for side in size)
    check(is_pair, "image_size", "be two integers >= 1, height and width", size)
    return int(size[0]), int(size[1])
