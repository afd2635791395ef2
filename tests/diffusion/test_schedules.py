import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from keras_gen.diffusion.loss_weight import loss_weight
from keras_gen.diffusion.schedules.posterior import reverse_rows
from keras_gen.diffusion.schedules.time_grid import SPACINGS, time_grid
from keras_gen.schedules import (
    ContinuousSchedule,
    CosineSchedule,
    DiscreteSchedule,
    EDMSchedule,
    KexueSchedule,
    LinearSchedule,
    RectifiedFlowSchedule,
    ScaledLinearSchedule,
    Shifted,
    SubVPSchedule,
    VESchedule,
    VPSchedule,
    ZeroTerminalSNR,
    posterior,
)
from keras_gen.testing import check_schedule

quick = settings(derandomize=True, deadline=None, max_examples=50)
betas = st.lists(st.floats(1e-4, 0.9), min_size=2, max_size=30)


def test_values_of_the_papers():
    np.testing.assert_allclose(LinearSchedule().betas[[0, -1]], [1e-4, 0.02])
    np.testing.assert_allclose(ScaledLinearSchedule().alpha(999), 0.0683, atol=5e-5)
    np.testing.assert_allclose(CosineSchedule().alphas_cumprod[499], np.cos(0.508 / 1.008 * np.pi / 2) ** 2, rtol=2e-4)


def test_kexue_schedule_is_the_posts():
    t = np.arange(1, 1001)
    alpha_bar = np.cumprod(np.sqrt(1 - 0.02 * t / 1000))
    np.testing.assert_allclose(KexueSchedule().alpha(t - 1), alpha_bar, rtol=1e-12)
    np.testing.assert_allclose(KexueSchedule().betas, LinearSchedule(1000, 2e-5, 0.02).betas, rtol=1e-9)


@quick
@given(betas)
def test_variance_is_preserved_and_signal_falls(values):
    schedule = DiscreteSchedule(values)
    t = np.arange(-1, schedule.num_steps)
    np.testing.assert_allclose(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, 1)
    assert (np.diff(schedule.log_snr(t)) < 0).all()
    assert (schedule.alpha(-1), schedule.sigma(-1)) == (1, 0)
    np.testing.assert_allclose(schedule.betas, values, rtol=1e-6)


def test_zero_terminal_snr():
    plain = LinearSchedule(100)
    schedule = ZeroTerminalSNR(plain)
    assert schedule.alpha(99) == 0
    assert schedule.betas[-1] == 1
    np.testing.assert_allclose(schedule.alpha(0), plain.alpha(0))
    rows = reverse_rows(schedule, time_grid(schedule, 100, "trailing"))
    assert all(np.isfinite(column).all() for column in rows.values())


