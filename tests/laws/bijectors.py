import keras
import numpy as np

from keras_gen import layers
from laws.arrays import CONDITION, GRAY, IMAGES, NUMBERS, PAIRS, VECTOR

LEVELS = (np.random.default_rng(5).integers(0, 17, (2, 4, 4, 1)) / 8 - 1).astype("float32")


def level(flip: bool, **dtype) -> layers.Chain:
    coupling = layers.AffineCoupling(units=[4], split="channel", flip=flip, **dtype)
    return layers.Chain([layers.Squeeze(**dtype), layers.ActNorm(**dtype), coupling], **dtype)


def learned_noise(**dtype) -> layers.Dequantize:
    coupling = layers.AffineCoupling(units=[4], split="checkerboard", **dtype)
    return layers.Dequantize(17, coupling, seed=0, **dtype)


# name -> (constructor, x) or (constructor, x, condition); the constructors take a dtype
BIJECTORS = {
    "act_norm": (layers.ActNorm, VECTOR),
    "act_norm_images": (layers.ActNorm, IMAGES),
    "additive_coupling": (lambda **dtype: layers.AdditiveCoupling(units=[8], **dtype), VECTOR),
    "additive_coupling_condition": (lambda **dtype: layers.AdditiveCoupling(units=[8], **dtype), VECTOR, CONDITION),
    "additive_coupling_given": (
        lambda **dtype: layers.AdditiveCoupling(keras.layers.Dense(3, "tanh", **dtype), **dtype),
        VECTOR,
    ),
    "additive_coupling_checkerboard": (
        lambda **dtype: layers.AdditiveCoupling(units=[4], split="checkerboard", **dtype),
        GRAY,
    ),
    "affine_coupling_interleave": (
        lambda **dtype: layers.AffineCoupling(units=[8], split="interleave", flip=True, **dtype),
        VECTOR,
    ),
    "affine_coupling_checkerboard": (
        lambda **dtype: layers.AffineCoupling(units=[4], split="checkerboard", flip=True, **dtype),
        GRAY,
    ),
    "affine_coupling_condition": (
        lambda **dtype: layers.AffineCoupling(units=[4], split="channel", scale_map="sigmoid", **dtype),
        IMAGES[:, :2, :2],
        CONDITION,
    ),
    "additive_coupling_of_one": (lambda **dtype: layers.AdditiveCoupling(units=[8], **dtype), VECTOR[:, :1]),
    "affine_coupling_of_one_condition": (
        lambda **dtype: layers.AffineCoupling(units=[8], flip=True, **dtype),
        VECTOR[:, :1],
        CONDITION,
    ),
    "affine_coupling_of_one_channel": (
        lambda **dtype: layers.AffineCoupling(units=[4], split="channel", **dtype),
        GRAY,
        CONDITION,
    ),
    "affine_coupling_of_three": (lambda **dtype: layers.AffineCoupling(units=[8], **dtype), VECTOR[:, :3]),
    "affine_coupling_interleave_of_three": (
        lambda **dtype: layers.AffineCoupling(units=[8], split="interleave", **dtype),
        VECTOR[:, :3],
        CONDITION,
    ),
    "chain": (lambda **dtype: level(False, **dtype), GRAY),
    "continuous_flow": (lambda **dtype: layers.ContinuousFlow(units=[8], steps=32, **dtype), PAIRS[:, 0]),
    "continuous_flow_adaptive": (
        lambda **dtype: layers.ContinuousFlow(units=[8], tolerance=1e-6, **dtype),
        PAIRS[:, 0],
        CONDITION,
    ),
    "dequantize": (lambda **dtype: layers.Dequantize(17, seed=0, **dtype), LEVELS),
    "dequantize_learned": (learned_noise, LEVELS),
    "invert": (lambda **dtype: layers.Invert(layers.MaskedAutoregressive([8], **dtype), **dtype), VECTOR),
    "invertible_1x1_conv": (lambda **dtype: layers.Invertible1x1Conv(seed=0, **dtype), IMAGES[:, :2, :2]),
    "invertible_1x1_conv_matrix": (lambda **dtype: layers.Invertible1x1Conv([[0, 2], [3, 1]], **dtype), PAIRS[:, 0]),
    "logit_transform": (layers.LogitTransform, NUMBERS),
    "masked_autoregressive": (lambda **dtype: layers.MaskedAutoregressive([8], **dtype), VECTOR),
    "masked_autoregressive_condition": (
        lambda **dtype: layers.MaskedAutoregressive([8, 8], "silu", "softclip", **dtype),
        VECTOR,
        CONDITION,
    ),
    "masked_autoregressive_of_one": (
        lambda **dtype: layers.MaskedAutoregressive([8, 8], "silu", **dtype),
        VECTOR[:, :1],
    ),
    "masked_autoregressive_of_one_condition": (
        lambda **dtype: layers.MaskedAutoregressive([8], **dtype),
        VECTOR[:, :1],
        CONDITION,
    ),
    "multi_scale": (
        lambda **dtype: layers.MultiScale([level(True, **dtype), level(False, **dtype)], **dtype),
        GRAY,
    ),
    "permutation": (lambda **dtype: layers.Permutation(seed=0, **dtype), VECTOR),
    "permutation_reverse": (lambda **dtype: layers.Permutation("reverse", **dtype), IMAGES[:, :2, :2]),
    "reshape": (layers.Reshape, GRAY),
    "scale": (lambda **dtype: layers.Scale(3.0, **dtype), VECTOR),
    "scale_images": (layers.Scale, IMAGES[:, :2, :2]),
    "spline_coupling": (lambda **dtype: layers.SplineCoupling(units=[8], **dtype), 3 * VECTOR),
    "spline_coupling_of_one": (
        lambda **dtype: layers.SplineCoupling(units=[8], num_bins=4, **dtype),
        3 * VECTOR[:, :1],
    ),
    "spline_coupling_of_three_condition": (
        lambda **dtype: layers.SplineCoupling(units=[8], flip=True, num_bins=4, **dtype),
        3 * VECTOR[:, :3],
        CONDITION,
    ),
    "spline_coupling_images": (
        lambda **dtype: layers.SplineCoupling(units=[4], split="channel", num_bins=4, **dtype),
        IMAGES[:, :2, :2],
    ),
    "squeeze": (layers.Squeeze, GRAY),
}

# Bijectors whose forward direction is a step function plus noise.
DISCRETE = {"dequantize", "dequantize_learned"}
