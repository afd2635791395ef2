"""Laws of the components of diffusion models: predictions, schedules, time samplers and samplers."""

import itertools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.calculus.gradient import derivative
from keras_gen.core.fixtures import to_numpy
from keras_gen.diffusion.models.ddpm import DDPM
from keras_gen.diffusion.models.score_sde import ScoreSDE
from keras_gen.diffusion.prediction import PREDICTIONS, Prediction, convert_prediction
from keras_gen.diffusion.samplers.base import DiffusionSampler
from keras_gen.diffusion.schedules.base import NoiseSchedule
from keras_gen.diffusion.schedules.continuous import (
    ContinuousSchedule,
    EDMSchedule,
    RectifiedFlowSchedule,
    SubVPSchedule,
    VESchedule,
    VPSchedule,
    check_continuous,
)
from keras_gen.diffusion.schedules.discrete import DiscreteSchedule, LinearSchedule
from keras_gen.diffusion.schedules.modifiers import ZeroTerminalSNR
from keras_gen.diffusion.schedules.time_samplers import TimeSampler
from keras_gen.testing.common import require, same
from keras_gen.testing.config import check_config

MEAN, STD = 0.3, 0.5  # of the Gaussian data on whose exact denoiser samplers are tested
SCHEDULES: tuple[NoiseSchedule, ...] = (
    LinearSchedule(20, beta_end=0.3),
    ZeroTerminalSNR(LinearSchedule(20, beta_end=0.3)),
    VPSchedule(),
    SubVPSchedule(),
    VESchedule(0.02, 20.0),
    EDMSchedule(0.01, 20.0),
    RectifiedFlowSchedule(),
)


def check_prediction(make: Callable[[], Prediction]) -> None:
    """Checks a prediction: its configuration, and that it determines x0 and eps on every supported schedule.

    Args:
        make: returns a new prediction.

    Raises:
        AssertionError: with the violated law.
    """
    check_config(make)
    prediction, generator = make(), np.random.default_rng(0)
    x0, eps = generator.normal(size=(2, 20))
    for schedule in SCHEDULES:
        if prediction.needs_derivatives and not isinstance(schedule, ContinuousSchedule):
            continue
        t = schedule.times_at(np.linspace(0.05, 0.9, 20))  # short of zero signal
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        derivatives = schedule.velocity(t) if isinstance(schedule, ContinuousSchedule) else None
        x_t = alpha * x0 + sigma * eps
        p, q = prediction.linear_form(alpha, sigma, derivatives)
        value = p * x0 + q * eps
        c_skip, c_out = prediction.x0_form(alpha, sigma, derivatives)
        law = f"x0 must be c_skip x_t + c_out prediction with {schedule!r}"
        same([x0], [c_skip * x_t + c_out * value], 1e-8, 1e-8, law)
        for other in PREDICTIONS:
            if other == "velocity" and derivatives is None:
                continue
            there = convert_prediction(value, prediction, other, x_t, alpha, sigma, derivatives)
            back = convert_prediction(there, other, prediction, x_t, alpha, sigma, derivatives)
            same([value], [back], 1e-7, 1e-7, f"conversion to {other!r} and back must change nothing")


def check_schedule(make: Callable[[], NoiseSchedule]) -> None:
    """Checks a noise schedule: configuration, monotonicity, derivatives, inverse, and tensors against NumPy.

    Args:
        make: returns a new schedule.

    Raises:
        AssertionError: with the violated law.
    """
    check_config(make)
    schedule = make()
    t = _times_of(schedule)
    log_snr = schedule.log_snr(t)
    require(bool(np.all(np.diff(log_snr) < 0)), "log_snr must decrease from the cleanest to the noisiest time")
    clean = float(schedule.alpha(schedule.t_clean)), float(schedule.sigma(schedule.t_clean))
    require(clean == (1.0, 0.0), f"alpha and sigma at t_clean must be 1 and 0, not {clean}")
    same([t], [schedule.inverse_log_snr(log_snr)], 1e-6, 1e-9, "inverse_log_snr must be the inverse of log_snr")
    require(bool(np.all(np.isfinite(schedule.network_time(t)))), "network_time must be finite")
    tensor = ops.convert_to_tensor(t.astype("int32" if t.dtype.kind == "i" else "float32"))
    names = ["alpha", "sigma", "network_time"]
    if isinstance(schedule, ContinuousSchedule):
        names += ["drift", "diffusion"]
        _check_derivatives(schedule, t, tensor)
    for name in names:
        expected, actual = getattr(schedule, name)(t), to_numpy(getattr(schedule, name)(tensor))
        same([expected], [actual], 1e-4, 1e-5, f"{name} of tensors must be that of NumPy")


