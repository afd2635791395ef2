"""Predictions of a network, as linear forms of x0 and eps."""

import abc
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_gen.core.arrays import array_module
from keras_gen.core.checks import (
    NUMPY,
    check,
    check_broadcast,
    check_choice,
    check_finite,
    check_given,
    check_positive,
    float_tensors,
    is_number,
    same_shape,
)
from keras_gen.core.configured import Configured
from keras_gen.diffusion.schedules.base import NoiseSchedule
from keras_gen.diffusion.schedules.continuous import ContinuousSchedule, check_continuous
from keras_gen.export import keras_gen_export

SIGMA_DATA = 0.5


@keras_gen_export("keras_gen.predictions.Prediction")
class Prediction(Configured, abc.ABC):
    """Base class of predictions: the output of a network, a linear form `p x0 + q eps` of data and noise.

    With `x_t = alpha x0 + sigma eps` and `D = alpha q - sigma p`, both are recovered from the prediction:

        x0  = c_skip x_t + c_out prediction,   c_skip = q / D,   c_out = -sigma / D
        eps = (alpha prediction - p x_t) / D

    Subclasses return `(p, q)` from `linear_form`, and the constructor's arguments from `get_config`; register them with
    `keras.saving.register_keras_serializable`, so that saved models can be loaded. Override `input_scale` to scale the
    network's input, and `network_time` to change its time.

    Attributes:
        needs_derivatives: bool. Whether `linear_form` needs d alpha / dt and d sigma / dt, so that the schedule must be
            a `ContinuousSchedule`.

    Reference: Salimans and Ho 2022, arXiv:2202.00512, appendix D.
    """

    needs_derivatives: bool = False

    @abc.abstractmethod
    def linear_form(self, alpha: Any, sigma: Any, derivatives: tuple[Any, Any] | None = None) -> tuple[Any, Any]:
        """Returns p and q, arrays or tensors like `alpha`; `derivatives` are d alpha / dt and d sigma / dt."""

    def x0_form(self, alpha: Any, sigma: Any, derivatives: tuple[Any, Any] | None = None) -> tuple[Any, Any]:
        """Returns c_skip and c_out of `x0 = c_skip x_t + c_out prediction`; arguments as for `linear_form`."""
        p, q = self.linear_form(alpha, sigma, derivatives)
        determinant = alpha * q - sigma * p
        return q / determinant, -sigma / determinant

    def input_scale(self, alpha: Any, sigma: Any) -> Any:
        """Returns c_in, the factor of the network's input x_t, or `None` for 1."""
        return None

    def network_time(self, schedule: NoiseSchedule, t: Any) -> Any:
        """Returns the time that the network is conditioned on; by default `schedule.network_time(t)`."""
        return schedule.network_time(t)


@keras_gen_export("keras_gen.predictions.Epsilon")
class Epsilon(Prediction):
    """The noise: p = 0, q = 1. Short form: `"epsilon"`.

    Reference: Ho et al. 2020, arXiv:2006.11239; https://kexue.fm/archives/9119.
    """

    def linear_form(self, alpha: Any, sigma: Any, derivatives: tuple[Any, Any] | None = None) -> tuple[Any, Any]:
        return 0.0 * alpha, 0.0 * alpha + 1.0


@keras_gen_export("keras_gen.predictions.X0")
class X0(Prediction):
    """The data: p = 1, q = 0. Short form: `"x0"`.

    Reference: Ho et al. 2020, arXiv:2006.11239; https://kexue.fm/archives/9164.
    """

    def linear_form(self, alpha: Any, sigma: Any, derivatives: tuple[Any, Any] | None = None) -> tuple[Any, Any]:
        return 0.0 * alpha + 1.0, 0.0 * alpha

    def x0_form(self, alpha: Any, sigma: Any, derivatives: tuple[Any, Any] | None = None) -> tuple[Any, Any]:
        return 0.0 * alpha, 0.0 * alpha + 1.0  # the general form is 0 / 0 for clean data


@keras_gen_export("keras_gen.predictions.V")
class V(Prediction):
    """The v of progressive distillation: p = -sigma, q = alpha. Short form: `"v"`.

    Reference: Salimans and Ho 2022, arXiv:2202.00512, appendix D.
    """

    def linear_form(self, alpha: Any, sigma: Any, derivatives: tuple[Any, Any] | None = None) -> tuple[Any, Any]:
        return -sigma, alpha


@keras_gen_export("keras_gen.predictions.Velocity")
class Velocity(Prediction):
    """The velocity of the trajectory: p = d alpha / dt, q = d sigma / dt. Short form: `"velocity"`.

    Raises:
        ValueError: if the schedule is not a `ContinuousSchedule`.

    Reference: Lipman et al. 2022, arXiv:2210.02747; https://kexue.fm/archives/9497.
    """

    needs_derivatives = True

    def linear_form(self, alpha: Any, sigma: Any, derivatives: tuple[Any, Any] | None = None) -> tuple[Any, Any]:
        return check_given("derivatives", derivatives, "be given for velocity")


