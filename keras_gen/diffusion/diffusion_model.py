import abc
from typing import Any

import keras
import numpy as np

from keras_gen.core.checks import batch_of, check, check_integer, is_integer
from keras_gen.core.generative_model import GenerativeModel
from keras_gen.core.images import as_images, check_images_dtype
from keras_gen.core.noise import starting_noise
from keras_gen.diffusion.denoising_network import (
    check_network,
    fits,
    inputs_of,
    prepare_condition,
    takes_condition,
)
from keras_gen.diffusion.diffusion_sampler import DiffusionSampler
from keras_gen.diffusion.discrete_schedule import DiscreteSchedule
from keras_gen.diffusion.reverse_process import resolve_sampler, reverse_process


class DiffusionModel(GenerativeModel):
    """Base class of diffusion models: the data they accept, and sampling by any `DiffusionSampler`.

    To write another: define `compute_loss`, `denoise`, and `get_config` for the arguments of its own.
    What it asks of the network is said in `denoising_network.py`.
    """

    def __init__(
        self,
        network: keras.Layer,
        schedule: DiscreteSchedule,
        outputs_per_channel: int = 1,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(seed=seed, **kwargs)
        check(isinstance(network, keras.Layer), "network", "be a keras.Layer or keras.Model", network)
        check(isinstance(schedule, DiscreteSchedule), "schedule", "be a DiscreteSchedule", schedule)
        self.network = network
        self.schedule = schedule
        self.outputs_per_channel = outputs_per_channel
        self.image_shape: tuple[int | None, ...] | None = None
        known = getattr(network, "num_steps", schedule.num_steps)
        check(known >= schedule.num_steps, "network", f"know {schedule.num_steps} times", f"num_steps={known}")
        inputs = inputs_of(network)
        if inputs and None not in inputs[0].shape[1:]:
            self.build(inputs[0].shape)

    @abc.abstractmethod
    def denoise(self, x_t: Any, row: dict[str, Any], condition: Any = None) -> tuple[Any, Any]:
        """Returns the network's x0 at the time of `row`, and its share of the large variance."""

    def build(self, input_shape: Any) -> None:
        image_shape = tuple(input_shape[1:])
        check(len(image_shape) > 0, "x", "have shape (batch, ...)", tuple(input_shape))
        check_network(self.network, image_shape, self.outputs_per_channel)
        self.image_shape = image_shape

    def call(self, x: Any) -> Any:
        # Training and sampling are the model's work; Keras calls this before `compute_loss`, so it costs nothing.
        return x

    def check_data(self, x: Any, y: Any) -> None:
        if not hasattr(x, "shape") or not hasattr(x, "dtype"):
            return  # a dataset or generator: its shapes are checked when Keras builds the model on its first batch
        self.prepare_images("x", x)
        prepare_condition(self.network, y, len(x), name="y")

    def check_batch(self, x: Any, y: Any) -> None:
        """Refuses what can be seen of a batch while it is traced: dtypes, and whether there are labels."""
        check_images_dtype("x", x)
        takes = takes_condition(self.network)
        check(takes or y is None, "y", "be None: the network takes no condition", "a value")
        check(not takes or y is not None, "y", "be given: the network takes a condition", None)

    def check_sampling(
        self, n: int, sampler: DiffusionSampler | None = None, condition: Any = None, **options: Any
    ) -> None:
        resolve_sampler(sampler).times(self.schedule)
        prepare_condition(self.network, condition, n)

    def prepare_images(self, name: str, images: Any) -> np.ndarray:
        """Returns images as a float32 array, after a check of their dtype, shape and values."""
        images = as_images(name, images)
        if not self.built:
            self.build((None, *images.shape[1:]))
        expected = inputs_of(self.network)[0].shape[1:] if inputs_of(self.network) else self.image_shape
        shape = batch_of(expected)
        check(fits(expected, images.shape[1:]), name, f"have shape {shape}", f"shape {images.shape}")
        if None in self.image_shape:
            self.image_shape = images.shape[1:]
        return images

    def sample(
        self,
        n: int,
        sampler: DiffusionSampler | None = None,
        condition: Any = None,
        seed: int | None = None,
        noise: Any = None,
        step_noise: Any = None,
        batch_size: int = 64,
        verbose: str | int = "auto",
    ) -> np.ndarray:
        """Generates `n` images.

        Args:
            n: int >= 1. How many.
            sampler: a `DiffusionSampler`. Defaults to `None`, which is `DDPMSampler()`. For images, one with
                `clip_x0=1.0` is steadier.
            condition: for a network that takes one: an int, one label for all, or an array `(n, ...)`.
            seed: int or `None`. The starting noise of image k depends on `seed` and k alone, on any backend and for
                any `batch_size`. Defaults to `None`, a draw from the model's own generator.
            noise: `(n, *image_shape)`, the starting noise to use instead of a draw.
            step_noise: `(steps, n, *image_shape)`, the noise to use at each step instead of draws.
            batch_size: int >= 1. How many images are worked on together. Defaults to `64`.
            verbose: `"auto"`, 0 or 1: whether to show progress. Defaults to `"auto"`, which is 1.

        Returns:
            float32 array `(n, *image_shape)`.

        Raises:
            ValueError: if an argument does not fit the model, or the sampler has more steps than the schedule.
        """
        options = {"condition": condition, "step_noise": step_noise, "batch_size": batch_size, "verbose": verbose}
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
            **options: `condition`, `seed`, `step_noise`, `batch_size`, `verbose`, as for `sample`.

        Returns:
            float32 array `(frames + 1, n, *image_shape)`; the first entry is the starting noise.

        Raises:
            ValueError: as `sample` does, and if there are more frames than steps.
        """
        check_integer("frames", frames)
        x_T, path = self._generate(n, sampler, noise, options.pop("seed", None), frames=frames, **options)
        return np.concatenate([x_T[None], path])

    def denoise_from(self, x_t: Any, t: int, sampler: DiffusionSampler | None = None, **options: Any) -> np.ndarray:
        """Runs the reverse process from time `t` on: first to the sampler's next time below `t`, then along its times.

        Args:
            x_t: `(n, *image_shape)`, images noised to time `t`.
            t: int in 0 .. T - 1.
            sampler: as for `sample`.
            **options: `condition`, `seed`, `step_noise` (for the steps that are left), `batch_size`, `verbose`, as for
                `sample`.

        Returns:
            float32 array `(n, *image_shape)`.

        Raises:
            ValueError: as `sample` does, and if `t` is no time of the schedule or `x_t` no batch of images.
        """
        self._check_time("t", t)
        sampler = resolve_sampler(sampler)
        seed = self.draw_seed(options.pop("seed", None))
        x_t = self.prepare_images("x_t", x_t)
        times = sampler.times(self.schedule)
        return reverse_process(self, sampler, x_t, np.append(t, times[times < t]), seed=seed, **options)[-1]

    def interpolate(
        self, x_a: Any, x_b: Any, t0: int, points: int = 9, noise: Any = None, seed: int | None = None, **options: Any
    ) -> np.ndarray:
        """Interpolates by noising and denoising: mixes two images, adds the noise of time `t0`, and denoises.

            x_t0 = alpha_t0 ((1 - w) x_a + w x_b) + sigma_t0 eps,   one eps for all w of a pair

        Args:
            x_a: `(n, *image_shape)`, images at `w = 0`.
            x_b: `(n, *image_shape)`, images at `w = 1`.
            t0: int in 0 .. T - 1; the greater, the freer the result. The post has 500 of 1000.
            points: int >= 2. Number of weights, from 0 to 1. Defaults to `9`.
            noise: `(n, *image_shape)`, eps. Defaults to `None`, a draw.
            seed: as for `sample`.
            **options: `sampler`, `condition` (one label, or `(n * points, ...)`), `step_noise`, `batch_size`,
                `verbose`, as for `denoise_from`.

        Returns:
            float32 array `(n, points, *image_shape)`.

        Raises:
            ValueError: as `denoise_from` does, and if `x_a` and `x_b` differ in shape or `points` is less than 2.

        Reference: https://kexue.fm/archives/9119; Ho et al. 2020, arXiv:2006.11239, section 4.3.
        """
        check_integer("points", points, at_least=2)
        self._check_time("t0", t0)
        x_a, x_b = self.prepare_images("x_a", x_a), self.prepare_images("x_b", x_b)
        check(x_a.shape == x_b.shape, "x_b", f"have the shape of x_a, {x_a.shape}", f"shape {x_b.shape}")
        seed = self.draw_seed(seed)
        eps = self._starting_noise(len(x_a), noise, seed)
        w = np.linspace(0, 1, points, dtype="float32").reshape(1, points, *[1] * (x_a.ndim - 1))
        mixed = (1 - w) * x_a[:, None] + w * x_b[:, None]
        x_t0 = self.schedule.alpha(t0) * mixed + self.schedule.sigma(t0) * eps[:, None]
        images = self.denoise_from(x_t0.reshape(-1, *x_a.shape[1:]), t0, seed=seed, **options)
        return images.reshape(x_t0.shape)

    def get_config(self) -> dict[str, Any]:
        network = keras.saving.serialize_keras_object(self.network)
        return {
            **super().get_config(),
            "network": network,
            "schedule": keras.saving.serialize_keras_object(self.schedule),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "DiffusionModel":
        return cls(**keras.saving.deserialize_keras_object(config, custom_objects=custom_objects))

    def _generate(
        self, n: int, sampler: DiffusionSampler | None, noise: Any, seed: int | None, **options: Any
    ) -> tuple[np.ndarray, np.ndarray]:
        check_integer("n", n)
        sampler = resolve_sampler(sampler)
        seed = self.draw_seed(seed)
        x_T = self._starting_noise(n, noise, seed)
        return x_T, reverse_process(self, sampler, x_T, sampler.times(self.schedule), seed=seed, **options)

    def _starting_noise(self, n: int, noise: Any, seed: int) -> np.ndarray:
        if noise is not None:
            noise = np.asarray(noise, "float32")
            check(noise.shape[:1] == (n,), "noise", f"hold {n} draws", f"shape {noise.shape}")
            return self.prepare_images("noise", noise)
        built = self.image_shape is not None and None not in self.image_shape
        check(built, "noise", "be given until the model has seen the size of an image, in `fit` or `build`", noise)
        return starting_noise(n, self.image_shape, seed)

    def _check_time(self, name: str, t: Any) -> None:
        valid = is_integer(t) and 0 <= t < self.schedule.num_steps
        check(valid, name, f"be an integer in 0 .. {self.schedule.num_steps - 1}", t)
