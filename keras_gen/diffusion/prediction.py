"""What a network may predict, each as a linear form of x0 and eps, and EDM's preconditioning, which all of them are."""

from typing import Any

from keras_gen.core.arrays import array_module
from keras_gen.core.checks import check, check_choice, is_number
from keras_gen.diffusion.schedules.base import NoiseSchedule
from keras_gen.diffusion.schedules.continuous import ContinuousSchedule, check_continuous
from keras_gen.diffusion.schedules.discrete import DiscreteSchedule
from keras_gen.export import keras_gen_export

PREDICTIONS = ("epsilon", "x0", "v", "velocity", "score", "edm")
SIGMA_DATA = 0.5


@keras_gen_export("keras_gen.ops.convert_prediction")
def convert_prediction(
    value: Any,
    source: str,
    target: str,
    x_t: Any,
    alpha: Any,
    sigma: Any,
    derivatives: tuple[Any, Any] | None = None,
    sigma_data: float = SIGMA_DATA,
) -> Any:
    """Turns what a network predicts into another prediction, given `x_t = alpha x0 + sigma eps`.

    Each prediction is a linear form `p x0 + q eps`:

        epsilon   p = 0,                      q = 1
        x0        p = 1,                      q = 0
        v         p = -sigma,                 q = alpha
        velocity  p = d alpha / dt,           q = d sigma / dt
        score     p = 0,                      q = -1 / sigma
        edm       p = sigma / (r sigma_data), q = -alpha sigma_data / r,   r^2 = sigma^2 + alpha^2 sigma_data^2

    and with `D = alpha q - sigma p` both are found from it: `x0 = (q x_t - sigma value) / D` and
    `eps = (alpha value - p x_t) / D`.

    Args:
        value: the prediction, of the shape of `x_t`.
        source: one of these names: what `value` is.
        target: one of these names: what to return.
        x_t: noised data `(batch, ...)`, NumPy or tensor.
        alpha: factor of the data, a number or broadcastable to `x_t`. Not 0 if `source` is `"epsilon"` or `"score"`.
        sigma: factor of the noise, likewise. Not 0 if `source` is `"x0"` and `target` is not.
        derivatives: d alpha / dt and d sigma / dt, likewise; for `"velocity"` alone. Defaults to `None`.
        sigma_data: float > 0, standard deviation of the data; for `"edm"` alone. Defaults to `0.5`.

    Returns:
        The `target` prediction, of the shape of `x_t`.

    Raises:
        ValueError: if `source` or `target` is unknown, `sigma_data` is not > 0, or `derivatives` are missing.

    Reference: Salimans and Ho 2022, arXiv:2202.00512, appendix D; Karras et al. 2022, arXiv:2206.00364, table 1.
    """
    check_choice("source", source, PREDICTIONS)
    check_choice("target", target, PREDICTIONS)
    check(is_number(sigma_data) and sigma_data > 0, "sigma_data", "be > 0", repr(sigma_data))
    if source == target:
        return value
    c_skip, c_out = to_x0(source, alpha, sigma, derivatives, sigma_data)
    x0 = c_skip * x_t + c_out * value
    if target == "x0":
        return x0
    if source == "x0":
        eps = (x_t - alpha * x0) / sigma
    else:
        p, q = linear_form(source, alpha, sigma, derivatives, sigma_data)
        eps = (alpha * value - p * x_t) / (alpha * q - sigma * p)
    p, q = linear_form(target, alpha, sigma, derivatives, sigma_data)
    return p * x0 + q * eps


def linear_form(
    prediction: str,
    alpha: Any,
    sigma: Any,
    derivatives: tuple[Any, Any] | None = None,
    sigma_data: float = SIGMA_DATA,
) -> tuple[Any, Any]:
    """Returns p and q of `prediction = p x0 + q eps`; arguments as above."""
    zero, one = 0.0 * alpha, 0.0 * alpha + 1.0
    match prediction:
        case "epsilon":
            return zero, one
        case "x0":
            return one, zero
        case "v":
            return -sigma, alpha
        case "velocity":
            check(derivatives is not None, "derivatives", "be given for velocity", None)
            return derivatives
        case "score":
            return zero, -1.0 / sigma
        case _:
            r = array_module(alpha).sqrt(sigma**2 + alpha**2 * sigma_data**2)
            return sigma / (r * sigma_data), -alpha * sigma_data / r


def to_x0(
    prediction: str,
    alpha: Any,
    sigma: Any,
    derivatives: tuple[Any, Any] | None = None,
    sigma_data: float = SIGMA_DATA,
) -> tuple[Any, Any]:
    """Returns the factors of `x_t` and of the prediction that give x0; arguments as above."""
    if prediction == "x0":  # in the general form 0 / 0 for clean data
        return 0.0 * alpha, 0.0 * alpha + 1.0
    p, q = linear_form(prediction, alpha, sigma, derivatives, sigma_data)
    return q / (alpha * q - sigma * p), -sigma / (alpha * q - sigma * p)


def coefficients(prediction: str, schedule: NoiseSchedule, t: Any, sigma_data: float) -> dict[str, Any]:
    """Returns what a step needs to know of the times `t`: arrays for NumPy times, tensors for tensors.

        alpha, sigma   x_t = alpha x0 + sigma eps; in continuous time also d_alpha, d_sigma, their derivatives
        p, q           the prediction is p x0 + q eps
        c_skip, c_out  x0 = c_skip x_t + c_out prediction
        c_in, time     the prediction is network([c_in x_t, time])

    `c_in` is 1 but for "edm", where it is `1 / sqrt(sigma^2 + alpha^2 sigma_data^2)`, and `time` is
    `schedule.network_time(t)` but for "edm", where it is `log(sigma / alpha) / 4`.
    """
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    derivatives = schedule.velocity(t) if prediction == "velocity" else None
    p, q = linear_form(prediction, alpha, sigma, derivatives, sigma_data)
    c_skip, c_out = to_x0(prediction, alpha, sigma, derivatives, sigma_data)
    c_in, time = 0.0 * alpha + 1.0, schedule.network_time(t)
    if prediction == "edm":
        xp = array_module(t)
        c_in = 1 / xp.sqrt(sigma**2 + (alpha * sigma_data) ** 2)
        time = 0.25 * (xp.log(sigma) - xp.log(alpha))
    result = {
        "t": t,
        "alpha": alpha,
        "sigma": sigma,
        "p": p,
        "q": q,
        "c_skip": c_skip,
        "c_out": c_out,
        "c_in": c_in,
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
