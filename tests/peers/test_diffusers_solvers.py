"""Against the solvers of diffusers, with the same network function, noise levels and noise.

diffusers keeps x / alpha and the level sigma / alpha for all of its solvers of this file but one. Order 3 of its
multistep solver is not compared: its term of the second derivative is half of the one that order 3 needs; the
convergence of ours is measured instead.
"""

import keras
import numpy as np
import pytest
from keras import ops

from keras_gen.models import DDPM, EDM, RectifiedFlow, ScoreSDE
from keras_gen.samplers import DDIMSampler, DPMSolverPPSampler, EulerSampler, HeunSampler
from keras_gen.schedules import EDMSchedule, LinearSchedule, RectifiedFlowSchedule, Shifted

pytest.importorskip("diffusers")
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
)
from diffusers.schedulers import scheduling_euler_ancestral_discrete

N, STEPS, SHAPE = 3, 28, (4, 4, 1)  # 27 strides of 37 are the whole schedule: all times are integers
NOISE = np.random.default_rng(0).normal(size=(N, *SHAPE)).astype("float32")
STEP_NOISE = np.random.default_rng(1).normal(size=(STEPS, N, *SHAPE)).astype("float32")


def wave(x, t, library):
    return 0.8 * library.tanh(x) + t / 5


class ByTime(keras.layers.Layer):
    """Predicts from the input and a thousandth of the time."""

    def call(self, inputs):
        x, t = inputs
        return wave(x, ops.reshape(ops.cast(t, "float32"), (-1, 1, 1, 1)) / 1000, ops)


class ByLevel(keras.layers.Layer):
    """Predicts eps of an EDM schedule from x at deviation 1, and the logarithm of the level."""

    def call(self, inputs):
        x, t = inputs
        log_sigma = 4 * ops.reshape(t, (-1, 1, 1, 1))
        return wave(x / ops.sqrt(1 + ops.exp(2 * log_sigma)), log_sigma / 10, ops)


def by_level(scheduler, x, i):
    sigma = scheduler.sigmas[i].double()
    return wave(x / (1 + sigma**2) ** 0.5, torch.log(sigma) / 10, torch)


def built(model):
    model.build((None, *SHAPE))
    return model


def on_levels(sampler_class, levels, **options):
    """Returns samples of an EDM schedule at the given levels, from noise of the first one's deviation."""

    class AtLevels(sampler_class):
        def times(self, schedule):
            return np.asarray(levels, "float64")

    schedule = EDMSchedule(float(min(level for level in levels if level > 0)), float(levels[0]))
    model = built(ScoreSDE(ByLevel(), schedule))
    return model.sample(N, AtLevels(len(levels) - 1, **options), noise=NOISE, verbose=0)


def assert_equal(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_euler():
    scheduler = EulerDiscreteScheduler(timestep_spacing="linspace")
    scheduler.set_timesteps(STEPS)
    schedule = LinearSchedule()
    x = torch.from_numpy(NOISE).double() / schedule.alpha(999)
    for t in scheduler.timesteps:
        x_t = scheduler.scale_model_input(x, t)
        x = scheduler.step(wave(x_t, t / 1000, torch), t, x).prev_sample
    actual = built(DDPM(ByTime(), schedule)).sample(N, EulerSampler(STEPS, "linspace"), noise=NOISE, verbose=0)
    assert_equal(actual, x.numpy())


def test_euler_ancestral_is_ddim_with_eta_1(monkeypatch):
    noises = iter(torch.from_numpy(STEP_NOISE).double())
    monkeypatch.setattr(scheduling_euler_ancestral_discrete, "randn_tensor", lambda *args, **kwargs: next(noises))
    scheduler = EulerAncestralDiscreteScheduler(timestep_spacing="linspace")
    scheduler.set_timesteps(STEPS)
    schedule = LinearSchedule()
    x = torch.from_numpy(NOISE).double() / schedule.alpha(999)
    for t in scheduler.timesteps:
        x_t = scheduler.scale_model_input(x, t)
        x = scheduler.step(wave(x_t, t / 1000, torch), t, x).prev_sample
    sampler = DDIMSampler(STEPS, eta=1.0, spacing="linspace")
    actual = built(DDPM(ByTime(), schedule)).sample(N, sampler, noise=NOISE, step_noise=STEP_NOISE, verbose=0)
    assert_equal(actual, x.numpy())


def test_heun():
    scheduler = HeunDiscreteScheduler(use_karras_sigmas=True)
    scheduler.set_timesteps(STEPS)
    x = torch.from_numpy(NOISE).double() * scheduler.sigmas[0].double()
    for i, t in enumerate(scheduler.timesteps):
        x = scheduler.step(by_level(scheduler, x, i), t, x).prev_sample
    # Theirs holds each level twice but for the first and the last one.
    levels = np.append(scheduler.sigmas.numpy()[:-1:2], 0.0)
    assert len(levels) == STEPS + 1
    assert_equal(on_levels(HeunSampler, levels), x.numpy())


@pytest.mark.parametrize("order", [1, 2])
def test_dpm_solver_pp_on_karras_levels(order):
    scheduler = DPMSolverMultistepScheduler(use_karras_sigmas=True, solver_order=order)
    scheduler.set_timesteps(STEPS)
    first = scheduler.sigmas[0].double()
    # Here x has deviation 1 at each level.
    x = torch.from_numpy(NOISE).double() * first / (1 + first**2) ** 0.5
    for i, t in enumerate(scheduler.timesteps):
        sigma = scheduler.sigmas[i].double()
        x = scheduler.step(wave(x, torch.log(sigma) / 10, torch), t, x).prev_sample
    assert_equal(on_levels(DPMSolverPPSampler, scheduler.sigmas.numpy(), order=order), x.numpy())


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_match_euler(shift):
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    # Given levels, it shifts them once. Its own start from a last level that is shifted already (issue 13243).
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / STEPS, STEPS))
    x = torch.from_numpy(NOISE)
    for t in scheduler.timesteps:
        x = scheduler.step(wave(x, t / 1000, torch), t, x).prev_sample
    schedule = Shifted(RectifiedFlowSchedule(), shift)
    actual = built(RectifiedFlow(ByTime(), schedule)).sample(N, EulerSampler(STEPS), noise=NOISE, verbose=0)
    assert_equal(actual, x.numpy())


def test_edm_euler():
    # Without churn: with it, diffusers uses what the network said before the noise was added.
    scheduler = EDMEulerScheduler()
    scheduler.set_timesteps(STEPS)
    x = torch.from_numpy(NOISE).double() * 80.0
    for t in scheduler.timesteps:
        x_t = scheduler.scale_model_input(x, t)
        x = scheduler.step(wave(x_t, t / 1000, torch), t, x).prev_sample
    actual = built(EDM(ByTime())).sample(N, EulerSampler(STEPS), noise=NOISE, verbose=0)
    assert_equal(actual, x.numpy())
