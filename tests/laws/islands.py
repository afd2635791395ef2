"""What is computed in full float32 on any device: everything but the layers of networks, wherever it has products."""

import keras
import numpy as np
from keras import ops
from programs import one_program

from keras_gen import layers, losses, metrics
from keras_gen.core.fixtures import randomize_weights
from keras_gen.networks.backbones.fid_inception import Pixels
from keras_gen.networks.blocks.resizing import bicubic_weights
from keras_gen.ops import gradient, k_occurrence, nearest_code, nearest_neighbors, rational_quadratic_spline


def two_clusters(n, dim, seed):
    """Points far from their mean: rounded products lose the digits of the distances within a cluster."""
    rng = np.random.default_rng(seed)
    points = rng.standard_normal((n, dim), "float32") / 4
    points[::2] += 40 / np.sqrt(dim)
    return points


POINTS, QUERIES = (two_clusters(64, 8, seed) for seed in (0, 1))


def tensor(*shape):
    return ops.convert_to_tensor(np.random.default_rng(1).standard_normal(shape, "float32"))


def invertible_1x1_conv():
    layer, x = layers.Invertible1x1Conv(seed=0), tensor(3, 2, 2, 8)
    layer.build(x.shape)
    randomize_weights(layer)

    def sines(x, upper):
        with keras.StatelessScope(state_mapping=[(layer.upper, upper)]):
            return ops.sin(layer(x)[0])

    def results(x, upper):
        by_x, by_upper = gradient(lambda x: sines(x, upper), x), gradient(lambda upper: sines(x, upper), upper)
        return layer(x), layer(x, inverse=True), by_x, by_upper

    return one_program(layer, results)(x, ops.convert_to_tensor(layer.upper))


def spline():
    def results(x, parameters):
        by_parameters = gradient(lambda p: rational_quadratic_spline(x, p)[0], parameters)
        return *(rational_quadratic_spline(x, parameters, inverse=inverse) for inverse in (False, True)), by_parameters

    return one_program(None, results)(tensor(3, 4), tensor(3, 4, 11))


def precision_recall():
    metric = metrics.PrecisionRecall(None, k=2)
    metric.update_state(POINTS, 0.9 * QUERIES)
    return list(metric.result().values())


def info_nce():
    loss = losses.InfoNCE(0.5)

    def results(a, b):
        return loss(a, b), gradient(lambda a: loss(a, b), a), gradient(lambda b: loss(a, b), b)

    return one_program(None, results)(tensor(6, 8), tensor(6, 8) + 0.1)


def lookup_free():
    quantizer, x = layers.LookupFreeQuantizer(16, temperature=0.1), tensor(5, 4)
    quantizer.build(x.shape)

    def entropy(x):
        return quantizer.assign_codes(x, None, False)[2]["entropy"]

    return one_program(quantizer, lambda x: gradient(entropy, x))(x)


def nearest():
    return one_program(None, lambda x, codes: nearest_code(x, codes, chunk_size=48))(
        *map(ops.convert_to_tensor, (QUERIES, POINTS))
    )


# name -> a function of no arguments, whose results a device that rounds the factors of products must not change
ISLANDS = {
    "Invertible1x1Conv": invertible_1x1_conv,
    "rational_quadratic_spline": spline,
    "nearest_code": nearest,
    "nearest_neighbors": lambda: nearest_neighbors(QUERIES, POINTS, k=3),
    "k_occurrence": lambda: k_occurrence(POINTS, k=2),
    "PrecisionRecall": precision_recall,
    "InfoNCE": info_nce,
    "FIDInception": lambda: one_program(None, Pixels(bicubic_weights))(tensor(2, 4, 4, 1) / 2),
    "LookupFreeQuantizer": lookup_free,
}
