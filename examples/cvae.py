"""Conditional VAE, https://kexue.fm/archives/5253: each class has its own prior mean in the latent plane.

    KERAS_BACKEND=jax python examples/cvae.py
    KERAS_BACKEND=torch python examples/cvae.py --dataset mnist --epochs 20

Writes samples of each class (a column each, with the same noise along a row), the latents of test images with the
learned class means, and the model to `--output`, and prints the ELBO of test images in nats.
"""

from typing import Any

import keras
import numpy as np
from datasets import count_classes, load_split
from shared import parser, save_figure, save_picture, train

from keras_gen.models import CVAE

LATENT_DIM = 2


def build_model(image_shape: tuple[int, ...], num_classes: int, seed: int) -> CVAE:
    x, z = keras.Input(image_shape), keras.Input((LATENT_DIM,))
    h = keras.layers.Dense(256, "relu")(keras.layers.Flatten()(x))
    encoder = keras.Model(x, [keras.layers.Dense(LATENT_DIM)(h), keras.layers.Dense(LATENT_DIM)(h)])
    h = keras.layers.Dense(int(np.prod(image_shape)))(keras.layers.Dense(256, "relu")(z))
    decoder = keras.Model(z, keras.layers.Reshape(image_shape)(h))
    return CVAE(encoder, decoder, num_classes, seed=seed)


def save_scatter(path: Any, z: np.ndarray, labels: np.ndarray, means: np.ndarray) -> None:
    def draw(axes: Any) -> None:
        points = axes.scatter(z[:, 0], z[:, 1], c=labels, cmap="tab10", s=8)
        for label, (x, y) in enumerate(means):
            axes.annotate(str(label), (x, y), ha="center", va="center", bbox={"boxstyle": "circle", "fc": "white"})
        axes.set(xlabel="$z_1$", ylabel="$z_2$", aspect="equal", title="latents, and the mean of each class's prior")
        axes.figure.colorbar(points, label="class")

    save_figure(path, draw, 6, 5)


def main() -> None:
    arguments = parser(__doc__, "cvae", epochs=150).parse_args()
    keras.utils.set_random_seed(arguments.seed)
    (images, labels), (test, test_labels) = load_split(arguments.dataset, arguments.size)
    if labels is None:
        raise ValueError(f"`--dataset` must have labels. Received: {arguments.dataset}")
    num_classes = count_classes(labels)
    model = build_model(images.shape[1:], num_classes, arguments.seed)
    model.compile(keras.optimizers.Adam(2e-3))
    train(model, images, labels, arguments, validation_data=(test, test_labels))

    output = arguments.output
    save_scatter(output / "latents.png", model.encode(test), test_labels, keras.ops.convert_to_numpy(model.means))
    rows = 8
    noise = np.random.default_rng(arguments.seed).standard_normal((rows, LATENT_DIM)).repeat(num_classes, axis=0)
    condition = np.tile(np.arange(num_classes), rows)
    samples = model.sample(len(condition), condition, noise=noise, verbose=0)
    save_picture(output / "samples.png", samples, num_classes)
    bound = model.elbo(test, test_labels, num_samples=10, seed=0, verbose=0)
    print(f"bound on -log p(x | y) of {len(test)} test images: {-bound.mean():.2f} nats")


if __name__ == "__main__":
    main()
