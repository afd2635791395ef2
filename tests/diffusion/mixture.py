"""Data whose numbers are independent draws from one mixture of Gaussians: the best denoiser and the density are known.

One component makes it Gaussian data.
"""

import itertools

import keras
import numpy as np
from keras import ops

from keras_gen.core.arrays import array_module
from keras_gen.diffusion.prediction import as_prediction
from keras_gen.diffusion.schedules.discrete import DiscreteSchedule
from keras_gen.models import DDPM, EDM, RectifiedFlow, ScoreSDE
from keras_gen.predictions import Preconditioned
from keras_gen.schedules import EDMSchedule, RectifiedFlowSchedule, Shifted


class Mixture:
    def __init__(self, weights, means, stds):
        self.weights, self.means, self.stds = (np.asarray(values, "float64") for values in (weights, means, stds))

    @property
    def mean(self):
        return (self.weights * self.means).sum()

    @property
    def std(self):
        return np.sqrt((self.weights * (self.stds**2 + self.means**2)).sum() - self.mean**2)

    def sample(self, shape, rng):
        component = rng.choice(len(self.weights), size=shape, p=self.weights)
        return self.means[component] + self.stds[component] * rng.normal(size=shape)

    def log_prob(self, x, alpha=1.0, sigma=0.0):
        """The log-density of each x_t, summed over all axes but the first."""
        offset, variance = x[..., None] - alpha * self.means, alpha**2 * self.stds**2 + sigma**2
        terms = np.log(self.weights) - 0.5 * np.log(2 * np.pi * variance) - 0.5 * offset**2 / variance
        return np.logaddexp.reduce(terms, axis=-1).sum(axis=tuple(range(1, x.ndim)))

    def predict(self, x_t, alpha, sigma):
        """E[x0 | x_t] and E[eps | x_t], in NumPy's float64 or in tensors; alpha and sigma broadcast to x_t."""
        xp = array_module(x_t)
        weights, means, stds = (self.weights, self.means, self.stds)
        if xp is ops:
            weights, means, stds = (ops.convert_to_tensor(values, "float32") for values in (weights, means, stds))
            alpha, sigma = ops.expand_dims(alpha, -1), ops.expand_dims(sigma, -1)
        else:
            alpha, sigma = np.asarray(alpha)[..., None], np.asarray(sigma)[..., None]
        variance = alpha**2 * stds**2 + sigma**2
        offset = xp.expand_dims(x_t, -1) - alpha * means
        logits = xp.log(weights) - 0.5 * xp.log(variance) - 0.5 * offset**2 / variance
        largest = xp.max(logits, axis=-1, keepdims=True)
        if xp is ops:
            largest = ops.stop_gradient(largest)  # XLA may compute it twice, and then find no largest: 0 / 0
        share = xp.exp(logits - largest)
        share = share / xp.sum(share, axis=-1, keepdims=True)
        x0 = xp.sum(share * (means + alpha * stds**2 / variance * offset), axis=-1)
        return x0, xp.sum(share * sigma / variance * offset, axis=-1)


def gaussian(mean=0.3, std=0.5):
    return Mixture([1.0], [mean], [std])


# Centred: of others the density at t_max differs from the prior by as much as alpha.
PAIR = Mixture([0.4, 0.6], [-0.6, 0.4], [0.2, 0.3])


class MixtureDenoiser(keras.layers.Layer):
    """The exact prediction for such data, as a network, and a fixed share of the large variance if wanted.

    `seen` collects the times that it is told, where the loop runs step by step (torch).
    """

    def __init__(self, mixture, schedule, prediction="epsilon", share=None, sigma_data=0.5):
        super().__init__()
        self.mixture, self.schedule, self.share = mixture, schedule, share
        self.prediction = as_prediction(prediction, sigma_data)

    def call(self, inputs):
        x, time = inputs
        column = (-1, *[1] * (len(x.shape) - 1))
        alpha, sigma, derivatives = (
            keras.tree.map_structure(lambda value: ops.reshape(value, column), part) for part in self.factors(time)
        )
        x0, eps = self.mixture.predict(x, alpha, sigma)
        p, q = self.prediction.linear_form(alpha, sigma, derivatives)
        output = p * x0 + q * eps
        if self.share is None:
            return output
        return ops.concatenate([output, ops.full_like(output, 2 * self.share - 1)], axis=-1)

    def factors(self, time):
        schedule = self.schedule
        if isinstance(self.prediction, Preconditioned):  # its input is scaled, too
            level = ops.exp(4 * time)
            scale = 1 / ops.sqrt(level**2 + self.prediction.sigma_data**2)
            return scale, level * scale, ()
        if isinstance(schedule, DiscreteSchedule):
            return schedule.alpha(time), schedule.sigma(time), ()
        if isinstance(schedule, Shifted):  # it is told the time of the schedule within
            schedule = schedule.schedule
        t = ops.exp(4 * time) if isinstance(schedule, EDMSchedule) else time / 1000
        return schedule.alpha(t), schedule.sigma(t), schedule.derivatives(t)


def exact_model(schedule, mixture=None, prediction="epsilon", shape=(2,), share=None, **options):
    """The model that knows the mixture, of the class that fits the schedule and the prediction."""
    mixture = gaussian() if mixture is None else mixture
    sigma_data = options.get("sigma_data", 0.5)
    network = MixtureDenoiser(mixture, schedule, prediction, share, sigma_data)
    if isinstance(schedule, DiscreteSchedule):
        model = DDPM(network, schedule, prediction, seed=0, **options)
    elif isinstance(schedule, EDMSchedule) and prediction == "edm":
        model = EDM(network, schedule, seed=0, **options)
    elif isinstance(getattr(schedule, "schedule", schedule), RectifiedFlowSchedule) and prediction == "velocity":
        model = RectifiedFlow(network, schedule, seed=0, **options)
    else:
        model = ScoreSDE(network, schedule, prediction, seed=0, **options)
    model.build((None, *shape))
    return model


def slope_of_x0(schedule, t, std):
    """d E[x0 | x_t] / d x_t for Gaussian data."""
    return schedule.alpha(t) * std**2 / (schedule.alpha(t) ** 2 * std**2 + schedule.sigma(t) ** 2)


def followed_moments(schedule, sampler, mean, std, start=(0.0, 1.0), noise_power=None):
    """Mean and deviation of the samples of a linear sampler, followed step by step for the exact Gaussian denoiser.

    The sampler's rows have `x_t`, `x0` and, but for plain DDIM, a `deviation`.
    """
    times = sampler.times(schedule)
    rows = sampler.rows(schedule, times)
    m, variance = start[0], start[1] ** 2
    for i, (t, _) in enumerate(itertools.pairwise(times)):
        slope = slope_of_x0(schedule, t, std)
        added = rows["std"][i] ** 2
        m = rows["of_x_t"][i] * m + rows["of_x0"][i] * (mean + slope * (m - schedule.alpha(t) * mean))
        variance = (rows["of_x_t"][i] + rows["of_x0"][i] * slope) ** 2 * variance + added
    return m, np.sqrt(variance)
