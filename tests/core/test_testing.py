"""The laws must also be able to fail: each check is given something that breaks it."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_gen import predictions, samplers, schedules
from keras_gen.core.frozen import StaysFrozen
from keras_gen.testing import (
    check_bijector,
    check_config,
    check_layer,
    check_prediction,
    check_sampler,
    check_schedule,
    check_time_sampler,
)

X = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")


@keras.saving.register_keras_serializable("keras_gen_tests")
class Affine(keras.layers.Layer):
    """y = exp(a) x + b."""

    def build(self, shape):
        self.a = self.add_weight(name="a", shape=(shape[-1],))
        self.b = self.add_weight(name="b", shape=(shape[-1],))

    def log_det(self, x):
        return ops.broadcast_to(ops.sum(self.a), (x.shape[0],))

    def call(self, x, condition=None, inverse=False):
        if inverse:
            return (x - self.b) * ops.exp(-self.a), -self.log_det(x)
        return ops.exp(self.a) * x + self.b, self.log_det(x)


@keras.saving.register_keras_serializable("keras_gen_tests")
class WrongLogDet(Affine):
    def log_det(self, x):
        return super().log_det(x) + 0.1


@keras.saving.register_keras_serializable("keras_gen_tests")
class WrongInverse(Affine):
    def call(self, x, condition=None, inverse=False):
        y, log_det = super().call(x, condition, inverse)
        return (y + 0.1, log_det) if inverse else (y, log_det)


def test_check_bijector():
    check_bijector(Affine, X)
    with pytest.raises(AssertionError, match="log_det must be that of the Jacobian"):
        check_bijector(WrongLogDet, X)
    with pytest.raises(AssertionError, match="must be x"):
        check_bijector(WrongInverse, X)


@keras.saving.register_keras_serializable("keras_gen_tests")
class Noise(keras.layers.Layer):
    def __init__(self, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, x):
        return x + keras.random.normal(ops.shape(x), dtype=x.dtype, seed=self.seed_generator)

    def get_config(self):
        return {**super().get_config(), "seed": self.seed}


@keras.saving.register_keras_serializable("keras_gen_tests")
class Forgetful(keras.layers.Layer):
    def __init__(self, units=1, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(units)

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        return self.dense(x)

    def get_config(self):
        return {"name": self.name}


@keras.saving.register_keras_serializable("keras_gen_tests")
class Deaf(keras.layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight(name="scale", shape=(shape[-1],))

    def call(self, x):
        return x * ops.stop_gradient(self.scale) + ops.sum(x * self.scale) * 0


def test_check_layer():
    check_layer(Noise, X, random=True)
    with pytest.raises(AssertionError, match="training=False must be deterministic"):
        check_layer(Noise, X)
    with pytest.raises(AssertionError, match="the same seed must give the same draw"):
        check_layer(lambda: Noise(None), X, random=True)
    with pytest.raises(AssertionError, match="a gradient must reach"):
        check_layer(Deaf, X)
    with pytest.raises((AssertionError, ValueError)):
        check_layer(lambda: Forgetful(2), X)  # its units do not survive the file


def test_check_config():
    class Changing(Noise):
        def get_config(self):
            return {**super().get_config(), "seed": self.seed + 1}

    with (
        keras.saving.custom_object_scope({"Changing": Changing}),
        pytest.raises(AssertionError, match="the configuration must survive"),
    ):
        check_config(Changing)


registered = keras.saving.register_keras_serializable("keras_gen_tests")


@registered
class ForgetsAnArgument(schedules.DiscreteSchedule):
    def __init__(self, num_steps=10, tau=1.0):
        self.tau = tau
        super().__init__(np.full(num_steps, 0.1 * tau))

    def get_config(self):
        return {"num_steps": self.num_steps}


@registered
class ChangesAnArgument(ForgetsAnArgument):
    def get_config(self):
        return {"num_steps": self.num_steps, "tau": 1.0}


def test_check_config_compares_signature_and_attributes():
    with pytest.raises(AssertionError, match="must return every argument of ForgetsAnArgument, and lacks tau"):
        check_config(ForgetsAnArgument)
    with pytest.raises(AssertionError, match="copy of ChangesAnArgument must have equal attributes: tau was 0.5"):
        check_config(lambda: ChangesAnArgument(10, 0.5))


@registered
class NotAScore(predictions.Prediction):
    """`x0_form` does not belong to `linear_form`."""

    def linear_form(self, alpha, sigma, derivatives=None):
        return 0.0 * alpha, -1.0 / sigma

    def x0_form(self, alpha, sigma, derivatives=None):
        return 1.0 / alpha, sigma / alpha


def test_check_prediction():
    with pytest.raises(AssertionError, match="x0 must be c_skip x_t"):
        check_prediction(NotAScore)


@registered
class WrongDerivatives(schedules.VPSchedule):
    def derivatives(self, t):
        d_alpha, d_sigma = super().derivatives(t)
        return 1.01 * d_alpha, d_sigma


@registered
class WrongInverse2(schedules.VPSchedule):
    def inverse_log_snr(self, log_snr):
        return super().inverse_log_snr(log_snr + 0.01)


@registered
class GrowingSNR(schedules.RectifiedFlowSchedule):
    def sigma(self, t):
        return 1 - super().sigma(t)


@pytest.mark.parametrize(
    ("make", "law"),
    [
        (WrongDerivatives, "derivatives must be those of alpha and sigma"),
        (WrongInverse2, "inverse_log_snr must be the inverse"),
        (GrowingSNR, "log_snr must decrease"),
    ],
)
def test_check_schedule(make, law):
    with pytest.raises(AssertionError, match=law):
        check_schedule(make)


@registered
class RealTimes(schedules.TimeSampler):
    def draw(self, batch, schedule, seed):
        return keras.random.uniform((batch,), seed=seed)


def test_check_time_sampler():
    with pytest.raises(AssertionError, match="times of LinearSchedule.* must not be float32"):
        check_time_sampler(RealTimes)


@registered
class DividesByAlpha(samplers.EulerSampler):
    """What it computes is right, where alpha is not 0."""

    def rows(self, schedule, times):
        alpha, sigma = schedule.alpha(times), schedule.sigma(times)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = alpha[1:] / alpha[:-1]
            return {**self.at(schedule, times[:-1]), "of_x": ratio, "step": sigma[1:] - ratio * sigma[:-1]}

    def step(self, denoise, x_t, row, noise):
        x0, _ = denoise(x_t, row)
        return row["of_x"] * x_t + row["step"] * (x_t - row["alpha"] * x0) / row["sigma"]


@registered
class OnlyAnEulerSamplerByName(samplers.DDIMSampler):
    """Inherits the class, and with it the inversion of steps that it does not take."""

    def step(self, denoise, x_t, row, noise):
        return super().step(denoise, 1.05 * x_t, row, noise)


class TakesItForItsParent(OnlyAnEulerSamplerByName):
    """As seen by an `isinstance` instead of the rule itself."""

    step = samplers.DDIMSampler.step
    rows = samplers.DDIMSampler.rows

    def run(self, denoise, inputs, state, first, last):
        return 2 * super().run(denoise, inputs, state, first, last)


@registered
class HalfAStep(samplers.EulerSampler):
    def step(self, denoise, x_t, row, noise):
        return x_t + 0.9 * (super().step(denoise, x_t, row, noise) - x_t)


def test_check_sampler():
    with pytest.raises(AssertionError, match="samples must be finite, or ZeroTerminalSNR.* refused"):
        check_sampler(lambda: DividesByAlpha(7, "trailing"))
    check_sampler(lambda: OnlyAnEulerSamplerByName(7))  # `invert` refuses it
    with pytest.raises(AssertionError, match="`invert` must lead back to the images, or refuse the sampler"):
        check_sampler(lambda: registered(TakesItForItsParent)(7))
    with pytest.raises(AssertionError, match="the error must be of order 1"):
        check_sampler(lambda: HalfAStep(7), order=1)


@keras.saving.register_keras_serializable("keras_gen_tests")
class Thaws(keras.layers.Layer):
    """Forgets that its sublayers are frozen, as Keras does."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(4, dtype=self.dtype_policy)

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        return self.dense(x)


@keras.saving.register_keras_serializable("keras_gen_tests")
class Keeps(StaysFrozen, Thaws):
    """Does not."""


def test_check_layer_that_is_frozen():
    check_layer(Keeps, X)
    with pytest.raises(AssertionError, match="what is frozen must stay frozen in a file: thaws.*/kernel"):
        check_layer(Thaws, X)
