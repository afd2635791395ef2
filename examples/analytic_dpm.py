"""Analytic-DPM, https://kexue.fm/archives/9245: the best variance of each step, from one statistic of the network.

    KERAS_BACKEND=jax python examples/analytic_dpm.py

Samples the model of `examples/ddpm.py`: that of `--model`, or the one next to `--output`, which is trained first where
it is missing. `adapt_variance` measures Gamma_t, the power of the noise that the network predicts; five samplers then
make as many samples as there are images, in few steps. Writes a picture of Gamma_t, of the distances and of samples to
`--output`, and prints the Frechet distances of the pixels in units of that between two random halves of the images.
"""

import argparse
import dataclasses
import pathlib
from typing import Any

import numpy as np
from datasets import load_images
from ddpm import frechet_unit, load_or_train, sampling_parser
from keras import ops
from shared import full_or_smoke, save_figure, save_rows

from keras_gen.metrics import frechet_distance
from keras_gen.models import DDPM
from keras_gen.samplers import AnalyticDPMSampler, DDIMSampler, DDPMSampler

IMAGES = 256  # on which Gamma_t is measured
SAMPLES = 1000


def save_noise_power(path: pathlib.Path, model: DDPM) -> None:
    power = ops.convert_to_numpy(model.noise_power)

    def draw(axes: Any) -> None:
        axes.semilogy(1 - power)
        axes.set(xlabel="t", ylabel="1 - Gamma_t", title="what the network does not know of the noise")
        axes.grid(alpha=0.3)

    save_figure(path, draw)
