"""EDM, after https://kexue.fm/archives/9228: the probability-flow ODE in the noise level, solved by Heun's method.

    KERAS_BACKEND=jax python examples/edm.py
    KERAS_BACKEND=torch python examples/edm.py --dataset fashion_mnist --epochs 20

Trains a network whose input, output and loss have unit scale at every noise level, on scikit-learn's digits by
default. Then samples it by Heun's method in few and in more steps, without and with injected noise (churn). Writes
samples, some trajectories, the loss curve and the model to `--output`, and prints for each sampler the Frechet distance
of the pixels, relative to that of two random halves of the data. An interrupted run resumes.
"""

import keras
import numpy as np
from datasets import count_classes, load_images
from ddpm import build_network, fit, frechet_unit
from shared import full_or_smoke, parser, save_rows

from keras_gen.metrics import frechet_distance
from keras_gen.models import EDM
from keras_gen.samplers import EulerSampler, HeunSampler


def main() -> None:
    arguments = parser(__doc__, "edm", epochs=40).parse_args()
    keras.utils.set_random_seed(arguments.seed)
    output, seed = arguments.output, arguments.seed
    images, labels = load_images(arguments.dataset, arguments.size)
    network = build_network("full", images.shape[1:], count_classes(labels))
    model = EDM(network, sigma_data=float(images.std()), seed=seed)
    fit(model, images, labels, arguments, HeunSampler(full_or_smoke(18, 2)))

    samplers = {
        "Euler, 35 evaluations": EulerSampler(35),
        "Heun, 5 steps, 9 ev.": HeunSampler(5),
        "Heun, 9 steps, 17 ev.": HeunSampler(9),
        "Heun, 18 steps, 35 ev.": HeunSampler(18),
        "the same, churn 10": HeunSampler(18, churn=10),
        "the same, churn 40": HeunSampler(18, churn=40),
    }
    if full_or_smoke(False, True):
        samplers = {"Heun, 2 steps": HeunSampler(2)}
    kept = np.random.default_rng(seed).permutation(len(images))[: full_or_smoke(1000, 16)]
    x, y = images[kept], None if labels is None else labels[kept]
    unit, rows = frechet_unit(images, seed, len(x)), {"data": x[:16]}
    for name, sampler in samplers.items():
        samples = model.sample(len(x), sampler, y, seed=seed, batch_size=250, verbose=0)
        rows[name] = samples[:16]
        print(f"{name}: Frechet distance {frechet_distance(samples, x) / unit:.2f} times that of two halves")
    save_rows(output / "samples.png", rows, "EDM, the same noise and labels in each column")

    frames = full_or_smoke(18, 2)
    way = model.denoising_path(16, frames, HeunSampler(frames), condition=None if y is None else y[:16], seed=seed)
    deviations = way.std(axis=tuple(range(1, way.ndim))).reshape(-1, *[1] * (way.ndim - 1))
    shown = (way / np.maximum(deviations, images.std())).swapaxes(0, 1)[:6]
    save_rows(
        output / "path.png", {f"image {k}": states for k, states in enumerate(shown)}, "from noise, scaled, to data"
    )


if __name__ == "__main__":
    main()
