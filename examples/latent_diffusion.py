"""Latent diffusion, https://kexue.fm/archives/9119 on the latents of an autoencoder, arXiv:2112.10752.

    KERAS_BACKEND=jax python examples/latent_diffusion.py
    KERAS_BACKEND=jax python examples/latent_diffusion.py --autoencoder vq
    KERAS_BACKEND=jax python examples/latent_diffusion.py --dataset mnist --autoencoder-epochs 10 --epochs 20

First an autoencoder compresses images: a VAE with a small KL weight, or a VQ-VAE, of which the vectors before
quantization are used. Then a diffusion model learns the latents of each class. Writes reconstructions, samples by
class, loss curves and both models to `--output`; prints the Frechet distances of reconstructions and samples from test
images, in the features of a classifier. An interrupted run resumes, and an existing autoencoder is not trained again.
"""

import argparse
import pathlib

import keras
import numpy as np
import vq_vae
from classifier import classes, train_classifier
from datasets import check_sides, count_classes, load_split
from ddpm import build_network, fit
from shared import (
    as_count,
    full_or_smoke,
    loaded_or_trained,
    number_of_steps,
    parser,
    save_picture,
    side_by_side,
    train,
)

from keras_gen.losses import GaussianLikelihood
from keras_gen.metrics import FrechetDistance
from keras_gen.models import DDPM, VAE, LatentDiffusion
from keras_gen.samplers import ClassifierFreeGuidance, DDIMSampler
from keras_gen.schedules import CosineSchedule

# Without clip_x0=1: latents are not bounded. Hence the v-prediction, which needs no clipping at high noise levels.
SAMPLER = DDIMSampler(full_or_smoke(50, 2), spacing="trailing")


def build_vae(image_shape: tuple[int, ...], channels: int, seed: int) -> VAE:
    conv, up, width = keras.layers.Conv2D, keras.layers.Conv2DTranspose, 64
    halvings = 1 if image_shape[0] <= 16 else 2
    x = h = keras.Input(image_shape)
    for _ in range(halvings):
        h = conv(width, 4, 2, "same", activation="silu")(h)
    h = conv(width, 3, padding="same", activation="silu")(h)
    encoder = keras.Model(x, [conv(channels, 1)(h), conv(channels, 1)(h)])
    z = keras.Input((*h.shape[1:-1], channels))
    h = conv(width, 3, padding="same", activation="silu")(z)
    for _ in range(halvings):
        h = up(width, 4, 2, "same", activation="silu")(h)
    decoder = keras.Model(z, conv(image_shape[-1], 3, padding="same")(h))
    return VAE(encoder, decoder, GaussianLikelihood(0.1), kl_weight=0.1, seed=seed)


def train_autoencoder(
    images: np.ndarray, test: np.ndarray, folder: pathlib.Path, arguments: argparse.Namespace
) -> keras.Model:
    keras.utils.set_random_seed(arguments.seed)
    if arguments.autoencoder == "vae":
        model = build_vae(images.shape[1:], arguments.channels, arguments.seed)
    else:
        model = vq_vae.build_model(images.shape[1:], 64, "vq", arguments.seed)
    own = argparse.Namespace(**{**vars(arguments), "epochs": arguments.autoencoder_epochs, "output": folder})
    rate = keras.optimizers.schedules.CosineDecay(2e-3, number_of_steps(own, len(images)))
    model.compile(keras.optimizers.Adam(rate))
    train(model, images, None, own, validation_data=(test, None))
    return model


def main() -> None:
    arguments = parser(__doc__, "latent_diffusion", epochs=60)
    arguments.add_argument("--autoencoder", choices=["vae", "vq"], default="vae")
    arguments.add_argument("--autoencoder-epochs", type=as_count, default=50)
    arguments.add_argument("--channels", type=as_count, default=4, help="of the latents of the VAE")
    arguments.add_argument("--guidance", type=float, default=1.5, help="scale of classifier-free guidance; 1 is none")
    arguments = arguments.parse_args()
    (images, labels), (test, test_labels) = load_split(arguments.dataset, arguments.size)
    check_sides(images.shape[1:])
    output, seed = arguments.output, arguments.seed
    folder = output / f"autoencoder_{arguments.autoencoder}"
    autoencoder = loaded_or_trained(folder / "model.keras", lambda: train_autoencoder(images, test, folder, arguments))

    keras.utils.set_random_seed(seed)
    num_classes = count_classes(labels)
    latent_shape = autoencoder.decoder.input_shape[1:]
    network = build_network("full", latent_shape, num_classes)
    dropout = 0.0 if labels is None else 0.1
    diffusion = DDPM(network, CosineSchedule(), "v", condition_dropout=dropout, seed=seed)
    model = LatentDiffusion(autoencoder, diffusion, seed=seed)
    print(f"images of {images.shape[1:]}, latents of {latent_shape}, {network.count_params():,} weights")
    fit(model, images, labels, arguments, SAMPLER)

    again = model.reconstruct(test)
    save_picture(output / "reconstructions.png", side_by_side(test[:30], again[:30]), 10)
    rows, columns = 8, 10 if labels is None else num_classes
    guidance = None if labels is None else ClassifierFreeGuidance(arguments.guidance)
    condition = None if labels is None else np.tile(np.arange(columns), rows)
    samples = model.sample(rows * columns, SAMPLER, condition, guidance, seed, batch_size=80)
    save_picture(output / "samples.png", samples, columns)
    if labels is not None:
        report(model, again, images, labels, test, test_labels, arguments)


def report(
    model: LatentDiffusion,
    again: np.ndarray,
    images: np.ndarray,
    labels: np.ndarray,
    test: np.ndarray,
    test_labels: np.ndarray,
    arguments: argparse.Namespace,
) -> None:
    """Prints Frechet distances from test images, and accuracies, of reconstructions and samples."""
    path = arguments.output / "classifier.keras"
    classifier, features = train_classifier(images, labels, test, test_labels, path, arguments.seed)
    options = {"seed": arguments.seed, "batch_size": 256, "verbose": 0}
    kept = np.random.default_rng(arguments.seed).permutation(len(images))[: len(test)]
    made = {"training images": images[kept], "reconstructions": again}
    made["samples"] = model.sample(len(test), SAMPLER, test_labels, **options)
    guidance = ClassifierFreeGuidance(arguments.guidance)
    made[f"samples, guided by {arguments.guidance:g}"] = model.sample(
        len(test), SAMPLER, test_labels, guidance, **options
    )
    for name, x in made.items():
        metric = FrechetDistance(features)
        metric.update_state(test, x)
        truth = labels[kept] if name == "training images" else test_labels
        share = np.mean(classes(classifier, x) == truth)
        print(f"{name}: Frechet distance of features {metric.result():.3f}, {share:.1%} classified as their class")


if __name__ == "__main__":
    main()
