"""Complete sampling runs against those of diffusers, and against their single steps."""

from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from keras import ops

from benchmarks.contest import OURS, Contender, Contest
from benchmarks.rows.unet import BATCH, SIZE, networks, to_torch
from keras_gen.core.compiled import compiled
from keras_gen.models import DDPM
from keras_gen.samplers import DDIMSampler, DDPMSampler, DiffusionSampler, DPMSolverPPSampler

NOISE = np.random.default_rng(0).standard_normal((BATCH, SIZE, SIZE, 1), "float32")
FEW = NOISE[:4]  # for the run of 1000 steps, and for quick runs


def sampling_ddpm(quick: bool) -> Contest:
    """Some 20 seconds per run, hence at most three turns."""
    steps = 20 if quick else 1000
    contest = _runs(steps, DDPMSampler(steps), DDPMScheduler(clip_sample=False), FEW)
    if not quick:
        contest.turns, contest.warm = 3, False
        contest.case += ", 3 turns"
    return contest


def sampling_ddim(quick: bool) -> Contest:
    steps = 10 if quick else 50
    contest = _runs(steps, DDIMSampler(steps), DDIMScheduler(clip_sample=False), FEW if quick else NOISE)
    contest.same = ("diffusers",)
    return contest


def sampling_dpm_solver(quick: bool) -> Contest:
    """Noise levels differ: the peer's are rounded to integer times of the schedule."""
    steps = 10 if quick else 20
    scheduler = DPMSolverMultistepScheduler(solver_order=2)
    return _runs(steps, DPMSolverPPSampler(steps, 2), scheduler, FEW if quick else NOISE)


def _runs(steps: int, sampler: DiffusionSampler, scheduler: Any, noise: np.ndarray) -> Contest:
    network, peer = networks()
    model = DDPM(network, seed=0)

    @torch.inference_mode()
    def theirs() -> np.ndarray:
        scheduler.set_timesteps(steps)  # the multistep solver keeps state
        x = to_torch(noise)
        for t in scheduler.timesteps:
            x = scheduler.step(peer(x, t).sample, t, x).prev_sample
        return x.permute(0, 2, 3, 1).numpy()

    def ours() -> np.ndarray:
        return model.sample(len(noise), sampler, noise=noise, seed=0, verbose=0)

    contenders = {OURS: Contender(ours, len(noise)), "diffusers": Contender(theirs, len(noise))}
    return Contest(f"{_case(noise)}, {steps} steps", contenders)


def _case(noise: np.ndarray) -> str:
    return f"batch {len(noise)}, {SIZE} x {SIZE} x 1"


def sampling_loop(quick: bool) -> Contest:
    steps, noise = (10, FEW) if quick else (50, NOISE)
    network, _ = networks()
    model = DDPM(network, seed=0)
    sampler = DDIMSampler(steps)
    step = compiled(network, lambda x, t: network([x, t], training=False))
    x_T = ops.convert_to_tensor(noise)
    times = [ops.full((len(noise),), t, "int32") for t in sampler.times(model.schedule)[:-1]]

    def single_steps() -> np.ndarray:
        x = x_T
        for t in times:
            x = step(x, t)
        return ops.convert_to_numpy(x)

    def ours() -> np.ndarray:
        return model.sample(len(noise), sampler, noise=noise, seed=0, verbose=0)

    contenders = {OURS: Contender(ours), "single steps": Contender(single_steps)}
    return Contest(f"{_case(noise)}, {steps} steps, our own network evaluated as often", contenders)