def _times_of(schedule: NoiseSchedule) -> np.ndarray:
    """Returns increasing times of a schedule without the noisiest one, which may have zero SNR."""
    if isinstance(schedule, DiscreteSchedule):
        return np.arange(schedule.num_steps - 1)
    return schedule.times_at(np.linspace(0.01, 0.99, 50))


def _check_derivatives(schedule: ContinuousSchedule, t: np.ndarray, tensor: Any) -> None:
    functions = schedule.alpha, schedule.sigma
    expected = [derivative(function, t) for function in functions]
    law = "derivatives must be those of alpha and sigma"
    same(expected, schedule.derivatives(t), 1e-8, 1e-8, law)
    same(expected, [to_numpy(value) for value in schedule.derivatives(tensor)], 1e-4, 1e-5, f"{law}, of tensors too")


def check_time_sampler(make: Callable[[], TimeSampler]) -> None:
    """Checks a distribution of training times: configuration, values, dtype and seeds, on every schedule.

    Args:
        make: returns a new time sampler.

    Raises:
        AssertionError: with the violated law.
    """
    check_config(make)
    time_sampler = make()
    for schedule in SCHEDULES:
        t = to_numpy(time_sampler.draw(500, schedule, keras.random.SeedGenerator(0)))
        again = to_numpy(time_sampler.draw(500, schedule, keras.random.SeedGenerator(0)))
        require(t.shape == (500,), f"`draw` must return shape (500,), not {t.shape}")
        kind = "i" if isinstance(schedule, DiscreteSchedule) else "f"
        require(t.dtype.kind == kind, f"times of {schedule!r} must not be {t.dtype}")
        # Not between `t_start` and `t_max`: EDM's noise levels have no bounds.
        if isinstance(schedule, DiscreteSchedule):
            valid = (t >= 0) & (t < schedule.num_steps)
        else:
            valid = np.isfinite(schedule.log_snr(t))
        require(bool(valid.all()), f"times must be times of {schedule!r}, not {t[~valid]}")
        same([t], [again], 0, 0, "the same seed must give the same times")


def check_sampler(make: Callable[[], DiffusionSampler], order: int | None = None) -> None:
    """Checks a sampler of diffusion models on Gaussian data, whose exact denoiser is known.

    On each of seven schedules, including one with zero terminal SNR, samples are finite or the schedule is rejected;
    `noise`, `step_noise` and `seed` are respected; results do not depend on the batch size; explicit `times` are
    used; if `invert` accepts the sampler, sampling from its noise reconstructs the images.

    Args:
        make: returns a new sampler of at most 20 steps.
        order: int or `None`. Order of convergence of a deterministic sampler to the probability-flow ODE, which is
            then checked. Defaults to `None`.

    Raises:
        AssertionError: with the violated law.
    """
    check_config(make)
    accepted = [schedule for schedule in SCHEDULES if _is_sampled(make(), schedule)]
    require(bool(accepted), "a sampler must accept one of the schedules")
    model = exact_model(accepted[0])
    _check_draws(model, make())
    _check_times(model, make())
    _check_inversion(model, make())
    if order is not None:
        _check_order(make(), order)


class GaussianDDPM(DDPM):
    """A DDPM with the exact denoiser of Gaussian data in place of its network."""

    def network_output(self, x_t: Any, row: dict[str, Any], condition: Any, training: bool = False) -> tuple[Any, Any]:
        return _exact_prediction(x_t, row), 0.0


class GaussianSDE(ScoreSDE):
    """A ScoreSDE with the exact denoiser of Gaussian data in place of its network."""

    def network_output(self, x_t: Any, row: dict[str, Any], condition: Any, training: bool = False) -> tuple[Any, Any]:
        return _exact_prediction(x_t, row), 0.0


class _Placeholder(keras.layers.Layer):
    """Network with the right shapes, whose output is not used."""

    def call(self, inputs: Any) -> Any:
        return inputs[0]


def _exact_prediction(x_t: Any, row: dict[str, Any]) -> Any:
    alpha, sigma = row["alpha"], row["sigma"]
    residual = (x_t - alpha * MEAN) / (alpha**2 * STD**2 + sigma**2)
    return row["p"] * (MEAN + alpha * STD**2 * residual) + row["q"] * sigma * residual


def exact_model(schedule: NoiseSchedule, prediction: Any = "v", shape: tuple[int, ...] = (2,)) -> Any:
    """Returns a diffusion model with the exact denoiser of Gaussian data, for any schedule and prediction."""
    if not isinstance(schedule, DiscreteSchedule):
        model = GaussianSDE(_Placeholder(), check_continuous(schedule), prediction, seed=0)
        model.build((None, *shape))
        return model
    model = GaussianDDPM(_Placeholder(), schedule, prediction, seed=0)
    model.build((None, *shape))
    t = np.arange(schedule.num_steps)
    variance = schedule.alpha(t) ** 2 * STD**2 + schedule.sigma(t) ** 2
    model.noise_power.assign((schedule.sigma(t) ** 2 / variance).astype("float32"))  # as estimated by `adapt_variance`
    return model


