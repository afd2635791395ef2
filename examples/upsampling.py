"""Five ways to double an image, https://kexue.fm/archives/6549: which make checkerboards, and when.

    KERAS_BACKEND=jax python examples/upsampling.py
    KERAS_BACKEND=jax python examples/upsampling.py --dataset mnist --epochs 3

As the post says, checkerboards arise with any stride above 1, where neighbouring pixels have different weights, and
they are subtle after training. With independent weights for the 4 pixels of a square, 3/4 of the energy of a constant
image's output is at the Nyquist frequencies. A convolution after the enlargement makes none; a sub-pixel convolution
with ICNR (arXiv:1707.02937) starts without any, and learns some. Networks that differ in their last layer alone learn
to undo averages over 2 x 2 pixels, by default of shapes drawn here. Prints this share and the test error, and writes a
picture to `--output`.
"""

import pathlib
from typing import Any

import keras
import numpy as np
from datasets import load_split
from keras.layers import Conv2D, Conv2DTranspose, UpSampling2D
from shared import parser, write

from keras_gen.initializers import ICNR
from keras_gen.layers import PixelShuffle2D


def resized(filters: int, activation: str | None = None, interpolation: str = "nearest") -> keras.Layer:
    convolution = Conv2D(filters, 3, padding="same", activation=activation)
    return keras.Sequential([UpSampling2D(interpolation=interpolation), convolution])


def transposed(filters: int, activation: str | None = None) -> keras.Layer:
    return Conv2DTranspose(filters, 4, 2, "same", activation=activation)


def sub_pixel(filters: int, activation: str | None = None, initializer: Any = "glorot_uniform") -> keras.Layer:
    convolution = Conv2D(4 * filters, 3, padding="same", activation=activation, kernel_initializer=initializer)
    return keras.Sequential([convolution, PixelShuffle2D()])


# name -> what makes the layer, of a number of channels and an activation
KINDS = {
    "nearest": resized,
    "bilinear": lambda filters, activation=None: resized(filters, activation, "bilinear"),
    "transposed": transposed,
    "sub-pixel": sub_pixel,
    "icnr": lambda filters, activation=None: sub_pixel(filters, activation, ICNR()),
}


def halved(images: np.ndarray) -> np.ndarray:
    n, height, width, channels = images.shape
    return images.reshape(n, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))


def checkerboard(images: np.ndarray) -> float:
    """Returns the share of energy at the Nyquist frequencies in what became of constant images."""
    return 1 - np.square(halved(np.float64(images))).mean() / np.square(np.float64(images)).mean()


def scaled(image: np.ndarray) -> np.ndarray:
    return image / (2 * np.sqrt(np.square(image).mean()))


def shapes(n: int, size: int, seed: int) -> np.ndarray:
    """Returns images of one shape each, a diamond, disc or box, in two shades of gray."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    row, column, ground, shade = rng.uniform(-1, 1, (4, n, 1, 1))
    radius, power = rng.uniform(0.2, 0.7, (n, 1, 1)), rng.choice([1, 2, 8], (n, 1, 1))
    distance = (np.abs(rows - row / 2) ** power + np.abs(columns - column / 2) ** power) ** (1 / power)
    shape = np.clip(0.5 + (radius - distance) * size / 2, 0, 1)  # the edge is about one pixel wide
    return (ground + (shade - ground) * shape)[..., None].astype("float32")


def draw(columns: dict[str, list[tuple[str, np.ndarray]]], path: pathlib.Path) -> None:
    """Draws a column of named images in [-1, 1] below each title."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.7 * len(columns), 7.2), layout="constrained")
    for (title, images), cells in zip(columns.items(), figure.subplots(4, len(columns)).T, strict=True):
        cells[0].set_title(title)
        for cell, (name, image) in zip(cells, images, strict=True):
            cell.imshow(image.mean(axis=-1), "gray", vmin=-1, vmax=1)
            cell.set(xticks=[], yticks=[], xlabel=name)
    write(figure, path)


def main() -> None:
    arguments = parser(__doc__, "upsampling", epochs=10)
    arguments.set_defaults(dataset="shapes")
    arguments = arguments.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    if arguments.dataset == "shapes":
        images, test = (shapes(n, 32, arguments.seed + part) for part, n in enumerate((2000, 300)))
    else:
        (images, _), (test, _) = load_split(arguments.dataset, arguments.size)
    channels, away = images.shape[-1], np.s_[:, 8:-8, 8:-8]  # from the zeros around images
    flat = np.linspace(-1, 1, 9, dtype="float32").reshape(-1, 1, 1, 1) * np.ones((1, 16, 16, channels), "float32")
    shown = test[[test.std(axis=(1, 2, 3)).argmax()]]  # that of most contrast
    columns = {"data": 2 * [("a constant", flat[6]), ("a test image", shown[0])]}
    print(f"{'':12}{'checkerboard, before':>20}{'expected':>10}{'after':>10}{'test error':>12}")
    for kind, make in KINDS.items():
        keras.utils.set_random_seed(arguments.seed)
        share = checkerboard(keras.ops.convert_to_numpy(make(1024)(np.ones((1, 16, 16, 32), "float32")))[away])
        convolutions = [Conv2D(32, 3, padding="same", activation="relu") for _ in range(2)]
        model = keras.Sequential([keras.Input((None, None, channels)), *convolutions, make(channels)])
        grays, made = (model.predict(given, verbose=0) for given in (flat, halved(shown)))
        before = [(f"{share:.0%} checkerboard", scaled(grays[away][6])), ("before training", scaled(made[0]))]
        model.compile(keras.optimizers.Adam(2e-3), "mse")
        model.fit(halved(images), images, arguments.batch_size, arguments.epochs, verbose=0)
        grays, made = (model.predict(given, verbose=0) for given in (flat, halved(shown)))
        left, ripple = checkerboard(grays[away]), grays[away][6] - grays[away][6].mean()
        columns[kind] = [*before, (f"{left:.3%}, contrast x 100", 100 * ripple), ("after training", made[0])]
        error, expected = model.evaluate(halved(test), test, verbose=0), 0.75 * (kind in ("transposed", "sub-pixel"))
        print(f"{kind:12}{share:20.3f}{expected:10.2f}{left:10.1e}{error:12.5f}")
    draw(columns, arguments.output / "upsampling.png")


if __name__ == "__main__":
    main()
