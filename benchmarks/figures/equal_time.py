"""Sample quality after equal wall time, against denoising-diffusion-pytorch: distances in a classifier's features.

    python -m pip install --no-deps denoising-diffusion-pytorch==2.3.4 ema-pytorch accelerate psutil einops
    KERAS_BACKEND=torch python benchmarks/figures/equal_time.py --contender ours
    KERAS_BACKEND=torch python benchmarks/figures/equal_time.py --contender peer
    KERAS_BACKEND=tensorflow python benchmarks/figures/equal_time.py --contender score

Each contender trains for `--minutes` on Fashion-MNIST without labels, compilation included, and draws `--samples`
images by `--evaluations` network evaluations each, not counted in the minutes. Run them one after the other on an
otherwise idle machine. Ours is a DDPM on TensorFlow or PyTorch (on JAX a callback cannot set the learning rate within
an epoch). The peer is the library's default model with the defaults of its `Trainer`, without two options that would
only be a disadvantage: random mirroring, as test images are not mirrored, and samples with their FID during training.

Writes models, samples, a picture and figures to `--output`. An existing model is not trained again.
"""

import argparse
import functools
import json
import math
import pathlib
import sys
import time
import types
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent.parent / "examples"))
from classifier import train_classifier
from datasets import load_split
from shared import save_picture

from keras_gen.metrics import frechet_distance
from keras_gen.models import DDPM, UNet
from keras_gen.samplers import DPMSolverPPSampler
from keras_gen.schedules import CosineSchedule

BATCH_SIZE, PEAK_RATE, WARMUP_STEPS, EMA_MOMENTUM = 32, 1.5e-3, 200, 0.998
CHECKPOINT_MINUTES = 5
PEER_BATCH_SIZE = 16
COLUMNS = 16
MARGIN = 2  # the peer's four levels need sides that are multiples of 8: 32 instead of 28


class Clock:
    """The wall clock of a training, started at construction."""

    def __init__(self, minutes: float):
        self.start, self.budget = time.perf_counter(), 60 * minutes
        self.saved = 0

    def seconds(self) -> float:
        return time.perf_counter() - self.start

    def share(self) -> float:
        """Returns the elapsed fraction of the time, at most 1."""
        return min(self.seconds() / self.budget, 1.0)

    def checkpoint_is_due(self) -> bool:
        before, self.saved = self.saved, int(self.seconds() / (60 * CHECKPOINT_MINUTES))
        return self.saved > before


class TimeBudget(keras.callbacks.Callback):
    """Decreases the learning rate with the remaining time, and stops training at its end."""

    def __init__(self, clock: Clock, checkpoint: pathlib.Path):
        super().__init__()
        self.clock, self.checkpoint = clock, checkpoint
        self.steps = 0

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        warmup = min(1.0, (self.steps + 1) / WARMUP_STEPS)
        self.model.optimizer.learning_rate = PEAK_RATE * warmup * (1 + math.cos(math.pi * self.clock.share())) / 2

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.steps += 1
        if self.steps == 1:
            print(f"first step after {self.clock.seconds():.1f} s", flush=True)
        if self.clock.checkpoint_is_due():
            self.model.save(self.checkpoint)
            report(self.steps, float(logs["loss"]), self.clock)
        self.model.stop_training = self.clock.share() == 1


