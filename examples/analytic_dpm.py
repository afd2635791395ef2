"""Analytic-DPM, https://kexue.fm/archives/9245: the optimal variance of each step, from one statistic of the network.

    KERAS_BACKEND=jax python examples/analytic_dpm.py

Samples the model of `examples/ddpm.py`: that of `--model`, or the one next to `--output`, which is trained first if it
is missing. `adapt_variance` estimates Gamma_t, the fraction of the noise variance that the network explains; then five
samplers generate 1,000 images each in a few steps. Writes Gamma_t, the distances and samples to `--output`, and prints
the Frechet distances of the pixels, relative to that between two random halves of the data.
"""

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
from datasets import load_images
from ddpm import frechet_unit, load_or_train, sampling_parser
from keras import ops
from shared import full_or_smoke, save_figure, save_rows

from keras_gen.metrics import frechet_distance
from keras_gen.models import DDPM
from keras_gen.samplers import AnalyticDPMSampler, DDIMSampler, DDPMSampler, DiffusionSampler

# name -> (sampler for a number of steps, variance of the model, of which DDPM has a choice of two)
SAMPLERS: dict[str, tuple[Callable[[int], DiffusionSampler], str]] = {
    "DDPM, fixed_large": (lambda steps: DDPMSampler(steps, clip_x0=1.0), "fixed_large"),
    "DDPM, fixed_small": (lambda steps: DDPMSampler(steps, clip_x0=1.0), "fixed_small"),
    "Analytic-DPM": (lambda steps: AnalyticDPMSampler(steps, eta=1.0, clip_x0=1.0), "fixed_small"),
    "DDIM": (lambda steps: DDIMSampler(steps, clip_x0=1.0), "fixed_small"),
    "Analytic-DDIM": (lambda steps: AnalyticDPMSampler(steps, eta=0.0, clip_x0=1.0), "fixed_small"),
}


def save_noise_power(path: pathlib.Path, model: DDPM) -> None:
    power = ops.convert_to_numpy(model.noise_power)

    def draw(axes: Any) -> None:
        axes.plot(power)
        axes.set(xlabel="t", ylabel="Gamma_t", title="power of the predicted noise: less than 1 where it is uncertain")
        axes.grid(alpha=0.3)

    save_figure(path, draw)


def save_distances(path: pathlib.Path, counts: tuple[int, ...], table: dict[str, list[float]]) -> None:
    def draw(axes: Any) -> None:
        for name, distances in table.items():
            axes.loglog(counts, distances, marker="o", label=name)
        axes.set_xticks(counts, list(map(str, counts)))
        axes.set_yticks((1, 2, 4, 8), ("1", "2", "4", "8"))
        axes.minorticks_off()
        axes.set(xlabel="steps", ylabel="Frechet distance, times that of two halves")
        axes.grid(alpha=0.3)
        axes.legend()

    save_figure(path, draw, 6, 4)


def main() -> None:
    arguments = sampling_parser(__doc__, "analytic_dpm").parse_args()
    output, seed = arguments.output, arguments.seed
    images, labels = load_images(arguments.dataset, arguments.size)
    model, labels = load_or_train(images, labels, arguments)

    rows = np.random.default_rng(seed).permutation(len(images))[: full_or_smoke(1000, 16)]
    x, y = images[rows], None if labels is None else labels[rows]
    known = slice(full_or_smoke(256, 2))
    model.adapt_variance(x[known], None if y is None else y[known], seed=seed)
    save_noise_power(output / "noise_power.png", model)

    large = DDPM(model.network, model.schedule, model.prediction, "fixed_large")
    counts = full_or_smoke((5, 10, 25, 50), (2,))
    unit = frechet_unit(images, seed, len(x))
    table, pictures = {}, {}
    for name in full_or_smoke(list(SAMPLERS), ["Analytic-DPM"]):
        sampler, variance = SAMPLERS[name]
        source = large if variance == "fixed_large" else model
        made = [source.sample(len(x), sampler(steps), y, seed=seed, batch_size=250, verbose=0) for steps in counts]
        table[name] = [frechet_distance(samples, x) / unit for samples in made]
        pictures[name] = made[0][:16]
        print(f"{name:>18}: " + ", ".join(f"{d:.2f} in {n}" for d, n in zip(table[name], counts, strict=True)))
    save_distances(output / "distances.png", counts, table)
    save_rows(output / "samples.png", {"data": x[:16], **pictures}, f"{counts[0]} steps, the same noise in each column")


if __name__ == "__main__":
    main()