def _draw(model: Any, sampler: DiffusionSampler, **options: Any) -> np.ndarray:
    return model.sample(3, sampler, verbose=0, **options)


def _is_sampled(sampler: DiffusionSampler, schedule: NoiseSchedule) -> bool:
    """Returns whether a schedule is accepted; if so, samples must be finite."""
    try:
        samples = _draw(exact_model(schedule), sampler, seed=0)
    except ValueError as error:
        require("give finite samples" not in str(error), f"samples must be finite, or {schedule!r} refused")
        require("Received" in str(error), f"{schedule!r} must be refused with a reason, not by: {error}")
        return False
    require(bool(np.isfinite(samples).all()), f"samples must be finite, or {schedule!r} refused")
    return True


def _check_draws(model: Any, sampler: DiffusionSampler) -> None:
    generator = np.random.default_rng(0)
    noise = generator.standard_normal((3, 2)).astype("float32")
    steps = len(sampler.times(model.schedule)) - 1
    draws = () if sampler.draws == 1 else (sampler.draws,)
    step_noise = generator.standard_normal((steps, *draws, 3, 2)).astype("float32")
    first = _draw(model, sampler, noise=noise, seed=0)
    same([first], [_draw(model, sampler, noise=noise, seed=0)], 0, 0, "the same seed must give the same samples")
    parts = _draw(model, sampler, noise=noise, seed=0, batch_size=2)
    same([first[:2]], [parts[:2]], 1e-5, 1e-5, "the batch size must make no difference")
    start = model.denoising_path(3, 1, sampler, noise=noise, seed=0, verbose=0)[0]
    scale = np.float32(sampler.noise_scale(model.schedule, sampler.times(model.schedule)))
    same([noise * scale], [start], 1e-6, 1e-6, "sampling must start from `noise`")
    given = [_draw(model, sampler, noise=noise, step_noise=step_noise, seed=seed) for seed in (0, 1)]
    same(given[:1], given[1:], 0, 0, "with `step_noise` nothing else must be drawn")
    if np.abs(first - _draw(model, sampler, noise=noise, seed=1)).max() > 0:
        other = _draw(model, sampler, noise=noise, step_noise=-step_noise)
        require(bool(np.abs(given[0] - other).max() > 1e-3), "`step_noise` must be respected")


def _check_times(model: Any, sampler: DiffusionSampler) -> None:
    config = sampler.get_config()
    if "times" not in config:
        return  # a solver with an adaptive step size
    times = sampler.times(model.schedule)
    explicit = type(sampler).from_config({**config, "times": times.tolist()})
    draws = [_draw(model, rule, seed=0) for rule in (sampler, explicit)]
    same(draws[:1], draws[1:], 1e-5, 1e-5, "explicit `times` must be followed")


def _check_inversion(model: Any, sampler: DiffusionSampler) -> None:
    images = np.random.default_rng(1).uniform(-0.5, 0.5, (3, 2)).astype("float32")
    try:
        noise = model.invert(images, sampler, iterations=30, verbose=0)
    except ValueError as error:
        require("Received" in str(error), f"`invert` must refuse a sampler with a reason, not by: {error}")
        return
    back = _draw(model, sampler, noise=noise)
    same([images], [back], 0.02, 0.02, "`invert` must lead back to the images, or refuse the sampler")


def _check_order(sampler: DiffusionSampler, order: int) -> None:
    """Checks the order of convergence: for Gaussian data, (x_t - mean) / std is constant along ODE trajectories."""
    schedule = VPSchedule()
    noise = np.random.default_rng(0).standard_normal((100, 2)).astype("float32")

    def mean_and_std(t: float) -> tuple[float, float]:
        alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
        return alpha * MEAN, np.sqrt(alpha**2 * STD**2 + sigma**2)

    (mean, std), (_, std_end) = mean_and_std(schedule.t_max), mean_and_std(schedule.t_min)
    distance = (noise - mean) / std
    alpha = float(schedule.alpha(schedule.t_min))
    expected = MEAN + alpha * STD**2 / std_end**2 * (distance * std_end)  # the last step is x0 at t_min
    model, counts, errors = exact_model(schedule), [10, 20, 40], []
    for steps in counts:
        config = {**sampler.get_config(), "steps": steps, "spacing": "log_snr", "clip_x0": None, "times": None}
        samples = model.sample(100, type(sampler).from_config(config), noise=noise, batch_size=100, verbose=0)
        errors.append(float(np.sqrt(np.mean((samples - expected) ** 2))))
    slopes = [np.log2(a / b) for a, b in itertools.pairwise(errors)]
    require(abs(slopes[-1] - order) < 0.4, f"the error must be of order {order}: {errors} at {counts} steps")
