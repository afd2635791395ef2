"""Hubs as latents of a GAN, https://kexue.fm/archives/9147: are their images better than those of small norms?

    KERAS_BACKEND=tensorflow python examples/hubness_sampling.py
    KERAS_BACKEND=tensorflow python examples/hubness_sampling.py --dataset fashion_mnist --models runs/gan/model.keras

Four methods to draw latents for the same generator: from the prior; hubs, the near neighbours of many others; all
latents, moved towards the mean until their mean distance from it equals that of the hubs (truncation); and the latents
nearest to the mean, the same fraction of the draws as hubs. Only an advantage over the last two is due to hubness.

`--models` takes files written by `gan.py`, trained with several seeds; without it, one GAN is trained, with the
arguments of `gan.py`. If a GAN has a mapping network, latents are its outputs. Writes samples of the four methods, and
prints the Frechet distance, precision and recall of each, in the features of a classifier: mean and standard deviation
over models and draws.
"""

import argparse
import pathlib
from typing import Any

import keras
import numpy as np
from classifier import train_classifier
from datasets import load_split
from gan import build_model, gan_arguments
from shared import as_count, load_model, save_figure, train

from keras_gen.metrics import FrechetDistance, PrecisionRecall
from keras_gen.models import GAN
from keras_gen.ops import image_grid
from keras_gen.samplers import HubnessSampler, NormSampler, TruncationSampler

MEASURES = ("Frechet distance", "precision", "recall", "distance to the mean")


def draw_latents(model: GAN, n: int, fraction: float, seed: int) -> dict[str, np.ndarray]:
    """Draws n latents by each of the four methods, all from the same pools."""
    source = {"latent_dim": model.noise_shape, "mapping": model.sampling_mapping}
    hubness, norm = HubnessSampler(**source, top_fraction=fraction), NormSampler(**source, fraction=fraction)
    hubs = hubness.sample(n, seed, verbose=0)
    prior = TruncationSampler(**source, psi=1.0).sample(n, seed, verbose=0)
    psi = radius(hubs, prior.mean(axis=0)) / radius(prior, prior.mean(axis=0))
    return {
        "prior": prior,
        "hubs": hubs,
        f"truncation, psi = {psi:.2f}": TruncationSampler(**source, psi=psi).sample(n, seed, verbose=0),
        "smallest norms": norm.sample(n, seed, verbose=0),
    }


def radius(latents: np.ndarray, center: np.ndarray) -> float:
    return float(np.linalg.norm((latents - center).reshape(len(latents), -1), axis=1).mean())


def measure(real: np.ndarray, samples: np.ndarray, features: keras.Model) -> tuple[float, float, float]:
    distance, shares = FrechetDistance(features), PrecisionRecall(features)
    for start in range(0, len(real), 1000):
        for metric in (distance, shares):
            metric.update_state(real[start : start + 1000], samples[start : start + 1000])
    result = shares.result()
    return distance.result(), result["precision"], result["recall"]


def save_arms(path: pathlib.Path, pictures: dict[str, np.ndarray]) -> None:
    """Draws grids of samples side by side, with their names above."""
    grids = {name: image_grid(images, columns=6, padding=1) for name, images in pictures.items()}
    height, width, channels = next(iter(grids.values())).shape
    gap = np.full((height, width // 10, channels), 255, "uint8")
    row = np.concatenate([part for grid in grids.values() for part in (grid, gap)][:-1], axis=1)

    def draw(axes: Any) -> None:
        axes.imshow(row.squeeze(), cmap="gray", vmin=0, vmax=255)
        for place, name in enumerate(grids):
            axes.text(place * (width + gap.shape[1]) + width / 2, -height / 30, name, ha="center", va="bottom")
        axes.axis("off")

    save_figure(path, draw, width=10, height=2.9)


def load_models(images: np.ndarray, arguments: argparse.Namespace) -> list[GAN]:
    if arguments.models:
        return [load_model(path) for path in arguments.models]
    model = build_model(images.shape[1:], arguments)
    train(model, images, None, arguments)
    return [model]


def main() -> None:
    parser = gan_arguments(__doc__, "hubness_sampling")
    parser.add_argument("--models", nargs="+", type=pathlib.Path, help="files that gan.py wrote")
    parser.add_argument("--draws", type=as_count, default=3, help="how many times to sample from each model")
    parser.add_argument("--n", type=as_count, default=1000, help="samples of each way; at most as many as real images")
    parser.add_argument("--fraction", type=float, default=0.015, help="share of the latents that count as hubs")
    arguments = parser.parse_args()
    keras.utils.set_random_seed(arguments.seed)
    (images, labels), (test, test_labels) = load_split(arguments.dataset, arguments.size)
    if labels is None:
        raise ValueError(f"`--dataset` must have labels, for the classifier. Received: dataset={arguments.dataset}")
    output = arguments.output
    output.mkdir(parents=True, exist_ok=True)
    _, features = train_classifier(images, labels, test, test_labels, output / "classifier.keras", arguments.seed)
    real = (test if len(test) >= 5000 else np.concatenate([images, test]))[: arguments.n]

    rows: dict[str, list[tuple[float, ...]]] = {}
    for index, model in enumerate(load_models(images, arguments)):
        for draw in range(arguments.draws):
            seed = arguments.seed + index * arguments.draws + draw
            latents = draw_latents(model, len(real), arguments.fraction, seed)
            center = latents["prior"].mean(axis=0)
            samples = {name: model.sample(latents=w, verbose=0) for name, w in latents.items()}
            if not rows:
                save_arms(output / "arms.png", {name: images[:36] for name, images in samples.items()})
            for name, x in samples.items():
                values = *measure(real, x, features), radius(latents[name], center)
                rows.setdefault(name.split(",")[0], []).append(values)

    print(f"{len(real)} samples each, {len(rows['prior'])} times: mean and standard deviation")
    print(f"| latents | {' | '.join(MEASURES)} |\n| --- |{' --- |' * len(MEASURES)}")
    for name, values in rows.items():
        moments = zip(np.mean(values, axis=0), np.std(values, axis=0), strict=True)
        print(f"| {name} | {' | '.join(f'{mean:.3f} +- {std:.3f}' for mean, std in moments)} |")


if __name__ == "__main__":
    main()