class Ours:
    """A DDPM of keras_gen with averaged weights."""

    suffix = ".keras"

    def train(self, images: np.ndarray, path: pathlib.Path, arguments: argparse.Namespace) -> dict[str, Any]:
        keras.utils.set_random_seed(arguments.seed)
        network = UNet(images.shape[1:], widths=(32, 64, 128), attention_levels=(2,), dtype=arguments.dtype)
        model = DDPM(network, CosineSchedule(), prediction="v", seed=arguments.seed)
        clock = Clock(arguments.minutes)
        # the callback sets the learning rate
        model.compile(keras.optimizers.AdamW(global_clipnorm=1.0, use_ema=True, ema_momentum=EMA_MOMENTUM))
        budget = TimeBudget(clock, path.with_stem("ours_checkpoint"))
        # more epochs than any time budget allows
        model.fit(images, batch_size=BATCH_SIZE, epochs=1_000_000, callbacks=[budget], verbose=0)
        seconds = clock.seconds()
        model.save(path)
        return facts(network.count_params(), budget.steps, BATCH_SIZE, seconds)

    def sample(self, path: pathlib.Path, arguments: argparse.Namespace) -> tuple[str, np.ndarray]:
        sampler = DPMSolverPPSampler(arguments.evaluations, 2, sde=True, spacing="trailing", clip_x0=1.0)
        model = keras.models.load_model(path)
        samples = model.sample(arguments.samples, sampler, seed=arguments.seed, batch_size=100, verbose=0)
        return "SDE-DPM-Solver++(2M)", samples


class Peer:
    """The default model of denoising-diffusion-pytorch, trained as its `Trainer` does, on arrays instead of files."""

    suffix = ".pt"

    def train(self, images: np.ndarray, path: pathlib.Path, arguments: argparse.Namespace) -> dict[str, Any]:
        import torch
        from ema_pytorch import EMA

        torch.manual_seed(arguments.seed)
        model = build_peer(arguments.evaluations)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, betas=(0.9, 0.99))
        average = EMA(model, beta=0.995, update_every=10)
        batches = peer_batches(images, arguments.seed)
        clock, steps, checkpoint = Clock(arguments.minutes), 0, path.with_stem("peer_checkpoint")
        while clock.share() < 1:
            loss = model(torch.from_numpy(next(batches)))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            average.update()
            steps += 1
            if clock.checkpoint_is_due():
                torch.save(average.ema_model.state_dict(), checkpoint)
                report(steps, loss.item(), clock)
        seconds = clock.seconds()
        torch.save(average.ema_model.state_dict(), path)
        weights = sum(parameter.numel() for parameter in model.parameters())
        return facts(weights, steps, PEER_BATCH_SIZE, seconds)

    def sample(self, path: pathlib.Path, arguments: argparse.Namespace) -> tuple[str, np.ndarray]:
        import torch

        torch.manual_seed(arguments.seed + 1)
        model = build_peer(arguments.evaluations)
        model.load_state_dict(torch.load(path, weights_only=True))
        model.eval()
        starts = range(0, arguments.samples, PEER_BATCH_SIZE)
        parts = [model.sample(min(PEER_BATCH_SIZE, arguments.samples - start)).numpy() for start in starts]
        inner = slice(MARGIN, -MARGIN)
        return "DDIM", 2 * np.concatenate(parts).transpose(0, 2, 3, 1)[:, inner, inner] - 1


def build_peer(evaluations: int) -> Any:
    """Returns the peer's diffusion model, in the memory format that trains fastest on a CPU."""
    import torch

    try:
        import torchvision.transforms  # noqa: F401
    except ImportError:
        # The peer needs it for image folders only, and it is not available for every build of torch.
        for name in ("torchvision", "torchvision.transforms", "torchvision.utils"):
            sys.modules[name] = types.ModuleType(name)
    from denoising_diffusion_pytorch import denoising_diffusion_pytorch as peer

    peer.tqdm = functools.partial(peer.tqdm, disable=True)
    network = peer.Unet(dim=64, dim_mults=(1, 2, 4, 8), channels=1)
    model = peer.GaussianDiffusion(network, image_size=32, sampling_timesteps=evaluations)
    return model.to(memory_format=torch.channels_last)


