import abc
from typing import Any

import numpy as np

from keras_gen.core.checks import check, check_integer
from keras_gen.core.generative_model import GenerativeModel
from keras_gen.core.random import starting_noise
from keras_gen.diffusion.samplers.base import DiffusionSampler
from keras_gen.diffusion.samplers.ddpm import DDPMSampler
from keras_gen.diffusion.samplers.guidance import Guidance
from keras_gen.diffusion.samplers.reverse_process import prepared_condition, reverse_process


class ImageGeneration(GenerativeModel):
    """What every diffusion model generates, once it says how it denoises and at which times."""

    @abc.abstractmethod
    def denoise(self, x_t: Any, row: dict[str, Any], condition: Any = None) -> tuple[Any, Any]:
        """Returns the network's x0 at the time of `row`, and its share of the large variance."""

    @abc.abstractmethod
    def prepare_images(self, name: str, images: Any) -> np.ndarray:
        """Returns images as a float32 array, after a check of their dtype, shape and values."""

    def default_sampler(self) -> DiffusionSampler:
        """Returns the sampler that is used if none is given."""
        return DDPMSampler()

    def resolve(self, sampler: DiffusionSampler | None) -> DiffusionSampler:
        """Returns the sampler, for `None` the model's own, after a check that it can sample the model."""
        sampler = self.default_sampler() if sampler is None else sampler
        check(isinstance(sampler, DiffusionSampler), "sampler", "be a DiffusionSampler or None", repr(sampler))
        sampler.check_model(self, sampler.times(self.schedule))
        return sampler

    def check_sampling(
        self,
        n: int,
        sampler: DiffusionSampler | None = None,
        condition: Any = None,
        guidance: Guidance | None = None,
        **options: Any,
    ) -> None:
        self.resolve(sampler)
        prepared_condition(self, guidance, condition, n)

    def sample(
        self,
        n: int,
        sampler: DiffusionSampler | None = None,
        condition: Any = None,
        guidance: Guidance | None = None,
        seed: int | None = None,
        noise: Any = None,
        step_noise: Any = None,
        batch_size: int = 64,
        verbose: str | int = "auto",
    ) -> np.ndarray:
        """Generates `n` images.

        Args:
            n: int >= 1. How many.
            sampler: a `DiffusionSampler`. Defaults to `None`, the model's own: `DDPMSampler()` for discrete time. For
                images, one with `clip_x0=1.0` is steadier.
            condition: for a network that takes one: an int, one label for all, or an array `(n, ...)`.
            guidance: a `Guidance`, such as `ClassifierFreeGuidance(2.0)`. Defaults to `None`.
            seed: int or `None`. The starting noise of image k depends on `seed` and k alone, on any backend and for
                any `batch_size`. Defaults to `None`, a draw from the model's own generator.
            noise: `(n, *image_shape)`, the starting noise to use instead of a standard normal draw. Where the
                schedule's sigma is above 1, it is multiplied by it.
            step_noise: `(steps, n, *image_shape)`, the noise to use at each step instead of draws; for a sampler that
                draws several times in a step `(steps, draws, n, *image_shape)`.
            batch_size: int >= 1. How many images are worked on together. Defaults to `64`.
            verbose: `"auto"`, 0 or 1: whether to show progress. Defaults to `"auto"`, which is 1.

        Returns:
            float32 array `(n, *image_shape)`.

        Raises:
            ValueError: if an argument does not fit the model, or the sampler has more steps than the schedule.
        """
        options = {
            "condition": condition,
            "guidance": guidance,
            "step_noise": step_noise,
            "batch_size": batch_size,
            "verbose": verbose,
        }
        _, path = self._generate(n, sampler, noise, seed, **options)
        return path[-1]

    def denoising_path(
        self, n: int, frames: int = 8, sampler: DiffusionSampler | None = None, noise: Any = None, **options: Any
    ) -> np.ndarray:
        """Generates `n` images and returns them on their way from noise, at `frames` evenly spaced steps.

        Args:
            n: int >= 1. How many.
            frames: int >= 1. How many states after the noise, the last of them the finished image. Defaults to `8`.
            sampler: as for `sample`.
            noise: as for `sample`.
            **options: `condition`, `guidance`, `seed`, `step_noise`, `batch_size`, `verbose`, as for `sample`.

        Returns:
            float32 array `(frames + 1, n, *image_shape)`; the first entry is the starting noise.

        Raises:
            ValueError: as `sample` does, and if there are more frames than steps.
        """
        check_integer("frames", frames)
        x_T, path = self._generate(n, sampler, noise, options.pop("seed", None), frames=frames, **options)
        return np.concatenate([x_T[None], path])

    def denoise_from(self, x_t: Any, t: Any, sampler: DiffusionSampler | None = None, **options: Any) -> np.ndarray:
        """Runs the reverse process from time `t` on: first to the sampler's next time below `t`, then along its times.

        Args:
            x_t: `(n, *image_shape)`, images noised to time `t`.
            t: a time of the schedule: an int in 0 .. T - 1, or in continuous time a number from t_min to t_max.
            sampler: as for `sample`.
            **options: `condition`, `guidance`, `seed`, `step_noise` (for the steps that are left), `batch_size`,
                `verbose`, as for `sample`.

        Returns:
            float32 array `(n, *image_shape)`.

        Raises:
            ValueError: as `sample` does, and if `t` is no time of the schedule or `x_t` no batch of images.
        """
        self.schedule.check_time("t", t)
        sampler = self.resolve(sampler)
        seed = self.draw_seed(options.pop("seed", None))
        x_t = self.prepare_images("x_t", x_t)
        times = sampler.times(self.schedule)
        return reverse_process(self, sampler, x_t, np.append(t, times[times < t]), seed=seed, **options)[-1]

    def noise_scale(self, times: np.ndarray) -> float:
        """Returns the deviation of the noise at `times[0]` where that is above 1, as of VE and EDM; else 1."""
        return max(1.0, float(self.schedule.sigma(times[0])))

    def _generate(
        self, n: int, sampler: DiffusionSampler | None, noise: Any, seed: int | None, **options: Any
    ) -> tuple[np.ndarray, np.ndarray]:
        check_integer("n", n)
        sampler = self.resolve(sampler)
        seed = self.draw_seed(seed)
        times = sampler.times(self.schedule)
        x_T = self._starting_noise(n, noise, seed) * np.float32(self.noise_scale(times))
        return x_T, reverse_process(self, sampler, x_T, times, seed=seed, **options)

    def _starting_noise(self, n: int, noise: Any, seed: int) -> np.ndarray:
        if noise is not None:
            noise = np.asarray(noise, "float32")
            check(noise.shape[:1] == (n,), "noise", f"hold {n} draws", f"shape {noise.shape}")
            return self.prepare_images("noise", noise)
        built = self.image_shape is not None and None not in self.image_shape
        check(built, "noise", "be given until the model has seen the size of an image, in `fit` or `build`", noise)
        return starting_noise(n, self.image_shape, seed)
