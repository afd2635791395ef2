import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_gen.diffusion.loss_weight import loss_weight
from keras_gen.diffusion.posterior import reverse_rows
from keras_gen.diffusion.time_grid import SPACINGS, time_grid
from keras_gen.schedules import (
    CosineSchedule,
    DiscreteSchedule,
    KexueSchedule,
    LinearSchedule,
    ScaledLinearSchedule,
    ZeroTerminalSNR,
    posterior,
)

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
    rows = reverse_rows(schedule, time_grid(100, 100, "trailing"))
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


@quick
@given(st.integers(1, 1000), st.data(), st.sampled_from(SPACINGS))
def test_time_grid_falls_to_clean_data(num_steps, data, spacing):
    steps = data.draw(st.integers(1, num_steps))
    times = time_grid(num_steps, steps, spacing)
    assert times.shape == (steps + 1,)
    assert (np.diff(times) < 0).all()
    assert times[-1] == -1
    assert times[0] < num_steps
    if spacing != "leading":
        assert times[0] == num_steps - 1


def test_leading_reaches_down_the_whole_schedule():
    """A stride of floor(T / N) would start 400 of 1000 steps at 798."""
    assert time_grid(1000, 400, "leading")[0] == 997


def test_time_grids_of_the_paper():
    assert time_grid(1000, 4, "leading").tolist() == [750, 500, 250, 0, -1]
    assert time_grid(1000, 4, "linspace").tolist() == [999, 666, 333, 0, -1]
    assert time_grid(1000, 4, "trailing").tolist() == [999, 749, 499, 249, -1]


@pytest.mark.parametrize("weighting", ["snr", "min_snr"])
def test_weightings_mean_the_same_for_every_prediction(weighting):
    schedule, t = CosineSchedule(100), np.arange(100)
    snr = np.exp(schedule.log_snr(t))
    on_x0 = loss_weight(weighting, "x0", schedule)
    np.testing.assert_allclose(loss_weight(weighting, "epsilon", schedule) * snr, on_x0, rtol=1e-9)
    np.testing.assert_allclose(loss_weight(weighting, "v", schedule) * (snr + 1), on_x0, rtol=1e-9)
    assert on_x0.max() <= (5 if weighting == "min_snr" else np.inf)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: LinearSchedule(beta_start=0.0), r"`beta_start` must be in \(0, 1\). Received: beta_start=0.0"),
        (lambda: LinearSchedule(beta_end=1.0), "`beta_end` must be in"),
        (lambda: LinearSchedule(0), "`num_steps` must be an integer >= 1. Received: num_steps=0"),
        (lambda: LinearSchedule(True), "`num_steps` must be an integer"),
        (lambda: ScaledLinearSchedule(beta_end=-0.1), "`beta_end` must be in"),
        (lambda: KexueSchedule(beta_end=2), "`beta_end` must be in"),
        (lambda: CosineSchedule(offset=-1), "`offset` must be a number >= 0"),
        (lambda: CosineSchedule(max_beta=1.0), "`max_beta` must be in"),
        (lambda: DiscreteSchedule([]), "`betas` must be a non-empty sequence"),
        (lambda: DiscreteSchedule([0.1, 1.5]), r"`betas` must be in \(0, 1\). Received: betas=\[1.5\]"),
        (lambda: DiscreteSchedule([0.1, np.nan]), r"`betas` must be in \(0, 1\)"),
        (lambda: ZeroTerminalSNR(LinearSchedule(1)), "`schedule` must be a DiscreteSchedule of at least two"),
        (lambda: LinearSchedule(10).alpha(10), "`t` must be integers in -1 .. 9"),
        (lambda: LinearSchedule(10).alpha(0.5), "`t` must be integers"),
        (lambda: time_grid(10, 11, "leading"), "`steps` must be at most the schedule's number of steps, 10"),
        (lambda: time_grid(10, 5, "karras"), "`spacing` must be one of 'leading', 'linspace', 'trailing'"),
        (lambda: posterior(0.9, 0.1**0.5, 0.5, 0.75**0.5), "`sigma_s` must be the noise of a cleaner time"),
        (lambda: loss_weight("sigmoid", "v", LinearSchedule(10)), "`weighting` must be one of"),
    ],
)
def test_bad_input(make, match):
    with pytest.raises(ValueError, match=match):
        make()