def peer_batches(images: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """Yields batches indefinitely: images of 32 x 32 in [0, 1], channels first, reshuffled in each epoch."""
    margins = ((0, 0), (0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN))
    padded = np.pad((images.transpose(0, 3, 1, 2) + 1) / 2, margins)
    generator = np.random.default_rng(seed)
    while True:
        order = generator.permutation(len(padded))
        for start in range(0, len(padded), PEER_BATCH_SIZE):
            yield padded[order[start : start + PEER_BATCH_SIZE]]


def facts(weights: int, steps: int, batch_size: int, seconds: float) -> dict[str, Any]:
    """Returns the record of a training."""
    return {
        "weights": weights,
        "steps": steps,
        "batch_size": batch_size,
        "seconds_trained": round(seconds, 1),
        "images_per_second": round(steps * batch_size / seconds, 1),
    }


def report(steps: int, loss: float, clock: Clock) -> None:
    print(f"{clock.seconds() / 60:.1f} min: {steps} steps, loss {loss:.4f}", flush=True)


def run(name: str, images: np.ndarray, arguments: argparse.Namespace) -> None:
    """Trains a contender, draws its samples, and writes both with their costs."""
    contender, output = CONTENDERS[name](), arguments.output
    path, record = output / f"{name}{contender.suffix}", output / f"{name}.json"
    if path.exists() and record.exists():
        result = json.loads(record.read_text())
        print(f"read {path}")
    else:
        result = {"contender": name, "minutes": arguments.minutes, "seed": arguments.seed}
        result.update(contender.train(images, path, arguments))
        record.write_text(json.dumps(result, indent=1))
    start = time.perf_counter()
    sampler, samples = contender.sample(path, arguments)
    drawing = {"sampler": sampler, "evaluations": arguments.evaluations, "samples": len(samples)}
    result.update(drawing, seconds_sampling=round(time.perf_counter() - start, 1))
    record.write_text(json.dumps(result, indent=1))
    np.savez_compressed(output / f"{name}_samples.npz", samples=samples)
    save_picture(output / f"{name}.png", samples[:64], 8)
    print(json.dumps(result, indent=1))


def score(arguments: argparse.Namespace) -> None:
    """Prints the distances of samples, and of equally many training images, from the test images; plots them."""
    (images, labels), (test, test_labels) = load_split(arguments.dataset)
    output = arguments.output
    _, features = train_classifier(images, labels, test, test_labels, output / "classifier.keras")
    real = features.predict(test, batch_size=256, verbose=0)
    drawn = {name: np.load(output / f"{name}_samples.npz")["samples"] for name in CONTENDERS}
    sizes = {name: len(samples) for name, samples in drawn.items()}
    # The distance decreases with the number of samples.
    if len(set(sizes.values())) > 1:
        raise ValueError(f"`--output` must hold as many samples of each contender. Received: {sizes}")
    n, generator = sizes["ours"], np.random.default_rng(arguments.seed)
    result = {
        name: frechet_distance(features.predict(samples, batch_size=256, verbose=0), real)
        for name, samples in drawn.items()
    }
    subsets = [images[generator.choice(len(images), n, replace=False)] for _ in range(5)]
    chance = [frechet_distance(features.predict(subset, batch_size=256, verbose=0), real) for subset in subsets]
    result.update(training_images=float(np.mean(chance)), ratio=result["ours"] / result["peer"], samples=n)
    rows = [test[:COLUMNS], drawn["ours"][: 3 * COLUMNS], drawn["peer"][: 3 * COLUMNS]]
    save_picture(output / "equal_time_samples.png", np.concatenate(rows), COLUMNS)
    (output / "score.json").write_text(json.dumps(result, indent=1))
    print(f"Frechet distance of {n} samples from {len(test)} test images: ours {result['ours']:.2f}, ", end="")
    print(f"peer {result['peer']:.2f}, ours / peer {result['ratio']:.2f}; training images {np.mean(chance):.2f}")


CONTENDERS = {"ours": Ours, "peer": Peer}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contender", choices=[*CONTENDERS, "score"], required=True)
    parser.add_argument("--dataset", default="fashion_mnist", help="fashion_mnist or an .npz file of 28 x 28 pixels")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--evaluations", type=int, default=25, help="passes of the network for each sample")
    parser.add_argument("--dtype", default="float32", help="of our network; mixed_bfloat16 is faster on some CPUs")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs/equal_time"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    if arguments.contender == "score":
        score(arguments)
        return
    (images, _), _ = load_split(arguments.dataset)
    run(arguments.contender, images, arguments)


if __name__ == "__main__":
    main()
