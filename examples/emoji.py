"""Colour pictures by category with EDM and classifier-free guidance, after https://kexue.fm/archives/9228 and /9257.

    KERAS_BACKEND=jax python examples/emoji.py               # without a file: the digits, in minutes
    KERAS_BACKEND=torch python examples/emoji.py --dataset noto_emoji.npz --widths 48 96 144 --epochs 200 \\
        --batch-size 32
    KERAS_BACKEND=jax python examples/emoji.py --dataset noto_emoji.npz --widths 64 128 256 --epochs 1150 \\
        --blocks 2                                           # README's picture: 6 minutes on an H200

The file holds `x_train` (n, 64, 64, 3) uint8, `y_train` (n,), an index into `categories`, and `categories` (names).
Writes pictures and the model to `--output`. An interrupted run resumes from its last epoch.
"""

import argparse
import pathlib

import keras
import numpy as np
from datasets import count_classes, load_images
from shared import as_count, number_of_steps, parser, save_picture, train, warm_cosine

from keras_gen.callbacks import SampleGrid
from keras_gen.data import load_arrays
from keras_gen.models import EDM, UNet
from keras_gen.samplers import ClassifierFreeGuidance, HeunSampler

# People differ by gender and skin tone, flags by their texts: too much for 32 x 32 pixels and an hour.
CATEGORIES = ("Smileys & Emotion", "Animals & Nature", "Food & Drink", "Activities", "Travel & Places")
SAMPLER = HeunSampler(25, clip_x0=1.0)


def parse_arguments() -> argparse.Namespace:
    arguments = parser(__doc__, "emoji", epochs=40)
    arguments.add_argument("--categories", nargs="+", default=CATEGORIES, help="those to learn, by name")
    arguments.add_argument("--guidance", type=float, default=1.5)
    arguments.add_argument("--widths", type=as_count, nargs="+", default=(32, 64), help="of the U-Net's levels")
    arguments.add_argument("--blocks", type=as_count, default=1, help="residual blocks in each level")
    arguments.set_defaults(size=32)
    return arguments.parse_args()


def load(arguments: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Loads pictures in [-1, 1] of height and width `--size`, and the number of each one's category."""
    images, labels = load_images(arguments.dataset)
    path = pathlib.Path(arguments.dataset)
    if path.suffix == ".npz":
        names = load_arrays(path, "categories")["categories"].tolist()
        unknown = set(arguments.categories) - set(names)
        if unknown:
            raise ValueError(f"`--categories` must be some of {names}. Received: {sorted(unknown)}")
        chosen = [names.index(name) for name in arguments.categories]
        kept = np.isin(labels, chosen)
        images, labels = images[kept], np.argsort(np.argsort(chosen))[np.searchsorted(np.sort(chosen), labels[kept])]
        images = smaller(images, arguments.size)
    return images, labels.astype("int32")


def smaller(images: np.ndarray, size: int) -> np.ndarray:
    """Returns the means of equal blocks, `size` of them along each side."""
    n, side, _, channels = images.shape
    if side % size:
        raise ValueError(f"`--size` must divide the pictures' side, {side}. Received: {size}")
    block = side // size
    return images.reshape(n, size, block, size, block, channels).mean(axis=(2, 4))


def main() -> None:
    arguments = parse_arguments()
    keras.utils.set_random_seed(arguments.seed)
    images, labels = load(arguments)
    num_classes = count_classes(labels)
    shape, attention = images.shape[1:], (len(arguments.widths) - 1,)
    network = UNet(shape, arguments.widths, arguments.blocks, attention, num_classes=num_classes, dropout=0.1)
    model = EDM(network, sigma_data=float(images.std()), condition_dropout=0.1, seed=arguments.seed)
    print(f"{network.count_params():,} weights")
    rate = warm_cosine(1e-3, number_of_steps(arguments, len(images)))
    model.compile(keras.optimizers.Adam(rate, use_ema=True, ema_momentum=0.998))
    guidance = ClassifierFreeGuidance(arguments.guidance)
    grid = SampleGrid(
        arguments.output / "epoch_{epoch:04d}.png",
        every=max(1, arguments.epochs // 10),
        sampler=SAMPLER,
        condition=np.arange(16) % num_classes,
    )
    train(model, images, labels, arguments, [grid])
    columns = 10
    condition = np.repeat(np.arange(num_classes), columns)
    samples = model.sample(len(condition), SAMPLER, condition, guidance, seed=arguments.seed)
    save_picture(arguments.output / "samples.png", samples, columns)


if __name__ == "__main__":
    main()
