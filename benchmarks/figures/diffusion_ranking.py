"""Ranking of samplers, numbers of evaluations and trainings: Frechet distances of digits in a classifier's features.

    KERAS_BACKEND=jax python benchmarks/figures/diffusion_ranking.py --seeds 3

Trains a DDPM and two rectified flows (uniform and logit-normal times) for each seed on scikit-learn's digits, with the
network and the labels of `examples/ddpm.py`; the second flow is refined by reflow. Then draws 1,797 samples by
each sampler, with the labels of the data. Writes the models and a table of means and deviations over the seeds to
`--output`; existing models are loaded.
"""

import argparse
import json
import pathlib
import sys
import time
from collections.abc import Callable

import keras
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "examples"))
from classifier import train_classifier
from datasets import load_images
from ddpm import build_network

from keras_gen import models, samplers, schedules
from keras_gen.metrics import frechet_distance

EVALUATIONS = (5, 10, 20)
CLIP = {"clip_x0": 1.0}


def ddpm_samplers(steps: int) -> dict[str, samplers.DiffusionSampler]:
    """Returns the samplers compared on the DDPM, each with `steps` network evaluations."""
    even = {"spacing": "trailing", **CLIP}
    return {
        "DDPM": samplers.DDPMSampler(steps, **even),
        "Analytic-DPM": samplers.AnalyticDPMSampler(steps, **even),
        "DDIM": samplers.DDIMSampler(steps, **even),
        "Analytic-DDIM": samplers.AnalyticDPMSampler(steps, eta=0.0, **even),
        "Heun": samplers.HeunSampler((steps + 1) // 2, **even),
        "DPM-Solver++(2M)": samplers.DPMSolverPPSampler(steps, 2, **even),
        "SDE-DPM-Solver++(2M)": samplers.DPMSolverPPSampler(steps, 2, sde=True, **even),
    }


def fit(model: keras.Model, images: np.ndarray, labels: np.ndarray, epochs: int) -> None:
    steps = epochs * -(-len(images) // 64)
    rate = keras.optimizers.schedules.CosineDecay(0.0, steps, warmup_target=2e-3, warmup_steps=steps // 20)
    model.compile(keras.optimizers.Adam(rate, use_ema=True, ema_momentum=0.995))
    model.fit(images, labels, batch_size=64, epochs=epochs, verbose=0)


def trained(path: pathlib.Path, train: Callable[[], keras.Model]) -> keras.Model:
    """Loads the model from the file, or trains it and writes the file."""
    if path.exists():
        return keras.models.load_model(path)
    start = time.time()
    model = train()
    model.save(path)
    print(f"{path.name}: trained in {time.time() - start:.0f} s", flush=True)
    return model


def train_ddpm(images: np.ndarray, labels: np.ndarray, seed: int, epochs: int) -> keras.Model:
    keras.utils.set_random_seed(seed)
    model = models.DDPM(build_network("full", images.shape[1:], 10), schedules.CosineSchedule(), seed=seed)
    fit(model, images, labels, epochs)
    return model


def train_flow(
    images: np.ndarray, labels: np.ndarray, seed: int, epochs: int, time_sampler: schedules.TimeSampler
) -> keras.Model:
    keras.utils.set_random_seed(seed)
    model = models.RectifiedFlow(build_network("full", images.shape[1:], 10), time_sampler=time_sampler, seed=seed)
    fit(model, images, labels, epochs)
    return model


def reflow(path: pathlib.Path, labels: np.ndarray, seed: int, epochs: int) -> keras.Model:
    model = keras.models.load_model(path)
    condition = np.tile(labels, 6)
    steps = epochs * -(-len(condition) // 64)
    rate = keras.optimizers.schedules.CosineDecay(1e-3, steps)
    model.compile(keras.optimizers.Adam(rate, use_ema=True, ema_momentum=0.995))
    model.reflow(len(condition), condition, sampling_seed=100 + seed, epochs=epochs, batch_size=64, verbose=0)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs/diffusion_ranking"))
    arguments = parser.parse_args()
    output = arguments.output
    output.mkdir(parents=True, exist_ok=True)
    images, labels = load_images("digits")
    _, features = train_classifier(images, labels, images, labels, output / "classifier.keras")
    data = features.predict(images, verbose=0)
    halves = np.array_split(np.random.default_rng(0).permutation(data), 2)
    print(f"two halves of the digits: {frechet_distance(*halves):.2f}", flush=True)
    table: dict[str, list[float]] = {}

    def measure(name: str, model: keras.Model, sampler: samplers.DiffusionSampler, seed: int) -> None:
        drawn = model.sample(len(images), sampler, labels, seed=1000 + seed, batch_size=600, verbose=0)
        distance = frechet_distance(features.predict(drawn, verbose=0), data)
        table.setdefault(name, []).append(float(distance))
        print(f"seed {seed}  {name}: {distance:.2f}", flush=True)

    for seed in range(arguments.seeds):
        task = images, labels, seed, arguments.epochs
        model = trained(output / f"ddpm_{seed}.keras", lambda: train_ddpm(*task))  # noqa: B023 (called at once)
        for steps in EVALUATIONS:
            model.adapt_variance(images, labels, samplers.DDPMSampler(steps, "trailing"), batch_size=600, verbose=0)
            for name, sampler in ddpm_samplers(steps).items():
                measure(f"{name} {steps}", model, sampler, seed)
        times = {"uniform": schedules.UniformTime(), "logit-normal": schedules.LogitNormalTime()}
        flows = {}
        for name, sampler in times.items():
            path = output / f"flow_{name}_{seed}.keras"
            flows[name] = trained(path, lambda: train_flow(*task, sampler))  # noqa: B023
        path = output / f"flow_logit-normal_{seed}.keras"
        epochs = max(1, arguments.epochs // 5)
        flows["reflow"] = trained(output / f"reflow_{seed}.keras", lambda: reflow(path, labels, seed, epochs))  # noqa: B023
        for name, model in flows.items():
            for steps in (1, 2, 5, 20):
                measure(f"flow, {name} {steps}", model, samplers.EulerSampler(steps), seed)

    (output / "ranking.json").write_text(json.dumps(table, indent=1))
    for name, distances in table.items():
        print(f"{name:30s} {np.mean(distances):8.2f} +- {np.std(distances):.2f}")


if __name__ == "__main__":
    main()
