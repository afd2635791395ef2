"""The times of training against their distributions in closed form, by the test of Kolmogorov and Smirnov."""

import keras
import numpy as np
import pytest
from scipy import optimize, stats

from keras_gen.core.fixtures import to_numpy
from keras_gen.schedules import (
    CosMapTime,
    EDMSchedule,
    LinearSchedule,
    LogitNormalTime,
    LogNormalSigma,
    ModeTime,
    RectifiedFlowSchedule,
    Shifted,
    TimeSampler,
    UniformTime,
    VESchedule,
    VPSchedule,
)

N = 20_000


def draw(sampler, schedule, n=N):
    return to_numpy(sampler.draw(n, schedule, keras.random.SeedGenerator(0)))


def mode_cdf(scale):
    """P(t <= c) = 1 - u(c), of the u at which t is c."""

    def t_of(u):
        return 1 - u - scale * (np.cos(np.pi * u / 2) ** 2 - 1 + u)

    return lambda c: np.array(
        [1 - optimize.brentq(lambda u, c=c: t_of(u) - c, 0, 1, xtol=1e-9) for c in np.clip(c, 0, 1)]
    )


FRACTIONS = {
    "uniform": (UniformTime(), stats.uniform.cdf),
    "logit_normal": (LogitNormalTime(), lambda c: stats.norm.cdf(np.log(c / (1 - c)))),
    "logit_normal_shifted": (LogitNormalTime(-0.5, 0.7), lambda c: stats.norm.cdf((np.log(c / (1 - c)) + 0.5) / 0.7)),
    "mode": (ModeTime(), mode_cdf(1.29)),
    "mode_ends": (ModeTime(-0.8), mode_cdf(-0.8)),
    # of the density 2 / (pi - 2 pi t + 2 pi t^2)
    "cos_map": (CosMapTime(), lambda c: 2 / np.pi * np.arctan(c / (1 - c))),
}


@pytest.mark.parametrize("name", FRACTIONS)
def test_times_of_a_rectified_flow(name):
    sampler, cdf = FRACTIONS[name]
    t = draw(sampler, RectifiedFlowSchedule())
    assert t.dtype == "float32"
    assert t.shape == (N,)
    assert 0 < t.min() < t.max() <= 1
    fraction = np.clip((t.astype("float64") - 1e-5) / (1 - 1e-5), 1e-9, 1 - 1e-9)
    assert stats.kstest(fraction[:4000], cdf).pvalue > 1e-3


def test_density_of_cos_map():
    t, h = np.linspace(0.1, 0.9, 9), 1e-6
    cdf = FRACTIONS["cos_map"][1]
    slope = (cdf(t + h) - cdf(t - h)) / (2 * h)
    np.testing.assert_allclose(slope, 2 / (np.pi - 2 * np.pi * t + 2 * np.pi * t**2), rtol=1e-6)


@pytest.mark.parametrize("schedule", [EDMSchedule(), VESchedule(), VPSchedule(), RectifiedFlowSchedule()])
def test_log_normal_sigma_is_normal_in_the_log_of_the_level(schedule):
    t = draw(LogNormalSigma(-0.8, 1.1), schedule).astype("float64")
    level = -0.5 * schedule.log_snr(t)
    assert stats.kstest(level, stats.norm(-0.8, 1.1).cdf).pvalue > 1e-3


def test_uniform_times_are_those_of_the_schedule():
    for schedule in (VPSchedule(), VESchedule(), EDMSchedule(), Shifted(RectifiedFlowSchedule())):
        t = draw(UniformTime(), schedule)
        assert schedule.t_start <= t.min() + 1e-6
        assert t.max() <= schedule.t_max + 1e-5
        assert stats.kstest((t - schedule.t_start) / (schedule.t_max - schedule.t_start), "uniform").pvalue > 1e-3


@pytest.mark.parametrize("name", [*FRACTIONS, "log_normal_sigma"])
@pytest.mark.parametrize("num_steps", [7, 1000])
def test_times_of_a_discrete_schedule_are_its_integers(name, num_steps):
    sampler = LogNormalSigma() if name == "log_normal_sigma" else FRACTIONS[name][0]
    t = draw(sampler, LinearSchedule(num_steps, 1e-3, 0.5), 200_000)
    assert t.dtype.kind == "i"
    assert t.min() >= 0
    assert t.max() < num_steps
    if name == "uniform":
        counts = np.bincount(t, minlength=num_steps)
        assert stats.chisquare(counts).pvalue > 1e-3


def test_edges_of_a_fraction_are_times_of_a_discrete_schedule():
    """As rounding leaves them: a little above 1, and a little below 0."""
    schedule = LinearSchedule(1000)
    fractions = keras.ops.convert_to_tensor(np.array([-1e-7, 0.0, 1.0, 1.0 + 1e-7], "float32"))
    assert to_numpy(schedule.times_at(fractions)).tolist() == [0, 0, 999, 999]


def test_a_time_sampler_of_ones_own():
    class Latest(TimeSampler):
        def draw(self, batch, schedule, seed):
            return schedule.times_at(keras.ops.full((batch,), 0.999))

    assert draw(Latest(), LinearSchedule(100), 3).tolist() == [99, 99, 99]


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: LogitNormalTime("0"), "`mean` must be a number"),
        (lambda: LogitNormalTime(0.0, 0.0), "`std` must be > 0"),
        (lambda: LogNormalSigma(None), "`mean` must be a number"),
        (lambda: LogNormalSigma(0.0, -1), "`std` must be > 0"),
        (lambda: ModeTime(1.8), r"`scale` must be in \[-1, 2 / \(pi - 2\)\]"),
        (lambda: ModeTime(-1.1), "`scale` must be in"),
    ],
)
def test_bad_input(make, match):
    with pytest.raises(ValueError, match=match):
        make()
