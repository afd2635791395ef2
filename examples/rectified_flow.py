"""Rectified flow, https://kexue.fm/archives/9497: straight ways from noise to data, and straighter ones by reflow.

    KERAS_BACKEND=jax python examples/rectified_flow.py
    KERAS_BACKEND=jax python examples/rectified_flow.py --pairing optimal

First in the plane, from a normal distribution to a ring of eight: the ways of samples for random and for optimal pairs,
before and after reflow. Then for images, scikit-learn's digits by default: samples in 1 to 20 steps, before and after
reflow. Writes pictures, loss curves and models to `--output`; prints how straight the ways are, how far one step is
from a hundred, and Frechet distances of the pixels, in units of that of two random halves of the data. A killed run
goes on, and a stage whose model is there is not trained again.
"""

import argparse
import pathlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from datasets import load_images
from ddpm import build_network, frechet_unit
from keras import ops
from shared import full_or_smoke, parser, save_panels, save_row_panels, train

from keras_gen.layers import SinusoidalEmbedding
from keras_gen.metrics import frechet_distance
from keras_gen.models import RectifiedFlow
from keras_gen.samplers import EulerSampler
from keras_gen.schedules import LogitNormalTime

STEPS = full_or_smoke(100, 2)  # of Euler's method, where its error shall not count


def ring(n: int, seed: int) -> np.ndarray:
    """Draws points near eight places on a circle of radius 3."""
    generator = np.random.default_rng(seed)
    angle = generator.integers(8, size=n) * np.pi / 4
    points = 3 * np.stack([np.cos(angle), np.sin(angle)], axis=1) + 0.2 * generator.standard_normal((n, 2))
    return points.astype("float32")


def build_plane_network() -> keras.Model:
    x, t = keras.Input((2,)), keras.Input(())
    h = ops.concatenate([x, SinusoidalEmbedding(32)(t)], axis=-1)
    for _ in range(3):
        h = keras.layers.Dense(128, "swish")(h)
    return keras.Model([x, t], keras.layers.Dense(2)(h))


def compile_model(model: RectifiedFlow, rate: float, updates: int) -> None:
    decay = keras.optimizers.schedules.CosineDecay(0.0, updates, warmup_target=rate, warmup_steps=updates // 20)
    model.compile(keras.optimizers.Adam(decay, use_ema=True, ema_momentum=0.995))


def stage(path: pathlib.Path, train_model: Callable[[], RectifiedFlow]) -> RectifiedFlow:
    """Reads what an earlier run wrote, or trains."""
    if path.exists():
        print(f"read {path}")
        return keras.models.load_model(path)
    return train_model()
