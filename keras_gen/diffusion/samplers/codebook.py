"""DDCM: diffusion with noise from a codebook, which represents images by a few indices."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_gen.core.checks import check, check_integer, on_host
from keras_gen.core.compiled import as_tensor, sequential_loop
from keras_gen.core.configured import key_of
from keras_gen.core.devices.products import precise_product
from keras_gen.diffusion.samplers.base import Denoiser, DiffusionSampler, coefficient_table, has_step_of, row_of
from keras_gen.diffusion.samplers.ddim import DDIMSampler
from keras_gen.diffusion.samplers.ddpm import DDPMSampler
from keras_gen.export import keras_gen_export

MEGABYTES = 64  # of codebook entries in memory at a time


class Codebook:
    """Codebook of standard normal entries c[t, k] of image shape, generated from a seed.

    Args:
        size: int, number of entries for each step.
        shape: shape of an image.
        seed: int >= 0.
    """

    def __init__(self, size: int, shape: Sequence[int], seed: int):
        self.size, self.shape, self.seed = size, tuple(shape), seed
        self.steps_at_once = max(1, int(MEGABYTES * 2**20 / (4 * size * np.prod(self.shape))))

    def entries(self, step: int) -> np.ndarray:
        """Returns the entries of one step, float32 `(size, *shape)`; they depend only on seed and step."""
        generator = np.random.default_rng([self.seed, step])
        return generator.standard_normal((self.size, *self.shape), dtype="float32")

    def chunk(self, start: int, stop: int, length: int) -> np.ndarray:
        """Returns the entries of steps `start` .. `stop - 1`, zero-padded to `(length, size, *shape)`."""
        result = np.zeros((length, self.size, *self.shape), "float32")
        for step in range(start, stop):
            result[step - start] = self.entries(step)
        return result


@keras_gen_export("keras_gen.samplers.CodebookDiffusion")
class CodebookDiffusion:
    """Denoising diffusion codebook model (DDCM): samples with noise from a codebook, and compresses images.

        x_s = step(x_t) with eps = c[t, k_t],   c[t, k] ~ N(0, I),   t over all steps,   k = 0 .. K - 1

    Random indices k_t give samples as good as fresh noise. An image x0 is encoded by the indices that lead to it:

        k_t = argmax_k <c[t, k], x0 - x0_hat(x_t)>,   and first, for x_T,   argmax_k <c[T, k], x0>

    The codebook is never stored: its entries depend only on `seed`, step and k, on any backend.

    Args:
        model: a trained diffusion model.
        sampler: a `DDPMSampler`, or a `DDIMSampler` with `eta > 0`. Defaults to `None`, which is `DDPMSampler()`.
        codebook_size: int >= 2, `K`. Defaults to `64`.
        seed: int >= 0, of the codebook. Defaults to `0`.

    Attributes:
        bits_per_image: float, `steps log2(K)`.

    Raises:
        ValueError: if an argument is outside its range, or the sampler is not supported.

    Example:

    >>> codec = keras_gen.samplers.CodebookDiffusion(model, keras_gen.samplers.DDPMSampler(100), codebook_size=64)
    >>> indices = codec.encode(images)        # int32 (n, 100): 600 bits for each image
    >>> again = codec.decode(indices)         # float32, like images

    Reference: https://kexue.fm/archives/10711; Ohayon et al. 2025, arXiv:2502.01189.
    """

    def __init__(self, model: Any, sampler: DiffusionSampler | None = None, codebook_size: int = 64, seed: int = 0):
        sampler = DDPMSampler() if sampler is None else sampler
        self.model, self.sampler = model, model.resolve(sampler)
        self.times = sampler.times(model.schedule)
        is_single = has_step_of(sampler, DDPMSampler) or has_step_of(sampler, DDIMSampler)  # one evaluation per step
        check(
            is_single and getattr(sampler, "eta", 1) > 0,
            "sampler",
            "be a DDPMSampler, or a DDIMSampler with eta > 0",
            repr(sampler),
        )
        self.codebook_size = check_integer("codebook_size", codebook_size, at_least=2)
        self.seed = check_integer("seed", seed, at_least=0)
        self.steps = len(self.times) - 1
        self.bits_per_image = self.steps * math.log2(self.codebook_size)

    def encode(self, x: Any, condition: Any = None, batch_size: int = 64, verbose: str | int = "auto") -> np.ndarray:
        """Encodes images as codebook indices.

        Args:
            x: `(n, *image_shape)`, images.
            condition: as for `sample` of the model.
            batch_size: int >= 1. Number of images processed at a time. Defaults to `64`.
            verbose: `"auto"` (a bar in a terminal), 0 (silent), 1 (a bar) or 2 (a line). Defaults to `"auto"`.

        Returns:
            int32 array `(n, steps)` of indices below K: the first for x_T, then one for each step but the last.

        Raises:
            ValueError: if an argument is incompatible with the model.
        """
        x = self.model.prepare_images("x", x)
        indices, _ = self._run(np.zeros((len(x), self.steps), "int32"), condition, batch_size, verbose, images=x)
        return indices

    def decode(
        self, indices: Any, condition: Any = None, batch_size: int = 64, verbose: str | int = "auto"
    ) -> np.ndarray:
        """Decodes indices to images.

        Args:
            indices: `(n, steps)`, as returned by `encode`.
            condition: the condition that was passed to `encode`. Defaults to `None`.
            batch_size: as for `encode`. Defaults to `64`.
            verbose: as for `encode`. Defaults to `"auto"`.

        Returns:
            float32 array `(n, *image_shape)`.

        Raises:
            ValueError: if `indices` have a wrong shape or values outside 0 .. K - 1.
        """
        indices = np.asarray(on_host(indices))
        is_table = indices.ndim == 2 and len(indices) > 0 and indices.shape[1] == self.steps
        rule = f"be integers of shape (n, {self.steps})"
        check(is_table and indices.dtype.kind in "iu", "indices", rule, f"{indices.dtype} of shape {indices.shape}")
        outside = np.unique(indices[(indices < 0) | (indices >= self.codebook_size)])
        check(outside.size == 0, "indices", f"be in 0 .. {self.codebook_size - 1}", outside)
        _, images = self._run(indices.astype("int32"), condition, batch_size, verbose)
        return images

    def sample(
        self,
        n: int,
        condition: Any = None,
        seed: int | None = None,
        batch_size: int = 64,
        verbose: str | int = "auto",
    ) -> np.ndarray:
        """Generates `n` images from random indices.

        Args:
            n: int >= 1. Number of images.
            condition: as for `encode`.
            seed: int or `None`, seed of the indices. Defaults to `None`, a seed from the model's own generator.
            batch_size: as for `encode`. Defaults to `64`.
            verbose: as for `encode`. Defaults to `"auto"`.

        Returns:
            float32 array `(n, *image_shape)`.

        Raises:
            ValueError: if an argument is incompatible with the model.
        """
        generator = np.random.default_rng(self.model.draw_seed(seed))
        indices = generator.integers(0, self.codebook_size, (check_integer("n", n), self.steps))
        return self.decode(indices, condition, batch_size, verbose)

    def _run(
        self,
        indices: np.ndarray,
        condition: Any,
        batch_size: int,
        verbose: str | int,
        images: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Encodes images or, without any, decodes indices; returns indices, which it fills, and images."""
        self.model.check_built()
        book = Codebook(self.codebook_size, self.model.image_shape, self.seed)
        first = book.entries(self.steps)
        n, encode = len(indices), images is not None
        if images is not None:
            axes = tuple(range(1, images.ndim))
            indices[:, 0] = np.argmax(np.tensordot(images, first, (axes, axes)), axis=1)
        x_T = np.float32(self.sampler.noise_scale(self.model.schedule, self.times)) * first[indices[:, 0]]
        # `chosen[:, t]` is the index of step t's noise; the last step has none.
        arrays = {"x_T": x_T, "chosen": np.append(indices[:, 1:], np.zeros((n, 1), "int32"), axis=1)}
        arrays |= {"x0": images, "condition": self.model.prepare_condition(condition, n)}
        chunk = min(book.steps_at_once, self.steps)
        states = self.model.run_steps(
            ("codebook", key_of(self.sampler), encode, chunk, first.shape),
            functools.partial(self._steps, encode),
            arrays,
            lambda inputs: (inputs["x_T"], inputs["chosen"]),
            steps=self.steps,
            batch_size=batch_size,
            verbose=verbose,
            shared={"rows": coefficient_table(self.model, self.sampler.rows(self.model.schedule, self.times))},
            stops=[*range(chunk, self.steps, chunk), self.steps],
            part=lambda start, stop: {
                "entries": as_tensor(book.chunk(start, stop, chunk)),
                "start": ops.convert_to_tensor(start, "int32"),
            },
        )
        decoded = np.empty((n, *self.model.image_shape), "float32")
        for rows, stop, (x, chosen) in states:
            if stop == self.steps:
                indices[rows, 1:] = chosen[:, :-1]
                decoded[rows] = x
        return indices, decoded

    def _steps(self, encode: bool, inputs: dict[str, Any], state: Any, first: Any, last: Any) -> tuple[Any, Any]:
        """Performs the steps of one chunk, whose codebooks fit into memory; when encoding, chooses the indices."""
        denoise = Denoiser(self.model, inputs.get("condition"), clip_x0=self.sampler.clip_x0)

        def body(i: Any, state: tuple[Any, Any]) -> tuple[Any, Any]:
            x_t, chosen = state
            row = row_of(inputs["rows"], i)
            codes = ops.reshape(inputs["entries"][i - inputs["start"]], (self.codebook_size, -1))
            is_step = ops.arange(self.steps, dtype="int32") == i
            index = ops.sum(ops.where(is_step, chosen, 0), axis=1)
            denoised = denoise(x_t, row)
            if encode:
                residual = ops.reshape(inputs["x0"] - denoised[0], (-1, codes.shape[1]))
                index = ops.cast(ops.argmax(precise_product(residual, ops.transpose(codes)), axis=1), "int32")
            noise = ops.reshape(ops.take(codes, index, axis=0), ops.shape(x_t))
            x_s = self.sampler.step(lambda *_: denoised, x_t, row, lambda: noise)
            return x_s, ops.where(is_step, ops.expand_dims(index, 1), chosen)

        return sequential_loop(first, last, body, state)
