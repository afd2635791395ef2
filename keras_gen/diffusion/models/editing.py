"""Image editing: adding noise, the prediction of x0, image-to-image, interpolation, inpainting, inversion.

    add_noise       x_t = alpha_t x0 + sigma_t eps
    predict_x0      the network's guess of x0 in x_t
    image_to_image  noise of an intermediate time, and the reverse process from there
    interpolate     the same for a mixture of two images
    inpaint         the reverse process, with known pixels of x0 replaced by those of the image
    invert          a deterministic sampler run backwards, from an image to its noise

The functions implement methods of `DiffusionModel`, where their arguments are documented.
"""

from typing import Any

import numpy as np

from keras_gen.core.arrays import broadcastable, straight_paths
from keras_gen.core.checks import check, check_fraction, check_integer, finite_samples, real_array
from keras_gen.core.conditions import map_parts
from keras_gen.core.random import check_seed, starting_noise
from keras_gen.diffusion.samplers.base import (
    Denoiser,
    DiffusionSampler,
    key_of_guidance,
    prepared_condition,
    reverse_process,
    with_attributes,
)
from keras_gen.diffusion.samplers.guidance import Guidance
from keras_gen.diffusion.samplers.inversion import DDIMInversion


def add_noise(model: Any, x0: Any, t: Any, noise: Any, seed: int | None) -> np.ndarray:
    """See `DiffusionModel.add_noise`."""
    x0 = model.prepare_images("x0", x0)
    t = _times(model, t, len(x0))
    eps = model.prepare_noise(len(x0), noise, model.draw_seed(seed))
    t = broadcastable(t, x0)
    return (model.schedule.alpha(t) * x0 + model.schedule.sigma(t) * eps).astype("float32")


def predict_x0(
    model: Any, x_t: Any, t: Any, condition: Any, guidance: Guidance | None, batch_size: int, verbose: str | int
) -> np.ndarray:
    """See `DiffusionModel.predict_x0`."""
    x_t = model.prepare_images("x_t", x_t)
    t, given = _times(model, t, len(x_t)), prepared_condition(model, guidance, condition, len(x_t))
    options: dict[str, Any] = {"batch_size": batch_size, "verbose": verbose}
    if guidance is None:
        return _predict_x0(model, x_t, t, given, None, **options)
    x0 = np.empty_like(x_t)
    for time in np.unique(t):  # guidance takes the coefficients of a single time
        rows = t == time
        own = None if given is None else map_parts(lambda part, rows=rows: part[rows], given)
        x0[rows] = _predict_x0(model, x_t[rows], t[rows], own, guidance, **options)
    return x0


def _predict_x0(
    model: Any, x_t: np.ndarray, t: np.ndarray, given: Any, guidance: Guidance | None, **options: Any
) -> np.ndarray:
    n = len(x_t)
    row = {name: np.asarray(column) for name, column in model.coefficients(t).items()}
    arrays: dict[str, Any] = {
        name: column.astype("float32" if column.dtype.kind == "f" else "int32") for name, column in row.items()
    }
    if given is not None:
        arrays["condition"] = given
    scalars = () if guidance is None else guidance.scalars
    arrays |= {f"guidance.{name}": np.full(n, getattr(guidance, name), "float32") for name in scalars}

    def function(x_t: Any, *columns: Any) -> Any:
        inputs = dict(zip(arrays, columns, strict=True))
        values = {name: inputs.pop(f"guidance.{name}")[0] for name in scalars}  # the same for all rows
        condition = inputs.pop("condition", None)
        denoise = Denoiser(model, condition, guidance and with_attributes(guidance, values))
        row = model.columns(inputs, x_t) if guidance is None else {name: value[0] for name, value in inputs.items()}
        return denoise(x_t, row)[0]

    key = ("predict_x0", tuple(arrays), key_of_guidance(guidance))
    layers = () if guidance is None else guidance.layers
    return finite_samples(model.in_batches(key, function, x_t, *arrays.values(), extra_layers=layers, **options), given)


def _times(model: Any, t: Any, n: int) -> np.ndarray:
    """Checks one time, or one for each of `n` images, and returns `n` of them."""
    check(np.shape(t) in ((), (n,)), "t", f"be one time, or one for each of {n} images", f"shape {np.shape(t)}")
    for time in np.atleast_1d(t):
        model.schedule.check_time("t", time)
    return np.broadcast_to(t, (n,))


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
    start = np.float32(sampler.noise_scale(model.schedule, times)) * eps
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
    return noisy / np.float32(sampler.noise_scale(model.schedule, times[::-1]))
