"""Guidance, https://kexue.fm/archives/9257: guided sampling, inpainting and image-to-image.

    KERAS_BACKEND=jax python examples/guidance.py

Samples a model of `examples/ddpm.py` that was trained with `--condition-dropout 0.1`: that of `--model`, or the one in
`ddpm_dropout` next to `--output`, which is trained first if it is missing. Applies classifier-free guidance at several
scales and with guidance rescale; classifier guidance of the unconditional model, by a classifier of noisy images that
is trained here; inpainting, image-to-image, and denoising trajectories of one class. Writes a picture of each to
`--output`, and prints the accuracy of a classifier of clean images on the samples, and the Frechet distance of the
pixels, relative to that of two random halves of the data.
"""

import argparse

import keras
import numpy as np
from classifier import classes, train_classifier
from datasets import count_classes, load_images, load_split
from ddpm import frechet_unit, load_or_train, sampling_parser
from keras import ops
from shared import full_or_smoke, save_row_panels, save_rows, train

from keras_gen.layers import SinusoidalEmbedding
from keras_gen.metrics import frechet_distance
from keras_gen.models import DDPM
from keras_gen.samplers import ClassifierFreeGuidance, ClassifierGuidance, DDIMSampler, Guidance

SAMPLER = DDIMSampler(full_or_smoke(25, 2), spacing="trailing", clip_x0=1.0)
SCALES = full_or_smoke((0, 1, 2, 3, 5), (2,))


class NoisyImages(keras.utils.PyDataset):
    """Batches of images at random times: `([x_t, t], label)`, redrawn in each epoch."""

    def __init__(self, model: DDPM, images: np.ndarray, labels: np.ndarray, batch_size: int, seed: int):
        super().__init__()
        self.model, self.images, self.labels, self.batch_size, self.seed = model, images, labels, batch_size, seed
        self.epoch = 0

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch_size)

    def __getitem__(self, batch: int) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
        generator = np.random.default_rng([self.seed, self.epoch, batch])
        rows = generator.choice(len(self.images), self.batch_size)
        t = generator.integers(self.model.schedule.num_steps, size=len(rows))
        eps = generator.standard_normal(self.images[rows].shape, "float32")
        return (self.model.add_noise(self.images[rows], t, eps), t), self.labels[rows]

    def on_epoch_end(self) -> None:
        self.epoch += 1


def build_noisy_classifier(image_shape: tuple[int, ...], num_classes: int) -> keras.Model:
    x, t = keras.Input(image_shape), keras.Input(())
    h = keras.layers.Conv2D(32, 3, padding="same", activation="swish")(x)
    h = keras.layers.Conv2D(64, 3, 2, padding="same", activation="swish")(h)
    h = keras.layers.Flatten()(h)
    h = keras.layers.Dense(128)(h) + keras.layers.Dense(128)(SinusoidalEmbedding(64)(t))
    h = keras.layers.Dense(128, "swish")(ops.silu(h))
    return keras.Model([x, t], keras.layers.Dense(num_classes)(h))


def train_noisy_classifier(
    model: DDPM, images: np.ndarray, labels: np.ndarray, arguments: argparse.Namespace
) -> keras.Model:
    classifier = build_noisy_classifier(images.shape[1:], count_classes(labels))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    classifier.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"])
    data = NoisyImages(model, images, labels, 128, arguments.seed)
    train(classifier, data, None, argparse.Namespace(output=arguments.output, epochs=40), folder="noisy_classifier")
    return classifier


def without_labels(model: DDPM) -> DDPM:
    """Returns the unconditional part of a model trained with condition dropout, given by the null label."""
    x, t = (keras.Input(value.shape[1:], dtype=value.dtype) for value in model.network.inputs[:2])
    null = ops.full_like(t, model.network.num_classes, dtype="int32")
    return DDPM(keras.Model([x, t], model.network([x, t, null])), model.schedule, model.prediction)


