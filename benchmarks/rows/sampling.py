"""Complete sampling runs against those of diffusers, and against their single steps."""

from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from keras import ops

from benchmarks.contest import OURS, Contender, Contest
from benchmarks.devices import operations
from benchmarks.rows.unet import BATCH, SIZE, case_of, small_unet
from benchmarks.settings import Setting, channels_last
from keras_gen.core.compiled import compiled
from keras_gen.models import DDPM, UNet
from keras_gen.samplers import DDIMSampler, DDPMSampler, DiffusionSampler, DPMSolverPPSampler

MANY = 256
NOISE = np.random.default_rng(0).standard_normal((MANY, SIZE, SIZE, 1), "float32")
FEW = 4  # for the run of 1000 steps, and for quick runs


def sampling_ddpm(quick: bool, setting: Setting) -> Contest:
    """Some 20 seconds per run, hence at most three turns."""
    steps = 20 if quick else 1000
    contest = _runs(steps, DDPMSampler(steps), DDPMScheduler(clip_sample=False), FEW, setting)
    if not quick:
        contest.turns, contest.warm = 3, 0
        contest.case += ", 3 turns"
    return contest


def sampling_ddim(quick: bool, setting: Setting) -> Contest:
    return _ddim(10 if quick else 50, FEW if quick else BATCH, setting)


def sampling_ddim_256(quick: bool, setting: Setting) -> Contest:
    return _ddim(10 if quick else 50, FEW if quick else MANY, setting)


def _ddim(steps: int, n: int, setting: Setting) -> Contest:
    contest = _runs(steps, DDIMSampler(steps), DDIMScheduler(clip_sample=False), n, setting)
    contest.same, contest.tolerance = ("diffusers",), setting.tolerance
    return contest


def sampling_dpm_solver(quick: bool, setting: Setting) -> Contest:
    """Noise levels differ: the peer's are rounded to integer times of the schedule."""
    steps = 10 if quick else 20
    scheduler = DPMSolverMultistepScheduler(solver_order=2)
    return _runs(steps, DPMSolverPPSampler(steps, 2), scheduler, FEW if quick else BATCH, setting)


def _runs(steps: int, sampler: DiffusionSampler, scheduler: Any, n: int, setting: Setting) -> Contest:
    noise, peer = NOISE[:n], small_unet()
    model = setting.ours(DDPM(UNet.from_diffusers(peer), seed=0))
    peer = setting.evaluated(peer)
    call, timesteps = setting.compiled(peer), setting.tensor(np.zeros(n, "int64"))

    @torch.inference_mode()
    def theirs() -> torch.Tensor:
        scheduler.set_timesteps(steps)  # the multistep solver keeps state
        x = setting.images(noise)
        for t in scheduler.timesteps:
            x = scheduler.step(call(x, t).sample, t, x).prev_sample
        return channels_last(x).cpu()  # as ours

    def ours() -> np.ndarray:
        return model.sample(n, sampler, noise=noise, seed=0, verbose=0, batch_size=n)

    with torch.inference_mode():
        counted = setting.counted(steps * operations(lambda: peer(setting.images(noise), timesteps)) / n)
    contenders = {OURS: Contender(ours, n), "diffusers": Contender(theirs, n)}
    return Contest(f"{case_of(noise)}, {steps} steps", contenders, **counted)


def sampling_loop(quick: bool, setting: Setting) -> Contest:
    steps, noise = (10, NOISE[:FEW]) if quick else (50, NOISE[:BATCH])
    network = UNet.from_diffusers(small_unet())
    model = DDPM(network, seed=0)
    sampler = DDIMSampler(steps)
    step = compiled(network, lambda x, t: network([x, t], training=False))
    x_T = ops.convert_to_tensor(noise)
    times = [ops.full((len(noise),), t, "int32") for t in sampler.times(model.schedule)[:-1]]

    def single_steps() -> np.ndarray:
        x = x_T
        for t in times:
            x = step(x, t)
        return ops.convert_to_numpy(x)  # as ours

    def ours() -> np.ndarray:
        return model.sample(len(noise), sampler, noise=noise, seed=0, verbose=0)

    contenders = {OURS: Contender(ours), "single steps": Contender(single_steps)}
    return Contest(f"{case_of(noise)}, {steps} steps, our own network evaluated as often", contenders)
