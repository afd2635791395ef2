"""Score SDEs, https://kexue.fm/archives/9209 and /9228: samples by an SDE or its ODE, and exact likelihoods.

    KERAS_BACKEND=jax python examples/score_sde.py
    KERAS_BACKEND=jax python examples/score_sde.py --schedule ve

Trains a model in continuous time on scikit-learn's digits by default. Writes samples by the reverse SDE, with a
corrector, and by the probability-flow ODE, the loss curve and the model to `--output`. Prints the Frechet distances of
the pixels, relative to that of two random halves of the data, and the bits per dimension of test images, of the same
images upside down, and of noise. An interrupted run resumes from its last epoch.
"""

import argparse

import keras
import numpy as np
from datasets import load_split
from ddpm import build_network, fit, frechet_unit
from shared import full_or_smoke, parser, save_rows

from keras_gen.metrics import frechet_distance
from keras_gen.models import ScoreSDE
from keras_gen.samplers import EulerSampler, ProbabilityFlowSampler, ReverseSDESampler
from keras_gen.schedules import SubVPSchedule, VESchedule, VPSchedule

# name -> (schedule, prediction, loss weighting). VE states have a large scale, which "edm" normalizes.
SCHEDULES = {
    "vp": (VPSchedule, "v", "simple"),
    "subvp": (SubVPSchedule, "v", "simple"),
    "ve": (VESchedule, "edm", "edm"),
}


def parse_arguments() -> argparse.Namespace:
    arguments = parser(__doc__, "score_sde", epochs=50)
    arguments.add_argument("--schedule", choices=SCHEDULES, default="vp")
    return arguments.parse_args()


def compare_samplers(model: ScoreSDE, images: np.ndarray, arguments: argparse.Namespace) -> None:
    samplers = {
        "SDE, 500 steps": ReverseSDESampler(500),
        "SDE, 250, corrected": ReverseSDESampler(250, corrector_steps=1),
        "ODE, adaptive": ProbabilityFlowSampler(1e-4),
        "ODE, 50 Euler steps": EulerSampler(50),
    }
    if full_or_smoke(False, True):
        samplers = {"SDE": ReverseSDESampler(2, corrector_steps=1)}
    x = images[: full_or_smoke(500, 16)]
    rows, unit = {"data": x[:16]}, frechet_unit(images, arguments.seed, len(x))
    for name, sampler in samplers.items():
        samples = model.sample(len(x), sampler, seed=arguments.seed, batch_size=250, verbose=0)
        rows[name] = samples[:16]
        print(f"{name}: Frechet distance {frechet_distance(samples, x) / unit:.2f} times that of two halves")
    title = f"schedule {arguments.schedule}: by the SDE, and by its ODE from the same noise"
    save_rows(arguments.output / "samples.png", rows, title)


def report_bits(model: ScoreSDE, test: np.ndarray, arguments: argparse.Namespace) -> None:
    count, levels = full_or_smoke(64, 2), 17 if arguments.dataset == "digits" else 256
    x = test[:count]
    noise = np.random.default_rng(arguments.seed).integers(0, levels, x.shape) * (2 / (levels - 1)) - 1
    options = {"trace": "hutchinson", "tolerance": full_or_smoke(1e-4, 1.0), "seed": arguments.seed, "verbose": 0}
    for name, images in {"test images": x, "upside down": x[:, ::-1, ::-1], "noise": noise.astype("float32")}.items():
        bits = model.bits_per_dim(images, levels, **options)
        print(f"{name}: {bits.mean():.3f} +- {bits.std() / count**0.5:.3f} bits per dimension")


def main() -> None:
    arguments = parse_arguments()
    keras.utils.set_random_seed(arguments.seed)
    (images, _), (test, _) = load_split(arguments.dataset, arguments.size)
    schedule, prediction, weighting = SCHEDULES[arguments.schedule]
    network = build_network("full", images.shape[1:], None)
    model = ScoreSDE(network, schedule(), prediction, weighting, seed=arguments.seed)
    fit(model, images, None, arguments, EulerSampler(full_or_smoke(50, 2)))
    compare_samplers(model, images, arguments)
    report_bits(model, test, arguments)


if __name__ == "__main__":
    main()
