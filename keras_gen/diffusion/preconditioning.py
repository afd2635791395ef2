"""All predictions as one: `x0 = skip x_t + out network([scale x_t, time])`, the preconditioning of EDM."""

from typing import Any

from keras_gen.core.arrays import namespace
from keras_gen.core.checks import check, check_choice
from keras_gen.diffusion.convert_prediction import PREDICTIONS, linear_form, to_x0
from keras_gen.diffusion.schedules.base import NoiseSchedule
from keras_gen.diffusion.schedules.continuous_schedule import ContinuousSchedule, check_continuous
from keras_gen.diffusion.schedules.discrete_schedule import DiscreteSchedule


def coefficients(prediction: str, schedule: NoiseSchedule, t: Any, sigma_data: float) -> dict[str, Any]:
    """Returns what a step needs to know of the times `t`: arrays for NumPy times, tensors for tensors.

        alpha, sigma  x_t = alpha x0 + sigma eps; in continuous time also d_alpha, d_sigma, their derivatives
        p, q          the prediction is p x0 + q eps
        skip, out     x0 = skip x_t + out prediction
        scale, time   the prediction is network([scale x_t, time])

    `scale` is 1 but for "edm", where it is `1 / sqrt(sigma^2 + alpha^2 sigma_data^2)`, and `time` is
    `schedule.network_time(t)` but for "edm", where it is `log(sigma / alpha) / 4`.
    """
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    derivatives = schedule.velocity(t) if prediction == "velocity" else None
    p, q = linear_form(prediction, alpha, sigma, derivatives, sigma_data)
    skip, out = to_x0(prediction, alpha, sigma, derivatives, sigma_data)
    scale, time = 0.0 * alpha + 1.0, schedule.network_time(t)
    if prediction == "edm":
        xp = namespace(t)
        scale = 1 / xp.sqrt(sigma**2 + (alpha * sigma_data) ** 2)
        time = 0.25 * (xp.log(sigma) - xp.log(alpha))
    result = {
        "t": t,
        "alpha": alpha,
        "sigma": sigma,
        "p": p,
        "q": q,
        "skip": skip,
        "out": out,
        "scale": scale,
        "time": time,
    }
    if isinstance(schedule, ContinuousSchedule):
        result["d_alpha"], result["d_sigma"] = schedule.derivatives(t)
    return result


def takes_real_times(prediction: str, schedule: NoiseSchedule) -> bool:
    """Returns whether the network is told real times, and not the integers of a discrete schedule."""
    return prediction == "edm" or not isinstance(schedule, DiscreteSchedule)


def check_prediction(prediction: str, schedule: NoiseSchedule) -> None:
    """Refuses a prediction that does not tell x0 at every time of the schedule."""
    check_choice("prediction", prediction, PREDICTIONS)
    if prediction == "velocity":
        check_continuous(schedule)
    undefined = prediction in ("epsilon", "score", "edm") and schedule.alpha(schedule.t_max) == 0
    rule = "be 'v', 'x0' or 'velocity' with a schedule that ends at zero signal-to-noise ratio"
    check(not undefined, "prediction", rule, repr(prediction))