class Comparison:
    """Samples for given labels under several guidances, evaluated by a classifier of clean images."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, classifier: keras.Model, seed: int):
        kept = np.random.default_rng(seed).permutation(len(images))[: full_or_smoke(500, 16)]
        self.x, self.labels, self.classifier, self.seed = images[kept], labels[kept], classifier, seed
        self.shown = [int(np.flatnonzero(self.labels == c)[0]) for c in np.unique(self.labels)]
        self.unit = frechet_unit(images, seed, len(self.x))

    def sample(self, name: str, model: DDPM, guidance: Guidance | None) -> np.ndarray:
        """Prints the quality of samples, and returns one of each class."""
        options = {"seed": self.seed, "batch_size": 250, "verbose": 0}
        labels = self.labels if guidance is not None or len(model.network.inputs) == 3 else None
        samples = model.sample(len(self.x), SAMPLER, labels, guidance, **options)
        right = np.mean(classes(self.classifier, samples) == self.labels)
        distance = frechet_distance(samples, self.x) / self.unit
        print(f"{name}: {right:.1%} are taken for their label, Frechet distance {distance:.2f}")
        return samples[self.shown]


def guide(model: DDPM, images: np.ndarray, labels: np.ndarray, arguments: argparse.Namespace) -> None:
    split = load_split(arguments.dataset, arguments.size)
    clean, _ = train_classifier(*split[0], *split[1], arguments.output / "classifier.keras", arguments.seed)
    compare = Comparison(images, labels, clean, arguments.seed)
    panels = {}
    for rescale in full_or_smoke((0.0, 0.7), (0.7,)):
        title = f"classifier-free, rescale {rescale}"
        panels[title] = {
            f"scale {scale}": compare.sample(f"{title}, scale {scale}", model, ClassifierFreeGuidance(scale, rescale))
            for scale in SCALES
        }
    unconditional, noisy = without_labels(model), train_noisy_classifier(model, images, labels, arguments)
    panels["a classifier guides a model without labels"] = {
        f"scale {scale}": compare.sample(
            f"by a classifier, scale {scale}", unconditional, ClassifierGuidance(noisy, scale)
        )
        for scale in SCALES
    }
    save_row_panels(arguments.output / "scales.png", panels)


def edit(model: DDPM, images: np.ndarray, labels: np.ndarray, arguments: argparse.Namespace) -> None:
    output, x = arguments.output, images[:12]
    options = {"condition": labels[:12], "verbose": 0}

    known = np.zeros(x.shape, bool)
    known[:, : x.shape[1] // 2] = True
    rows = {"image": x, "known": np.where(known, x, -0.2)}
    for seed in range(full_or_smoke(3, 1)):
        rows[f"filled in, {seed + 1}"] = model.inpaint(x, known, SAMPLER, seed=seed, **options)
    save_rows(output / "inpainting.png", rows, "the lower half, completed")

    rows = {"image": x}
    for strength in full_or_smoke((0.2, 0.4, 0.6, 0.8), (1.0,)):
        rows[f"strength {strength}"] = model.image_to_image(x, strength, SAMPLER, seed=arguments.seed, **options)
    save_rows(output / "image_to_image.png", rows, "images, varied")

    frames = full_or_smoke(10, 2)
    way = model.denoising_path(12, frames, SAMPLER, condition=3, seed=arguments.seed, verbose=0)
    rows = {f"noise {k + 1}": states for k, states in enumerate(way.swapaxes(0, 1)[:6])}
    save_rows(output / "path.png", rows, "from noise to one class")


def main() -> None:
    arguments = sampling_parser(__doc__, "guidance").parse_args()
    images, labels = load_images(arguments.dataset, arguments.size)
    model, labels = load_or_train(images, labels, arguments, condition_dropout=0.1)
    if labels is None:
        raise ValueError(
            f"`--dataset` and `--model` must have labels. Received: {arguments.dataset}, {arguments.model}"
        )
    guide(model, images, labels, arguments)
    edit(model, images, labels, arguments)


if __name__ == "__main__":
    main()
