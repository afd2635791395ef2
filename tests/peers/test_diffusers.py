"""Against diffusers, with the same network function, time grid and noise."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_gen.models import DDPM
from keras_gen.samplers import DDIMSampler, DDPMSampler, PLMSSampler
from keras_gen.schedules import CosineSchedule, LinearSchedule, ScaledLinearSchedule, ZeroTerminalSNR

pytest.importorskip("diffusers")
import torch
from diffusers import DDIMScheduler, DDPMScheduler, PNDMScheduler
from diffusers.schedulers import scheduling_ddpm

N, STEPS, SHAPE = 3, 25, (4, 4, 1)
NOISE = np.random.default_rng(0).normal(size=(N, *SHAPE)).astype("float32")
STEP_NOISE = np.random.default_rng(1).normal(size=(STEPS, N, *SHAPE)).astype("float32")
PREDICTION = {"epsilon": "epsilon", "x0": "sample", "v": "v_prediction"}


class Network(keras.layers.Layer):
    def call(self, inputs):
        x, t = inputs
        return 0.8 * ops.tanh(x) + ops.reshape(ops.cast(t, "float32"), (-1, 1, 1, 1)) / 5000


def torch_network(x, t):
    return 0.8 * torch.tanh(x) + t / 5000


def ours(sampler, **options):
    model = DDPM(Network(), options.pop("schedule", LinearSchedule()), **options)
    model.build((None, *SHAPE))
    return model.sample(N, sampler, noise=NOISE, step_noise=STEP_NOISE, verbose=0)


def theirs(scheduler, **options):
    """In float64: their float32 table alone is off by 1e-5."""
    scheduler.alphas_cumprod = torch.from_numpy(LinearSchedule().alphas_cumprod)
    scheduler.one = scheduler.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
    scheduler.set_timesteps(STEPS)
    x = torch.from_numpy(NOISE).double()
    for t, noise in zip(scheduler.timesteps, torch.from_numpy(STEP_NOISE).double(), strict=True):
        step = {name: noise if value == "noise" else value for name, value in options.items()}
        x = scheduler.step(torch_network(x, t), t, x, **step).prev_sample
    return x.numpy()


def assert_same(actual, expected):
    """To 1e-5 of the size of the values: a prediction of noise is divided by alpha_T = 0.006, so that x0 is large."""
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * max(1.0, np.abs(expected).max()))


@pytest.mark.parametrize(
    ("schedule", "name", "options"),
    [
        (LinearSchedule(), "linear", {}),
        (ScaledLinearSchedule(), "scaled_linear", {"beta_start": 0.00085, "beta_end": 0.012}),
        (CosineSchedule(), "squaredcos_cap_v2", {}),
        (ZeroTerminalSNR(LinearSchedule()), "linear", {"rescale_betas_zero_snr": True}),
    ],
)
def test_schedules(schedule, name, options):
    peer = DDIMScheduler(beta_schedule=name, **options)
    # Theirs is float32; their zero of the last step is 2^-24.
    np.testing.assert_allclose(schedule.alphas_cumprod, peer.alphas_cumprod.numpy(), rtol=2e-3, atol=1e-7)


@pytest.mark.parametrize("prediction", PREDICTION)
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_ddpm(prediction, variance, clip, monkeypatch):
    noises = iter(torch.from_numpy(STEP_NOISE).double())
    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *args, **kwargs: next(noises))
    peer = DDPMScheduler(prediction_type=PREDICTION[prediction], variance_type=variance, clip_sample=clip is not None)
    expected = theirs(peer)
    actual = ours(DDPMSampler(STEPS, clip_x0=clip), prediction=prediction, variance=variance)
    assert_same(actual, expected)


# Only "leading": with "linspace", and with "trailing" where the steps do not divide the schedule, diffusers 0.42 takes
# t - T // N for the next time, which is not the next one it visits (diffusers issue 12633).
@pytest.mark.parametrize("prediction", PREDICTION)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_ddim(prediction, eta, clip):
    peer = DDIMScheduler(prediction_type=PREDICTION[prediction], clip_sample=clip is not None)
    options = {"eta": eta, "use_clipped_model_output": True}
    expected = theirs(peer, **options, **({"variance_noise": "noise"} if eta > 0 else {}))
    actual = ours(DDIMSampler(STEPS, eta, clip_x0=clip), prediction=prediction)
    assert_same(actual, expected)


def test_ddim_trailing_where_the_steps_divide_the_schedule():
    peer = DDIMScheduler(timestep_spacing="trailing", clip_sample=False)
    assert_same(ours(DDIMSampler(STEPS, spacing="trailing")), theirs(peer))


@pytest.mark.parametrize("steps", [7, 20, 50])
@pytest.mark.parametrize("stable_diffusion", [False, True])
def test_plms(steps, stable_diffusion):
    """Stable Diffusion's files shift the times by one, and end at the cleanest time instead of clean data.

    For "v", diffusers 0.42 extrapolates v itself; the method is defined for the noise.
    """
    options = {"steps_offset": 1, "set_alpha_to_one": False} if stable_diffusion else {"set_alpha_to_one": True}
    peer = PNDMScheduler(skip_prk_steps=True, **options)
    peer.alphas_cumprod = torch.from_numpy(LinearSchedule().alphas_cumprod)
    peer.final_alpha_cumprod = peer.alphas_cumprod[0] if stable_diffusion else torch.tensor(1.0, dtype=torch.float64)
    peer.set_timesteps(steps)
    x = torch.from_numpy(NOISE).double()
    for t in peer.timesteps:
        x = peer.step(torch_network(x, t), t, x).prev_sample
    times = [*np.unique(peer.timesteps.numpy())[::-1], 0 if stable_diffusion else -1]
    model = DDPM(Network(), LinearSchedule())
    model.build((None, *SHAPE))
    actual = model.sample(N, PLMSSampler(times=times), noise=NOISE, verbose=0)
    assert_same(actual, x.numpy())
