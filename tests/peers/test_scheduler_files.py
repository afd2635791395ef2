"""Against the schedulers of diffusers, made from the same files: the same samples of a simple network, step by step."""

import json

import keras
import numpy as np
import pytest
from keras import ops
from offenders import not_refused

from keras_gen import samplers, schedules
from keras_gen.diffusion.samplers.base import Denoiser, coefficient_table
from keras_gen.models import DDPM, RectifiedFlow
from keras_gen.pretrained.scheduler_file import scheduler_options
from keras_gen.pretrained.schedules import prediction_of

pytest.importorskip("diffusers")
import diffusers
import torch

N, SHAPE = 2, (4, 3, 1)
NOISE = np.random.default_rng(0).normal(size=(N, *SHAPE)).astype("float32")
STABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
FILES = {
    "ddim": {"_class_name": "DDIMScheduler", **STABLE, "clip_sample": False, "set_alpha_to_one": False},
    "ddim, all defaults": {"_class_name": "DDIMScheduler"},
    "ddim, v": {
        "_class_name": "DDIMScheduler",
        **STABLE,
        "clip_sample": False,
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True,
        "timestep_spacing": "trailing",
    },
    "pndm": {"_class_name": "PNDMScheduler", **STABLE, "skip_prk_steps": True},
    "pndm, to 1": {"_class_name": "PNDMScheduler", **STABLE, "skip_prk_steps": True, "set_alpha_to_one": True},
    "pndm, no offset": {"_class_name": "PNDMScheduler", "skip_prk_steps": True, "beta_schedule": "squaredcos_cap_v2"},
    "ddpm": {"_class_name": "DDPMScheduler", **STABLE, "clip_sample_range": 2.0},
    "euler": {"_class_name": "EulerDiscreteScheduler", **STABLE, "timestep_spacing": "leading"},
    "euler, trailing": {"_class_name": "EulerDiscreteScheduler", **STABLE, "timestep_spacing": "trailing"},
    "dpm": {"_class_name": "DPMSolverMultistepScheduler", **STABLE},
    "dpm, leading": {"_class_name": "DPMSolverMultistepScheduler", **STABLE, "timestep_spacing": "leading"},
    "dpm, sde": {"_class_name": "DPMSolverMultistepScheduler", **STABLE, "algorithm_type": "sde-dpmsolver++"},
    "dpm, order 1": {
        "_class_name": "DPMSolverMultistepScheduler",
        "trained_betas": np.linspace(1e-4, 0.02, 1000).tolist(),
        "solver_order": 1,
        "timestep_spacing": "trailing",
    },
    "flow": {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0},
    "flow, not shifted": {"_class_name": "FlowMatchEulerDiscreteScheduler"},
}


class ByTime(keras.layers.Layer):
    def call(self, inputs):
        x, t = inputs
        return 0.8 * ops.tanh(x) + ops.reshape(ops.cast(t, "float32"), (-1, 1, 1, 1)) / 5000


def ours(file, steps, step_noise):
    """The steps one by one, as `sample` takes them in a loop that each sampler would have to compile."""
    schedule, prediction = schedules.from_diffusers(file), prediction_of(scheduler_options(file))
    model = RectifiedFlow(ByTime(), schedule) if prediction == "velocity" else DDPM(ByTime(), schedule, prediction)
    model.build((None, *SHAPE))
    sampler = samplers.from_diffusers(file, steps)
    times = sampler.times(schedule)
    table, denoise = coefficient_table(model, sampler.rows(schedule, times)), Denoiser(model, clip_x0=sampler.clip_x0)
    state = sampler.start(ops.convert_to_tensor(NOISE * np.float32(sampler.noise_scale(schedule, times))))
    for i in range(len(times) - 1):
        row = keras.tree.map_structure(lambda column, i=i: column[i], table)
        state = sampler.step(denoise, state, row, lambda i=i: ops.convert_to_tensor(step_noise[i]))
    return ops.convert_to_numpy(sampler.finish(state))


