"""GAN, https://kexue.fm/archives/6387: a generator and a discriminator trained jointly, by one loss.

    KERAS_BACKEND=tensorflow python examples/gan.py
    KERAS_BACKEND=tensorflow python examples/gan.py --dataset fashion_mnist --epochs 7 --r1 0.3 --rates 1e-3 1e-3
    KERAS_BACKEND=jax python examples/gan.py --loss wasserstein

As in the post, the gradient of each player's loss is stopped at the other's weights, so one `fit` trains both. With
`--mapping`, a network computes the generator's latents from noise, as in StyleGAN, and they need not be Gaussian. Its
learning rate is a hundredth of the generator's: at the full rate the samples lost their diversity.

Writes samples, interpolations between latents, both players' losses and the model to `--output`; if the data have
labels, a classifier counts how many of 1,000 samples fall in each class.
"""

import argparse

import keras
import numpy as np
from classifier import classes, train_classifier
from datasets import check_sides, count_classes, load_split
from shared import as_count, parser, save_logged, save_picture, train

from keras_gen.callbacks import SampleGrid
from keras_gen.losses import GradientPenalty, R1Penalty
from keras_gen.models import GAN

# Each loss with its common penalty.
LOSSES = {"non_saturating": "r1", "hinge": "r1", "relativistic": "r1", "wasserstein": "gradient"}


def build_generator(image_shape: tuple[int, ...], latent_dim: int) -> keras.Model:
    height, width, channels = image_shape
    x = keras.Sequential([keras.Input((latent_dim,))], name="generator")
    if height * width < 256:
        for units in (256, 256):
            add_dense(x, units)
        x.add(keras.layers.Dense(height * width * channels, "tanh"))
        x.add(keras.layers.Reshape(image_shape))
        return x
    add_dense(x, height // 4 * (width // 4) * 64)
    x.add(keras.layers.Reshape((height // 4, width // 4, 64)))
    for filters in (32, 16):
        x.add(keras.layers.UpSampling2D())
        x.add(keras.layers.Conv2D(filters, 3, padding="same", kernel_initializer="he_normal"))
        x.add(keras.layers.LeakyReLU(0.2))
    x.add(keras.layers.Conv2D(channels, 3, padding="same", activation="tanh"))
    return x


def build_discriminator(image_shape: tuple[int, ...]) -> keras.Model:
    x = keras.Sequential([keras.Input(image_shape)], name="discriminator")
    if image_shape[0] * image_shape[1] < 256:
        x.add(keras.layers.Flatten())
        for units in (256, 256):
            add_dense(x, units)
    else:
        for filters, size in ((32, 4), (64, 4), (128, 3)):
            x.add(keras.layers.Conv2D(filters, size, 2, "same", kernel_initializer="he_normal"))
            x.add(keras.layers.LeakyReLU(0.2))
        x.add(keras.layers.Flatten())
    x.add(keras.layers.Dense(1))
    return x


def build_mapping(latent_dim: int, depth: int) -> keras.Model:
    x = keras.Sequential([keras.Input((latent_dim,)), keras.layers.UnitNormalization()], name="mapping")
    x.add(keras.layers.Rescaling(latent_dim**0.5))
    for _ in range(depth):
        add_dense(x, latent_dim)
    return x


def add_dense(x: keras.Sequential, units: int) -> None:
    x.add(keras.layers.Dense(units, kernel_initializer="he_normal"))
    x.add(keras.layers.LeakyReLU(0.2))


def build_model(image_shape: tuple[int, ...], arguments: argparse.Namespace) -> GAN:
    check_sides(image_shape)
    penalty = arguments.penalty or LOSSES[arguments.loss]
    penalties = {"r1": R1Penalty(arguments.r1), "gradient": GradientPenalty(10.0), "none": None}
    model = GAN(
        build_generator(image_shape, arguments.latent_dim),
        build_discriminator(image_shape),
        arguments.loss,
        penalties[penalty],
        build_mapping(arguments.latent_dim, arguments.depth) if arguments.mapping else None,
        seed=arguments.seed,
    )
    generator_rate, discriminator_rate = arguments.rates
    rates = [generator_rate, discriminator_rate, *([generator_rate / 100] if arguments.mapping else [])]
    model.compile(*(keras.optimizers.Adam(rate, beta_1=0.0, beta_2=0.99) for rate in rates))
    return model


def interpolate(model: GAN, rows: int, columns: int, seed: int) -> np.ndarray:
    """Interpolates between draws on an arc, along which norms are those of typical draws."""
    ends = np.random.default_rng(seed).standard_normal((2, rows, 1, *model.noise_shape))
    angle = np.linspace(0, np.pi / 2, columns)[:, None]
    z = np.cos(angle) * ends[0] + np.sin(angle) * ends[1]
    return model.sample(noise=z.reshape(-1, *model.noise_shape).astype("float32"), verbose=0)


def gan_arguments(description: str, name: str) -> argparse.ArgumentParser:
    result = parser(description, name, epochs=300)
    result.add_argument("--loss", choices=LOSSES, default="non_saturating")
    result.add_argument("--penalty", choices=("r1", "gradient", "none"), help="default: what suits the loss")
    result.add_argument("--r1", type=float, default=1.0, help="weight of the R1 penalty")
    result.add_argument("--rates", type=float, nargs=2, default=(2e-3, 2e-3), help="of generator and discriminator")
    result.add_argument("--latent-dim", type=as_count, default=64)
    result.add_argument("--mapping", action="store_true", help="a network between noise and the generator's latents")
    result.add_argument("--depth", type=as_count, default=4, help="layers of the mapping")
    return result


def main() -> None:
    arguments = gan_arguments(__doc__, "gan").parse_args()
    keras.utils.set_random_seed(arguments.seed)
    (images, labels), (test, test_labels) = load_split(arguments.dataset, arguments.size)
    output, seed = arguments.output, arguments.seed
    model = build_model(images.shape[1:], arguments)
    every = max(1, arguments.epochs // 10)
    train(model, images, None, arguments, [SampleGrid(output / "epochs" / "{epoch:04d}.png", 64, every, scale=2)])

    save_logged(output / "players.png", output / "loss.csv", ("discriminator_loss", "generator_loss"), "loss")
    save_picture(output / "interpolation.png", interpolate(model, 8, 12, seed), 12)
    samples = model.sample(1000, seed=seed, verbose=0)
    save_picture(output / "samples.png", samples[:96], 12)
    if labels is not None:
        classifier, _ = train_classifier(images, labels, test, test_labels, output / "classifier.keras", seed)
        counts = np.bincount(classes(classifier, samples), minlength=count_classes(labels))
        print(f"{np.sum(counts > 0)} classes in {len(samples)} samples: {', '.join(map(str, counts))}")


if __name__ == "__main__":
    main()
