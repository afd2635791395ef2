"""How fast samplers converge, on a mixture of Gaussians with its exact denoiser.

The step rules are plain arithmetic, so they are followed in NumPy's float64 as they stand: float32 hides the order.
"""

import functools

import keras
import numpy as np
import pytest
from mixture import PAIR, exact_model, gaussian, slope_of_x0

from keras_gen.samplers import DDIMSampler, DPMSolverPPSampler, EulerSampler, HeunSampler, PLMSSampler
from keras_gen.schedules import EDMSchedule, RectifiedFlowSchedule, SubVPSchedule, VESchedule, VPSchedule

NOISE = np.random.default_rng(0).normal(size=(100, 1))


def in_float64(sampler, schedule, mixture, noise, step_noise=None):
    """The sampler's own table and step rule, without a model, a compiler and float32."""

    def denoise(x_t, row):
        return mixture.predict(x_t, row["alpha"], row["sigma"])[0], 0.0

    times = sampler.times(schedule)
    state = keras.tree.map_structure(
        lambda part: keras.ops.convert_to_numpy(part).astype("float64"), sampler.start(noise)
    )
    rows = sampler.rows(schedule, times)
    for i in range(len(times) - 1):
        row = keras.tree.map_structure(lambda column, i=i: column[i], rows)
        state = sampler.step(denoise, state, row, lambda k=0, i=i: step_noise[i, k])
    return sampler.finish(state)


@pytest.fixture
def float64(monkeypatch):
    """`ops.cond` of a NumPy row: no backend is asked."""
    monkeypatch.setattr(keras.ops, "cond", lambda holds, yes, no: yes() if holds else no())


SAMPLERS = {
    "euler": (EulerSampler, {}, 1),
    "ddim": (DDIMSampler, {}, 1),
    "heun": (HeunSampler, {}, 2),
    "plms": (PLMSSampler, {}, 2),
    "dpm_solver_1": (DPMSolverPPSampler, {"order": 1}, 1),
    "dpm_solver_2": (DPMSolverPPSampler, {"order": 2}, 2),
    "dpm_solver_3": (DPMSolverPPSampler, {"order": 3}, 3),
}
GRIDS = {
    "vp": (VPSchedule(), "log_snr"),
    "sub_vp": (SubVPSchedule(), "log_snr"),
    "edm": (EDMSchedule(), "karras"),
    "ve": (VESchedule(0.01, 20.0), "linspace"),
}


@functools.cache
def fine(name):
    """The same ODE between the same ends, with the same last jump, by a fine grid."""
    schedule, spacing = GRIDS[name]
    sampler = DPMSolverPPSampler(4000, 3, spacing=spacing)
    return in_float64(sampler, schedule, PAIR, NOISE * max(1, schedule.sigma(schedule.t_max)))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("grid", GRIDS)
def test_error_falls_with_the_order(sampler, grid):
    (cls, options, order), (schedule, spacing) = SAMPLERS[sampler], GRIDS[grid]
    noise, counts = NOISE * max(1, schedule.sigma(schedule.t_max)), [80, 160, 320]
    results = [in_float64(cls(n, spacing=spacing, **options), schedule, PAIR, noise) for n in counts]
    errors = [np.sqrt(np.mean((result - fine(grid)) ** 2)) for result in results]
    slope = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert abs(slope - order) < 0.15, (slope, errors)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("cls", "order"), [(EulerSampler, 1), (HeunSampler, 2)])
def test_error_falls_with_the_order_from_pure_noise(cls, order):
    """Where alpha is 0 at the noisy end, and the last step is part of the ODE."""
    schedule = RectifiedFlowSchedule()
    exact = in_float64(HeunSampler(4000), schedule, PAIR, NOISE)
    counts = [80, 160, 320]
    errors = [np.sqrt(np.mean((in_float64(cls(n), schedule, PAIR, NOISE) - exact) ** 2)) for n in counts]
    slope = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert abs(slope - order) < 0.15, (slope, errors)


@pytest.mark.usefixtures("float64")
def test_the_fine_solution_maps_gaussian_noise_exactly():
    """For Gaussian data the ODE is linear: x / deviation(t) stays what it is."""
    schedule, data = VPSchedule(), gaussian(0.0, 0.5)
    x_0 = in_float64(DPMSolverPPSampler(2000, 3, spacing="log_snr"), schedule, data, NOISE)
    deviation = np.sqrt(0.25 * schedule.alpha(1.0) ** 2 + schedule.sigma(1.0) ** 2)
    shrink = np.sqrt(0.25 * schedule.alpha(1e-3) ** 2 + schedule.sigma(1e-3) ** 2)
    jump = slope_of_x0(schedule, 1e-3, 0.5)  # to clean data
    np.testing.assert_allclose(x_0, NOISE / deviation * shrink * jump, rtol=1e-6)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_float32_follows_float64(sampler, request):
    """The compiled loop computes the same table and rule."""
    cls, options, _ = SAMPLERS[sampler]
    schedule, sampler = VPSchedule(), cls(20, spacing="log_snr", **options)
    compiled = exact_model(schedule, PAIR, "v", (1,)).sample(100, sampler, noise=NOISE, batch_size=100, verbose=0)
    request.getfixturevalue("float64")
    np.testing.assert_allclose(compiled, in_float64(sampler, schedule, PAIR, NOISE), rtol=1e-4, atol=1e-4)