@quick
@given(betas, st.floats(-2, 2), st.floats(-2, 2), st.data())
def test_posterior_is_bayes_rule_on_a_grid(values, x_t, x0, data):
    schedule = DiscreteSchedule(values)
    t = data.draw(st.integers(1, schedule.num_steps - 1))
    s = data.draw(st.integers(0, t - 1))
    (alpha_t, alpha_s), (sigma_t, sigma_s) = schedule.alpha([t, s]), schedule.sigma([t, s])
    of_x_t, of_x0, variance = posterior(alpha_t, sigma_t, alpha_s, sigma_s)
    mean = of_x_t * x_t + of_x0 * x0
    # prior times likelihood on a grid around the claimed answer
    x_s = mean + np.sqrt(variance) * np.linspace(-9, 9, 4001)
    a = alpha_t / alpha_s
    v = 1 - np.prod(1 - schedule.betas[s + 1 : t + 1])  # what s + 1 .. t add, multiplied out
    log_p = -((x_s - alpha_s * x0) ** 2) / (2 * sigma_s**2) - (x_t - a * x_s) ** 2 / (2 * v)
    p = np.exp(log_p - log_p.max())
    p /= p.sum()
    np.testing.assert_allclose((p * x_s).sum(), mean, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose((p * (x_s - mean) ** 2).sum(), variance, rtol=1e-5)


def test_posterior_of_one_step_is_hos():
    schedule = LinearSchedule()
    t = np.arange(1, 1000)
    bar, bar_s, beta = schedule.alphas_cumprod[t], schedule.alphas_cumprod[t - 1], schedule.betas[t]
    of_x_t, of_x0, variance = posterior(
        schedule.alpha(t), schedule.sigma(t), schedule.alpha(t - 1), schedule.sigma(t - 1)
    )
    np.testing.assert_allclose(of_x_t, np.sqrt(1 - beta) * (1 - bar_s) / (1 - bar), rtol=1e-9)
    np.testing.assert_allclose(of_x0, np.sqrt(bar_s) * beta / (1 - bar), rtol=1e-9)
    np.testing.assert_allclose(variance, beta * (1 - bar_s) / (1 - bar), rtol=1e-9)


INTEGER_SPACINGS = ("leading", "linspace", "trailing")


@quick
@given(st.integers(1, 1000), st.data(), st.sampled_from(INTEGER_SPACINGS))
def test_time_grid_falls_to_clean_data(num_steps, data, spacing):
    schedule = DiscreteSchedule(np.full(num_steps, 0.01))
    steps = data.draw(st.integers(1, num_steps))
    times = time_grid(schedule, steps, spacing)
    assert times.shape == (steps + 1,)
    assert times.dtype.kind == "i"
    assert (np.diff(times) < 0).all()
    assert times[-1] == -1
    assert times[0] < num_steps
    if spacing != "leading":
        assert times[0] == num_steps - 1


def test_leading_reaches_down_the_whole_schedule():
    """A stride of floor(T / N) would start 400 of 1000 steps at 798."""
    assert time_grid(LinearSchedule(), 400, "leading")[0] == 997


def test_time_grids_of_the_paper():
    schedule = LinearSchedule()
    assert time_grid(schedule, 4, "leading").tolist() == [750, 500, 250, 0, -1]
    assert time_grid(schedule, 4, "linspace").tolist() == [999, 666, 333, 0, -1]
    assert time_grid(schedule, 4, "trailing").tolist() == [999, 749, 499, 249, -1]
    assert time_grid(schedule, 4, None).tolist() == [750, 500, 250, 0, -1]


CONTINUOUS = {
    "vp": VPSchedule(),
    "vp_other": VPSchedule(0.5, 8.0),
    "sub_vp": SubVPSchedule(),
    "ve": VESchedule(),
    "edm": EDMSchedule(),
    "rectified_flow": RectifiedFlowSchedule(),
    "shifted_rectified_flow": Shifted(RectifiedFlowSchedule(), 3.0),
    "shifted_vp": Shifted(VPSchedule(), 0.5),
}
continuous = pytest.mark.parametrize("name", CONTINUOUS)


def inner_times(schedule, n=23):
    """Times between the ends, spread as the schedule's noise."""
    ends = -0.5 * schedule.log_snr(
        np.array([schedule.t_min, schedule.t_max - 0.01 * (schedule.t_max - schedule.t_min)])
    )
    return schedule.inverse_log_snr(-2 * np.linspace(*ends, n))


@keras.saving.register_keras_serializable("keras_gen_tests")
class Bare(ContinuousSchedule):
    """The VP schedule by alpha and sigma alone: the rest is what the base class makes of them."""

    def alpha(self, t):
        return VPSchedule().alpha(t)

    def sigma(self, t):
        return VPSchedule().sigma(t)


def test_alpha_and_sigma_are_enough():
    bare, whole = Bare(), VPSchedule()
    check_schedule(Bare)
    t = inner_times(whole)
    np.testing.assert_allclose(bare.derivatives(t), whole.derivatives(t), rtol=1e-10)
    np.testing.assert_allclose(bare.inverse_log_snr(whole.log_snr(t)), t, rtol=1e-10)
    ends = bare.inverse_log_snr(np.array([-np.inf, -1e3, 1e3, np.inf]))
    np.testing.assert_allclose(ends, [1, 1, 1e-5, 1e-5], rtol=1e-6)
    for spacing in SPACINGS:
        np.testing.assert_allclose(time_grid(bare, 9, spacing), time_grid(whole, 9, spacing), rtol=1e-9)


def test_drift_and_diffusion_of_the_papers():
    t = np.linspace(0.01, 1, 20)
    vp, beta = VPSchedule(), 0.1 + 19.9 * t
    np.testing.assert_allclose(vp.drift(t), -beta / 2)
    np.testing.assert_allclose(vp.diffusion(t), np.sqrt(beta))
    np.testing.assert_allclose(SubVPSchedule().drift(t), -beta / 2)
    shrunk = np.exp(-0.2 * t - 19.9 * t**2)  # exp(-2 B)
    np.testing.assert_allclose(SubVPSchedule().diffusion(t) ** 2, beta * (1 - shrunk))
    ve = VESchedule(0.01, 50.0)
    np.testing.assert_allclose(ve.sigma(t), 0.01 * 5000**t)
    np.testing.assert_allclose(ve.drift(t), 0)
    np.testing.assert_allclose(ve.diffusion(t), ve.sigma(t) * np.sqrt(2 * np.log(5000)))
    np.testing.assert_allclose(EDMSchedule().diffusion(t), np.sqrt(2 * t))


@continuous
def test_forward_sde_has_the_moments_alpha_and_sigma(name):
    """The mean obeys m' = f m, the variance v' = 2 f v + g^2."""
    schedule = CONTINUOUS[name]
    start, stop = inner_times(schedule)[[2, -2]]

    def slopes(t, moments):
        f, g = schedule.drift(t), schedule.diffusion(t)
        return [f * moments[0], 2 * f * moments[1] + g**2]

    first = [float(schedule.alpha(start)), float(schedule.sigma(start)) ** 2]
    end = solve_ivp(slopes, (start, stop), first, rtol=1e-9, atol=1e-12).y[:, -1]
    np.testing.assert_allclose(end, [schedule.alpha(stop), schedule.sigma(stop) ** 2], rtol=1e-5)


def test_shift_lowers_the_log_snr_of_a_rectified_flow():
    inner = RectifiedFlowSchedule()
    schedule, t = Shifted(inner, 3.0), np.linspace(0.01, 0.99, 20)
    np.testing.assert_allclose(schedule.log_snr(t), inner.log_snr(t) - 2 * np.log(3))
    np.testing.assert_allclose(schedule.sigma(t), 3 * t / (1 + 2 * t))
    np.testing.assert_allclose(schedule.network_time(t), 1000 * schedule.sigma(t))
    np.testing.assert_allclose(schedule.sigma([schedule.t_start, schedule.t_min]), [1e-5, 1e-3])
    with pytest.raises(ValueError, match="`schedule` must not be Shifted already"):
        Shifted(schedule, 2.0)


def test_sigmas_of_stable_diffusion_3():
    """4 steps at shift 3. Applied twice, as in diffusers (issue 13243), the last one would be different."""
    sigmas = Shifted(RectifiedFlowSchedule(), 3.0).sigma(time_grid(Shifted(RectifiedFlowSchedule(), 3.0), 4, None))
    np.testing.assert_allclose(sigmas, [1, 0.9, 0.75, 0.5, 0])


@continuous
@pytest.mark.parametrize("spacing", SPACINGS)
def test_grids_in_continuous_time_fall_to_clean_data(name, spacing):
    schedule = CONTINUOUS[name]
    if spacing == "trailing" and schedule.t_clean == -np.inf:
        with pytest.raises(ValueError, match="`spacing` must not be 'trailing' for a schedule without a finite time"):
            time_grid(schedule, 5, spacing)
        return
    if spacing in ("karras", "log_snr") and schedule.alpha(1.0) == 0:
        with pytest.raises(ValueError, match="`spacing` must be a different one for a schedule that ends"):
            time_grid(schedule, 5, spacing)
        return
    for steps in (1, 2, 7, 100):
        times = time_grid(schedule, steps, spacing)
        assert times.shape == (steps + 1,)
        assert (np.diff(times) < 0).all()
        assert times[-1] == schedule.t_clean
        assert schedule.t_start <= times[-2]
        assert times[0] <= schedule.t_max
        if spacing != "leading":
            assert times[0] == pytest.approx(schedule.t_max)
        if spacing != "trailing" and steps > 1:
            assert times[-2] == pytest.approx(schedule.t_min)


def test_karras_grid_is_the_papers():
    i, n = np.arange(18), 18
    sigma = (80 ** (1 / 7) + i / (n - 1) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    np.testing.assert_allclose(time_grid(EDMSchedule(), 18, None), [*sigma, 0], rtol=1e-9)
    vp = VPSchedule()
    times = time_grid(vp, 18, "karras")[:-1]
    first, last = np.exp(-0.5 * vp.log_snr(np.array([1, 1e-3])))
    sigma = (first ** (1 / 7) + i / (n - 1) * (last ** (1 / 7) - first ** (1 / 7))) ** 7
    np.testing.assert_allclose(vp.sigma(times) / vp.alpha(times), sigma, rtol=1e-9)


def test_grids_by_noise_of_a_discrete_schedule_take_the_nearest_times():
    schedule = LinearSchedule()
    for spacing in ("karras", "log_snr"):
        times = time_grid(schedule, 10, spacing)
        assert times.dtype.kind == "i"
        assert times[[0, -2, -1]].tolist() == [999, 0, -1]
        level = -0.5 * schedule.log_snr(times[:-1])
        wanted = np.linspace(level[0], level[-1], 10)
        if spacing == "karras":
            wanted = 7 * np.log(np.linspace(*np.exp(level[[0, -1]] / 7), 10))
        own = -0.5 * schedule.log_snr(np.arange(1000))
        np.testing.assert_allclose(level, own[np.abs(own - wanted[:, None]).argmin(1)])


@pytest.mark.parametrize("spacing", ["karras", "log_snr"])
def test_grids_by_noise_are_refused_where_two_times_coincide(spacing):
    """diffusers' index runs out of bounds there (issue 12771)."""
    with pytest.raises(ValueError, match=f"`steps` must be fewer: with spacing '{spacing}' the times"):
        time_grid(LinearSchedule(), 100, spacing)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: LinearSchedule(beta_start=0.0), r"`beta_start` must be in \(0, 1\). Received: beta_start=0.0"),
        (lambda: LinearSchedule(beta_end=1.0), "`beta_end` must be in"),
        (lambda: LinearSchedule(0), "`num_steps` must be an integer >= 1. Received: num_steps=0"),
        (lambda: LinearSchedule(True), "`num_steps` must be an integer"),
        (lambda: ScaledLinearSchedule(beta_end=-0.1), "`beta_end` must be in"),
        (lambda: KexueSchedule(beta_end=2), "`beta_end` must be in"),
        (lambda: CosineSchedule(offset=-1), "`offset` must be >= 0 and finite"),
        (lambda: CosineSchedule(max_beta=1.0), "`max_beta` must be in"),
        (lambda: DiscreteSchedule([]), "`betas` must be a non-empty sequence"),
        (lambda: DiscreteSchedule([0.1, 1.5]), r"`betas` must be in \(0, 1\). Received: betas=\[1.5\]"),
        (lambda: DiscreteSchedule([0.1, np.nan]), r"`betas` must be in \(0, 1\)"),
        (lambda: ZeroTerminalSNR(LinearSchedule(1)), "`schedule` must be a DiscreteSchedule of at least two"),
        (lambda: LinearSchedule(10).alpha(10), "`t` must be integers in -1 .. 9"),
        (lambda: LinearSchedule(10).alpha(0.5), "`t` must be integers"),
        (
            lambda: time_grid(LinearSchedule(10), 11, "leading"),
            "`steps` must be at most the schedule's number of steps, 10",
        ),
        (lambda: time_grid(LinearSchedule(10), 11, "karras"), "`steps` must be fewer"),
        (
            lambda: time_grid(LinearSchedule(10), 5, "even"),
            "`spacing` must be one of 'leading', 'linspace', 'trailing'",
        ),
        (
            lambda: time_grid(ZeroTerminalSNR(LinearSchedule(10)), 5, "karras"),
            "`spacing` must be a different one for a schedule that ends at zero signal",
        ),
        (lambda: VPSchedule(0.0), "`beta_min` must be > 0 and less than a finite upper bound. Received: beta_min=0.0"),
        (lambda: VPSchedule(2.0, 1.0), "`beta_min` must be > 0 and less"),
        (lambda: SubVPSchedule("0.1"), "`beta_min` must be > 0 and less"),
        (lambda: VESchedule(1.0, np.inf), "`sigma_min` must be > 0 and less"),
        (lambda: EDMSchedule(-1.0), "`sigma_min` must be > 0 and less"),
        (lambda: Shifted(RectifiedFlowSchedule(), 0.0), "`shift` must be > 0"),
        (lambda: Shifted(VESchedule()), "`schedule` must be a ContinuousSchedule whose times run from 0 to 1"),
        (lambda: Shifted(EDMSchedule()), "`schedule` must be a ContinuousSchedule whose times run from 0 to 1"),
        (lambda: Shifted(LinearSchedule()), "`schedule` must be a ContinuousSchedule whose times run from 0 to 1"),
        (lambda: posterior(0.9, 0.1**0.5, 0.5, 0.75**0.5), "`sigma_s` must belong to a cleaner time"),
        (lambda: loss_weight("sigmoid", "v", LinearSchedule(10), 3, 0.5), "`weighting` must be one of"),
    ],
)
def test_bad_input(make, match):
    with pytest.raises(ValueError, match=match):
        make()
