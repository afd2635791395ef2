"""Two-stage and one-stage models of digits: Frechet distances of VQ-VAE with prior, latent diffusion, and pixel DDPM.

    cd examples
    for script in ddpm vq_vae_prior latent_diffusion; do KERAS_BACKEND=jax python $script.py; done
    KERAS_BACKEND=jax python ../benchmarks/figures/two_stage.py

Loads the models that these examples wrote to `--runs`, on any backend, and draws 1,797 samples of each, with the labels
of the digits. The features are those of a classifier of all digits. DDPM is trained on all 1,797 digits, the other two
on five sixths. Writes samples of each class side by side, and prints mean and deviation of the distances over draws.
"""

import argparse
import pathlib
import sys

import keras
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "examples"))
from classifier import classes, train_classifier
from datasets import load_images
from shared import save_row_panels

import keras_gen  # noqa: F401 (registers the classes)
from keras_gen.metrics import frechet_distance
from keras_gen.samplers import DDIMSampler


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=pathlib.Path, default=pathlib.Path("runs"), help="where the examples wrote")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs/two_stage"))
    parser.add_argument("--draws", type=int, default=3)
    arguments = parser.parse_args()
    images, labels = load_images("digits")
    path = arguments.output / "classifier.keras"
    classifier, features = train_classifier(images, labels, images, labels, path)
    real = features.predict(images, batch_size=256, verbose=0)
    halves = np.array_split(np.random.default_rng(0).permutation(real), 2)
    print(f"two random halves of the digits: {frechet_distance(*halves):.2f}")

    sampler = DDIMSampler(50, spacing="trailing")
    models = {
        "VQ-VAE + prior": ("vq_vae_prior", {"guidance": None}),
        "latent diffusion": ("latent_diffusion", {"sampler": sampler}),
        "DDPM on pixels": ("ddpm", {"sampler": DDIMSampler(50, spacing="trailing", clip_x0=1.0)}),
    }
    rows = {"digits": images[np.argsort(labels, kind="stable")[:: len(images) // 20]][:20]}
    for name, (folder, options) in models.items():
        model = keras.models.load_model(arguments.runs / folder / "model.keras")
        distances, right = [], []
        for seed in range(arguments.draws):
            samples = model.sample(len(images), condition=labels, seed=seed, batch_size=256, verbose=0, **options)
            distances.append(frechet_distance(features.predict(samples, batch_size=256, verbose=0), real))
            right.append(np.mean(classes(classifier, samples) == labels))
        print(
            f"{name}: Frechet distance {np.mean(distances):.2f} +- {np.std(distances):.2f}, "
            f"{np.mean(right):.1%} classified as their class"
        )
        rows[name] = model.sample(20, condition=np.repeat(np.arange(10), 2), seed=0, verbose=0, **options)
    save_row_panels(arguments.output / "samples.png", {"": rows})


if __name__ == "__main__":
    main()
