"""Image editing: adding noise, image-to-image, interpolation, inpainting, inversion.

    add_noise       x_t = alpha_t x0 + sigma_t eps
    image_to_image  noise of an intermediate time, and the reverse process from there
    interpolate     the same for a mixture of two images
    inpaint         the reverse process, with known pixels of x0 replaced by those of the image
    invert          a deterministic sampler run backwards, from an image to its noise

The functions implement methods of `DiffusionModel`, where their arguments are documented.
"""

from typing import Any

import numpy as np

from keras_gen.core.arrays import straight_paths
from keras_gen.core.checks import check, check_fraction, check_integer, real_array
from keras_gen.core.random import check_seed, starting_noise
from keras_gen.diffusion.samplers.base import DiffusionSampler, reverse_process
from keras_gen.diffusion.samplers.inversion import DDIMInversion


def add_noise(model: Any, x0: Any, t: Any, noise: Any, seed: int | None) -> np.ndarray:
    """See `DiffusionModel.add_noise`."""
    x0 = model.prepare_images("x0", x0)
    rule = f"be one time, or one for each of {len(x0)} images"
    check(np.shape(t) in ((), (len(x0),)), "t", rule, f"shape {np.shape(t)}")
    for time in np.atleast_1d(t):
        model.schedule.check_time("t", time)
    eps = model.prepare_noise(len(x0), noise, model.draw_seed(seed))
    t = np.reshape(t, (-1, *[1] * (x0.ndim - 1)))
    return (model.schedule.alpha(t) * x0 + model.schedule.sigma(t) * eps).astype("float32")


def interpolate(
    model: Any, x_a: Any, x_b: Any, t0: Any, points: int, noise: Any, seed: int | None, **options: Any
) -> np.ndarray:
    """See `DiffusionModel.interpolate`."""
    check_integer("points", points, at_least=2)
    model.schedule.check_time("t0", t0)
    x_a, x_b = model.prepare_images("x_a", x_a), model.prepare_images("x_b", x_b)
    check(x_a.shape == x_b.shape, "x_b", f"have the shape of x_a, {x_a.shape}", f"shape {x_b.shape}")
    seed = model.draw_seed(seed)
    eps = model.prepare_noise(len(x_a), noise, seed)
    x_t0 = model.schedule.alpha(t0) * straight_paths(x_a, x_b, points) + model.schedule.sigma(t0) * eps[:, None]
    images = model.denoise_from(x_t0.reshape(-1, *x_a.shape[1:]), t0, seed=seed, **options)
    return images.reshape(x_t0.shape)


def image_to_image(
    model: Any,
    x: Any,
    strength: float,
    sampler: DiffusionSampler | None,
    noise: Any,
    seed: int | None,
    **options: Any,
) -> np.ndarray:
    """See `DiffusionModel.image_to_image`."""
    check(check_fraction("strength", strength, closed=True) > 0, "strength", "be > 0", strength)
    sampler, seed = model.resolve(sampler), model.draw_seed(seed)
    times = sampler.times(model.schedule)
    t = times[len(times) - 1 - max(1, round(strength * (len(times) - 1)))]
    return model.denoise_from(model.add_noise(x, t, noise, seed), t, sampler, seed=seed, **options)


def inpaint(
    model: Any, x: Any, mask: Any, sampler: DiffusionSampler | None, seed: int | None, **options: Any
) -> np.ndarray:
    """See `DiffusionModel.inpaint`."""
    x, mask = real_array("x", x), real_array("mask", mask)
    check(mask.dtype == bool, "mask", "be boolean", f"dtype {mask.dtype}")
    sizes = zip(mask.shape[::-1], x.shape[::-1], strict=False)
    is_broadcastable = mask.ndim <= x.ndim and all(size in (1, full_size) for size, full_size in sizes)
    check(is_broadcastable, "mask", f"broadcast to {x.shape}", f"shape {mask.shape}")
    mask = np.broadcast_to(mask, x.shape)
    x = model.prepare_images("x", np.where(mask, x, np.zeros((), x.dtype)))  # unknown pixels may be NaN
    sampler, seed = model.resolve(sampler), model.draw_seed(seed)
    times = sampler.times(model.schedule)
    eps = starting_noise(len(x), x.shape[1:], seed)
    start = np.float32(model.noise_scale(times)) * eps
    x_T = np.where(mask, model.schedule.alpha(times[0]) * x + model.schedule.sigma(times[0]) * eps, start)
    known = np.where(mask, x, 0), mask
    images = reverse_process(model, sampler, x_T.astype("float32"), times, seed=seed, known=known, **options)[-1]
    return np.where(mask, x, images)  # the last step may round, or add noise


def invert(
    model: Any, x: Any, sampler: DiffusionSampler, iterations: int, seed: int | None, **options: Any
) -> np.ndarray:
    """See `DiffusionModel.invert`."""
    check_seed(seed)
    inversion = DDIMInversion(sampler, iterations)
    times = inversion.times(model.schedule)
    noisy = reverse_process(model, inversion, model.prepare_images("x", x), times, seed=0, **options)[-1]
    return noisy / np.float32(model.noise_scale(times[::-1]))