@keras_gen_export("keras_gen.predictions.Score")
class Score(Prediction):
    """The score of the noised data, `d/dx_t log p(x_t | x0)`: p = 0, q = -1 / sigma. Short form: `"score"`.

    Reference: Song et al. 2020, arXiv:2011.13456; https://kexue.fm/archives/9209.
    """

    def linear_form(self, alpha: Any, sigma: Any, derivatives: tuple[Any, Any] | None = None) -> tuple[Any, Any]:
        return 0.0 * alpha, -1.0 / sigma


@keras_gen_export("keras_gen.predictions.Preconditioned")
class Preconditioned(Prediction):
    """EDM's preconditioned network: inputs and targets of unit variance at every noise level. Short form: `"edm"`.

        p = sigma / (r sigma_data),   q = -alpha sigma_data / r,   r^2 = sigma^2 + alpha^2 sigma_data^2
        the network's input is x_t / r, its time log(sigma / alpha) / 4

    Args:
        sigma_data: float > 0, standard deviation of the data. Defaults to `0.5`.

    Raises:
        ValueError: if `sigma_data` is not > 0.

    Reference: Karras et al. 2022, arXiv:2206.00364, table 1.
    """

    def __init__(self, sigma_data: float = SIGMA_DATA):
        self.sigma_data = check_positive("sigma_data", sigma_data)

    def linear_form(self, alpha: Any, sigma: Any, derivatives: tuple[Any, Any] | None = None) -> tuple[Any, Any]:
        r = self._std(alpha, sigma)
        return sigma / (r * self.sigma_data), -alpha * self.sigma_data / r

    def input_scale(self, alpha: Any, sigma: Any) -> Any:
        return 1 / self._std(alpha, sigma)

    def network_time(self, schedule: NoiseSchedule, t: Any) -> Any:
        xp = array_module(t)
        return 0.25 * (xp.log(schedule.sigma(t)) - xp.log(schedule.alpha(t)))

    def get_config(self) -> dict[str, Any]:
        return {"sigma_data": self.sigma_data}

    def _std(self, alpha: Any, sigma: Any) -> Any:
        return array_module(alpha).sqrt(sigma**2 + (alpha * self.sigma_data) ** 2)


PREDICTIONS: dict[str, Callable[[], Prediction]] = {
    "epsilon": Epsilon,
    "x0": X0,
    "v": V,
    "velocity": Velocity,
    "score": Score,
    "edm": Preconditioned,
}


def as_prediction(value: Any, sigma_data: float = SIGMA_DATA, name: str = "prediction") -> Prediction:
    """Converts a short form to a prediction; returns a `Prediction` unchanged."""
    if isinstance(value, Prediction):
        return value
    check_choice(name, value, PREDICTIONS)
    return Preconditioned(sigma_data) if value == "edm" else PREDICTIONS[value]()


def short_form(prediction: Prediction) -> Any:
    """Returns the entry of a prediction in a model's configuration: the short form, or the serialized object."""
    short = {cls: name for name, cls in PREDICTIONS.items()}
    return short.get(type(prediction)) or keras.saving.serialize_keras_object(prediction)