def theirs(file, steps, step_noise, monkeypatch):
    noises = iter(torch.from_numpy(step_noise))
    for module in (diffusers.schedulers.scheduling_ddpm, diffusers.schedulers.scheduling_dpmsolver_multistep):
        monkeypatch.setattr(module, "randn_tensor", lambda *args, **kwargs: next(noises))
    scheduler = getattr(diffusers, file["_class_name"]).from_config(file)
    scheduler.set_timesteps(steps)
    x = torch.from_numpy(NOISE) * getattr(scheduler, "init_noise_sigma", 1.0)
    for t in scheduler.timesteps:
        x_t = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        x = scheduler.step(0.8 * torch.tanh(x_t) + t / 5000, t, x).prev_sample
    return x.numpy()


@pytest.mark.parametrize(
    ("name", "steps"), [*((name, 4) for name in FILES), ("ddim", 20), ("pndm", 20), ("dpm", 20), ("flow", 20)]
)
def test_samples(name, steps, monkeypatch):
    step_noise = np.random.default_rng(1).normal(size=(steps, N, *SHAPE)).astype("float32")
    expected = theirs(FILES[name], steps, step_noise, monkeypatch)
    actual = ours(FILES[name], steps, step_noise)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=3e-5 * max(1.0, np.abs(expected).max()))


def test_times_that_lie_between_those_of_the_schedule_are_rounded():
    file = {"_class_name": "EulerDiscreteScheduler"}
    scheduler = diffusers.EulerDiscreteScheduler.from_config(file)
    scheduler.set_timesteps(20)
    times = samplers.from_diffusers(file, 20).given_times
    assert times == [*np.round(scheduler.timesteps.numpy()).astype(int), -1]


def test_steps_that_are_not_given():
    assert len(samplers.from_diffusers(FILES["ddim"]).given_times) == 51
    assert len(samplers.from_diffusers(FILES["flow"]).given_times) == 29


def test_reads_a_file(tmp_path):
    path = tmp_path / "scheduler_config.json"
    path.write_text(json.dumps(FILES["pndm"]))
    for argument in (path, str(path)):
        assert samplers.from_diffusers(argument, 5) == samplers.from_diffusers(FILES["pndm"], 5)
        assert schedules.from_diffusers(argument) == schedules.ScaledLinearSchedule()


def test_bad_files(tmp_path):
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    (tmp_path / "list.json").write_text("[]")

    def read(name, **options):
        return lambda: samplers.from_diffusers({**FILES[name], **options}, 20)

    assert not not_refused(
        [
            ("no class", lambda: samplers.from_diffusers({}), "_class_name among DDIMScheduler"),
            ("class", read("ddim", _class_name="UniPCMultistepScheduler"), "`config`.*UniPC"),
            ("broken", lambda: samplers.from_diffusers(broken), "be a JSON file"),
            ("list", lambda: samplers.from_diffusers(tmp_path / "list.json"), "be a dict"),
            ("number", lambda: schedules.from_diffusers(3), "be a dict"),
            ("karras", read("euler", use_karras_sigmas=True), "`use_karras_sigmas` must be False"),
            ("dynamic", read("flow", use_dynamic_shifting=True), "`use_dynamic_shifting` must be False"),
            ("beta", read("dpm", use_beta_sigmas=True), "`use_beta_sigmas`"),
            ("last sigma", read("euler", final_sigmas_type="sigma_min"), "`final_sigmas_type` must be 'zero'"),
            ("order", read("dpm", solver_order=3), "`solver_order` must be 1 or 2"),
            ("runge-kutta", read("pndm", skip_prk_steps=False), "`skip_prk_steps` must be True"),
            ("v of pndm", read("pndm", prediction_type="v_prediction"), "`prediction_type` must be 'epsilon'"),
            ("schedule", read("ddim", beta_schedule="sigmoid"), "'linear' or 'scaled_linear'"),
            ("flag", read("ddim", clip_sample="no"), "`clip_sample` must be True or False"),
            ("times", read("ddim", num_train_timesteps=10**9), "`num_train_timesteps` must be at most"),
            ("offset", read("ddim", steps_offset=951), "`steps_offset` must leave 20 times"),
            ("clip at 0", read("ddim", clip_sample=True, steps_offset=0), "`set_alpha_to_one` must be true"),
            ("shift", read("flow", shift=-1.0), "`shift` must be > 0"),
            ("steps", lambda: samplers.from_diffusers(FILES["ddim"], 1001), "`steps` must be at most"),
            ("no steps", lambda: samplers.from_diffusers(FILES["ddim"], 0), "`steps` must be an integer >= 1"),
        ]
    )
