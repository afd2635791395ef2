"""Gaussian data, for which the best denoiser and all that follows from it are known."""

import keras
import numpy as np
from keras import ops

from keras_gen.models import DDPM


class GaussianDenoiser(keras.layers.Layer):
    """The exact E[eps | x_t] (or x0, v) of data N(mean, std^2), and a fixed share of the large variance if wanted."""

    def __init__(self, schedule, mean, std, prediction="epsilon", share=None):
        super().__init__()
        t = np.arange(schedule.num_steps)
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        variance = alpha**2 * std**2 + sigma**2
        # each prediction is linear in x_t: slope x_t + offset
        x0 = alpha * std**2 / variance, mean - alpha * std**2 / variance * alpha * mean
        epsilon = sigma / variance, -sigma / variance * alpha * mean
        v = tuple(alpha * e - sigma * x for e, x in zip(epsilon, x0, strict=True))
        slope, offset = {"x0": x0, "epsilon": epsilon, "v": v}[prediction]
        self.slope, self.offset, self.share = slope.astype("float32"), offset.astype("float32"), share

    def call(self, inputs):
        x_t, t = inputs
        shape = (-1, *[1] * (len(x_t.shape) - 1))
        slope, offset = (ops.reshape(ops.take(table, t), shape) for table in (self.slope, self.offset))
        output = slope * x_t + offset
        if self.share is None:
            return output
        return ops.concatenate([output, ops.full_like(output, 2 * self.share - 1)], axis=-1)


def gaussian_ddpm(schedule, mean=0.3, std=0.5, shape=(4, 4, 1), prediction="epsilon", share=None, **options):
    network = GaussianDenoiser(schedule, mean, std, prediction, share)
    model = DDPM(network, schedule, prediction=prediction, seed=0, **options)
    model.build((None, *shape))
    return model


def slope_of_x0(schedule, t, std):
    """d E[x0 | x_t] / d x_t."""
    return schedule.alpha(t) * std**2 / (schedule.alpha(t) ** 2 * std**2 + schedule.sigma(t) ** 2)
