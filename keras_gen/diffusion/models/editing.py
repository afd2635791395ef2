from typing import Any

import numpy as np

from keras_gen.core.checks import check, check_fraction, check_integer
from keras_gen.core.random import starting_noise
from keras_gen.diffusion.models.generation import ImageGeneration
from keras_gen.diffusion.samplers.base import DiffusionSampler
from keras_gen.diffusion.samplers.inversion import DDIMInversion
from keras_gen.diffusion.samplers.reverse_process import reverse_process


class ImageEditing(ImageGeneration):
    """What a diffusion model does with given images: noise them, change them, fill them in, find their noise."""

    def add_noise(self, x0: Any, t: Any, noise: Any = None, seed: int | None = None) -> np.ndarray:
        """Returns `x_t = alpha_t x0 + sigma_t eps`.

        Args:
            x0: `(n, *image_shape)`, images.
            t: a time of the schedule, as for `denoise_from`, or an array of `n` times.
            noise: `(n, *image_shape)`, eps. Defaults to `None`, a draw.
            seed: as for `sample`.

        Returns:
            float32 array `(n, *image_shape)`.

        Raises:
            ValueError: if `t` holds no times of the schedule, or `x0` is no batch of images.
        """
        x0 = self.prepare_images("x0", x0)
        rule = f"be one time, or one for each of {len(x0)} images"
        check(np.shape(t) in ((), (len(x0),)), "t", rule, f"shape {np.shape(t)}")
        for time in np.atleast_1d(t):
            self.schedule.check_time("t", time)
        eps = self._starting_noise(len(x0), noise, self.draw_seed(seed))
        t = np.reshape(t, (-1, *[1] * (x0.ndim - 1)))
        return (self.schedule.alpha(t) * x0 + self.schedule.sigma(t) * eps).astype("float32")

    def interpolate(
        self, x_a: Any, x_b: Any, t0: Any, points: int = 9, noise: Any = None, seed: int | None = None, **options: Any
    ) -> np.ndarray:
        """Interpolates by noising and denoising: mixes two images, adds the noise of time `t0`, and denoises.

            x_t0 = alpha_t0 ((1 - w) x_a + w x_b) + sigma_t0 eps,   one eps for all w of a pair

        Args:
            x_a: `(n, *image_shape)`, images at `w = 0`.
            x_b: `(n, *image_shape)`, images at `w = 1`.
            t0: a time of the schedule; the noisier, the freer the result. The post has 500 of 1000.
            points: int >= 2. Number of weights, from 0 to 1. Defaults to `9`.
            noise: `(n, *image_shape)`, eps. Defaults to `None`, a draw.
            seed: as for `sample`.
            **options: `sampler`, `condition` (one label, or `(n * points, ...)`), `guidance`, `step_noise`,
                `batch_size`, `verbose`, as for `denoise_from`.

        Returns:
            float32 array `(n, points, *image_shape)`.

        Raises:
            ValueError: as `denoise_from` does, and if `x_a` and `x_b` differ in shape or `points` is less than 2.

        Reference: https://kexue.fm/archives/9119; Ho et al. 2020, arXiv:2006.11239, section 4.3.
        """
        check_integer("points", points, at_least=2)
        self.schedule.check_time("t0", t0)
        x_a, x_b = self.prepare_images("x_a", x_a), self.prepare_images("x_b", x_b)
        check(x_a.shape == x_b.shape, "x_b", f"have the shape of x_a, {x_a.shape}", f"shape {x_b.shape}")
        seed = self.draw_seed(seed)
        eps = self._starting_noise(len(x_a), noise, seed)
        w = np.linspace(0, 1, points, dtype="float32").reshape(1, points, *[1] * (x_a.ndim - 1))
        mixed = (1 - w) * x_a[:, None] + w * x_b[:, None]
        x_t0 = self.schedule.alpha(t0) * mixed + self.schedule.sigma(t0) * eps[:, None]
        images = self.denoise_from(x_t0.reshape(-1, *x_a.shape[1:]), t0, seed=seed, **options)
        return images.reshape(x_t0.shape)

    def image_to_image(
        self,
        x: Any,
        strength: float = 0.5,
        sampler: DiffusionSampler | None = None,
        noise: Any = None,
        seed: int | None = None,
        **options: Any,
    ) -> np.ndarray:
        """Varies images: adds noise, and takes it away by the last steps of the sampler.

        Args:
            x: `(n, *image_shape)`, images.
            strength: float in (0, 1], the share of the sampler's steps that are taken. Defaults to `0.5`.
            sampler: as for `sample`.
            noise: as for `add_noise`.
            seed: as for `sample`.
            **options: `condition`, `guidance`, `step_noise`, `batch_size`, `verbose`, as for `denoise_from`.

        Returns:
            float32 array `(n, *image_shape)`.

        Raises:
            ValueError: as `denoise_from` does, and if `strength` is outside (0, 1].

        Reference: Meng et al. 2021, arXiv:2108.01073.
        """
        check(check_fraction("strength", strength, closed=True) > 0, "strength", "be > 0", strength)
        sampler, seed = self.resolve(sampler), self.draw_seed(seed)
        times = sampler.times(self.schedule)
        t = times[len(times) - 1 - max(1, round(strength * (len(times) - 1)))]
        return self.denoise_from(self.add_noise(x, t, noise, seed), t, sampler, seed=seed, **options)

    def inpaint(
        self, x: Any, mask: Any, sampler: DiffusionSampler | None = None, seed: int | None = None, **options: Any
    ) -> np.ndarray:
        """Fills in images where they are not known: x0 is replaced by the image where it is.

        Args:
            x: `(n, *image_shape)`, images; what they hold where they are not known does not matter.
            mask: bool array that broadcasts to `x`: true where the image is known.
            sampler: as for `sample`.
            seed: as for `sample`.
            **options: `condition`, `guidance`, `step_noise`, `batch_size`, `verbose`, as for `sample`.

        Returns:
            float32 array `(n, *image_shape)`, equal to `x` where it is known.

        Raises:
            ValueError: as `sample` does, and if `mask` does not broadcast to `x`.

        Reference: Song et al. 2020, arXiv:2011.13456, appendix I.2; Lugmayr et al. 2022, arXiv:2201.09865.
        """
        x = self.prepare_images("x", np.nan_to_num(np.asarray(x)))
        mask = np.asarray(mask)
        check(mask.dtype == bool, "mask", "be boolean", f"dtype {mask.dtype}")
        sizes = zip(mask.shape[::-1], x.shape[::-1], strict=False)
        fits = mask.ndim <= x.ndim and all(size in (1, whole) for size, whole in sizes)
        check(fits, "mask", f"broadcast to {x.shape}", f"shape {mask.shape}")
        mask = np.broadcast_to(mask, x.shape)
        sampler, seed = self.resolve(sampler), self.draw_seed(seed)
        times = sampler.times(self.schedule)
        eps = starting_noise(len(x), x.shape[1:], seed)
        start = np.float32(self.noise_scale(times)) * eps
        x_T = np.where(mask, self.schedule.alpha(times[0]) * x + self.schedule.sigma(times[0]) * eps, start)
        known = np.where(mask, x, 0), mask
        images = reverse_process(self, sampler, x_T.astype("float32"), times, seed=seed, known=known, **options)[-1]
        return np.where(mask, x, images)  # the last step may round, or add noise

    def invert(
        self, x: Any, sampler: DiffusionSampler, iterations: int = 3, seed: int | None = None, **options: Any
    ) -> np.ndarray:
        """Finds the noise from which a deterministic sampler makes given images.

        Each step of the sampler is undone by fixed-point iteration, so that `sample(n, sampler, noise=noise)` gives the
        images back, as far as the iteration has converged: more steps help more than more iterations. A step from next
        to no signal, such as the first one of "trailing", multiplies every error: "leading" leaves it out.

        Args:
            x: `(n, *image_shape)`, images.
            sampler: a `DDIMSampler` with `eta=0`, or an `EulerSampler`.
            iterations: int >= 1, network evaluations for each step. Defaults to `3`.
            seed: not used: nothing is drawn. Defaults to `None`.
            **options: `condition`, `guidance`, `batch_size`, `verbose`, as for `sample`.

        Returns:
            float32 array `(n, *image_shape)`, the `noise` for `sample`.

        Raises:
            ValueError: if the sampler is another one, or an argument does not fit the model.

        Reference: Song et al. 2020, arXiv:2010.02502, section 4.3; https://kexue.fm/archives/9181.
        """
        inversion = DDIMInversion(sampler, iterations)
        times = inversion.times(self.schedule)
        noisy = reverse_process(self, inversion, self.prepare_images("x", x), times, seed=0, **options)[-1]
        return noisy / np.float32(self.noise_scale(times[::-1]))