@keras_gen_export("keras_gen.ops.convert_prediction")
def convert_prediction(
    value: Any,
    source: str | Prediction,
    target: str | Prediction,
    x_t: Any,
    alpha: Any,
    sigma: Any,
    derivatives: tuple[Any, Any] | None = None,
    sigma_data: float = SIGMA_DATA,
) -> Any:
    """Converts a network's output from one prediction to another, given `x_t = alpha x0 + sigma eps`.

    Each prediction is a linear form `p x0 + q eps`:

        epsilon   p = 0,                      q = 1
        x0        p = 1,                      q = 0
        v         p = -sigma,                 q = alpha
        velocity  p = d alpha / dt,           q = d sigma / dt
        score     p = 0,                      q = -1 / sigma
        edm       p = sigma / (r sigma_data), q = -alpha sigma_data / r,   r^2 = sigma^2 + alpha^2 sigma_data^2

    and with `D = alpha q - sigma p` data and noise are `x0 = (q x_t - sigma value) / D` and
    `eps = (alpha value - p x_t) / D`.

    Args:
        value: the prediction, of the shape of `x_t`.
        source: one of these names, or a `Prediction`: the type of `value`.
        target: one of these names, or a `Prediction`: the type to convert to.
        x_t: noised data `(batch, ...)`, NumPy or tensor.
        alpha: factor of the data, a number or broadcastable to `x_t`. Not 0 if `source` is `"epsilon"` or `"score"`.
        sigma: factor of the noise, likewise. Not 0 if `source` is `"x0"` and `target` is not.
        derivatives: d alpha / dt and d sigma / dt, likewise; only for `"velocity"`. Defaults to `None`.
        sigma_data: float > 0, standard deviation of the data; only for `"edm"`. Defaults to `0.5`.

    Returns:
        The `target` prediction, of the shape of `x_t`.

    Raises:
        ValueError: if `source` or `target` is unknown, `sigma_data` is not > 0, `derivatives` are missing, an argument
            is not of real numbers, or a NumPy array that is not finite, or the shapes do not match.

    Reference: Salimans and Ho 2022, arXiv:2202.00512, appendix D; Karras et al. 2022, arXiv:2206.00364, table 1.
    """
    check_positive("sigma_data", sigma_data)
    named = {"value": value, "x_t": x_t, "alpha": alpha, "sigma": sigma}
    if derivatives is not None:
        is_pair = isinstance(derivatives, tuple | list) and len(derivatives) == 2
        check(is_pair, "derivatives", "be a pair (d alpha / dt, d sigma / dt)", derivatives)
        named |= {"d alpha / dt": derivatives[0], "d sigma / dt": derivatives[1]}
    value, x_t, alpha, sigma, *rates = _of_one_kind(named)
    shape = getattr(x_t, "shape", ())
    is_same = same_shape(getattr(value, "shape", ()), shape)
    check(is_same, "value", f"have the shape of x_t, {tuple(shape)}", f"shape {getattr(value, 'shape', ())}")
    for name, factor in zip([*named][2:], (alpha, sigma, *rates), strict=True):
        check_broadcast(name, factor, shape)
    derivatives = (rates[0], rates[1]) if rates else None
    source, target = as_prediction(source, sigma_data, "source"), as_prediction(target, sigma_data, "target")
    if source == target:
        return value
    c_skip, c_out = source.x0_form(alpha, sigma, derivatives)
    x0 = c_skip * x_t + c_out * value
    if type(target) is X0:
        return x0
    if type(source) is X0:
        eps = (x_t - alpha * x0) / sigma
    else:
        p, q = source.linear_form(alpha, sigma, derivatives)
        eps = (alpha * value - p * x_t) / (alpha * q - sigma * p)
    p, q = target.linear_form(alpha, sigma, derivatives)
    return p * x0 + q * eps


def _of_one_kind(named: dict[str, Any]) -> list[Any]:
    """Returns finite numbers as floats, and arrays as NumPy or, if there is a tensor among them, as tensors."""
    for name, value in named.items():
        check_finite(name, value)
    numbers = {name: float(value) for name, value in named.items() if is_number(value)}
    others = {name: value for name, value in named.items() if name not in numbers}
    if all(isinstance(value, NUMPY) for value in others.values()):
        arrays = [np.asarray(value) for value in others.values()]
        arrays = [array if array.dtype.kind == "f" else array.astype("float64") for array in arrays]
    else:
        arrays = float_tensors(others)
    converted = numbers | dict(zip(others, arrays, strict=True))
    return [converted[name] for name in named]


def coefficients(prediction: Prediction, schedule: NoiseSchedule, t: Any) -> dict[str, Any]:
    """Returns the model's coefficients at the times `t`: arrays for NumPy times, tensors for tensors.

    alpha, sigma   x_t = alpha x0 + sigma eps; in continuous time also d_alpha, d_sigma, their derivatives
    p, q           the prediction is p x0 + q eps
    c_skip, c_out  x0 = c_skip x_t + c_out prediction
    c_in, time     the prediction is network([c_in x_t, time]); without a c_in the input is x_t itself
    """
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    derivatives = check_continuous(schedule).velocity(t) if prediction.needs_derivatives else None
    p, q = prediction.linear_form(alpha, sigma, derivatives)
    c_skip, c_out = prediction.x0_form(alpha, sigma, derivatives)
    time = prediction.network_time(schedule, t)
    result = {"t": t, "alpha": alpha, "sigma": sigma, "p": p, "q": q, "c_skip": c_skip, "c_out": c_out, "time": time}
    c_in = prediction.input_scale(alpha, sigma)
    if c_in is not None:
        result["c_in"] = c_in
    if isinstance(schedule, ContinuousSchedule):
        result["d_alpha"], result["d_sigma"] = schedule.derivatives(t)
    return result


def takes_real_times(prediction: Prediction, schedule: NoiseSchedule) -> bool:
    """Returns whether the network is conditioned on real times, and not on the integers of a discrete schedule."""
    return np.asarray(prediction.network_time(schedule, schedule.t_min)).dtype.kind == "f"


def check_prediction(prediction: Prediction, schedule: NoiseSchedule) -> None:
    """Raises `ValueError` for a prediction that does not determine x0 at every time of the schedule."""
    if prediction.needs_derivatives:
        check_continuous(schedule)
    with np.errstate(divide="ignore", invalid="ignore"):
        noisiest = coefficients(prediction, schedule, np.asarray(schedule.t_max))
    is_finite = all(np.isfinite(noisiest[name]) for name in ("c_skip", "c_out", "time"))
    rule = "be 'v', 'x0' or 'velocity' with a schedule that ends at zero signal-to-noise ratio"
    check(is_finite, "prediction", rule, repr(prediction))
