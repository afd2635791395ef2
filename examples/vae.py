"""VAE, https://kexue.fm/archives/5253: images as points in a latent plane, and the plane as images.

    KERAS_BACKEND=jax python examples/vae.py
    KERAS_BACKEND=torch python examples/vae.py --dataset fashion_mnist --epochs 20

Writes the latents of test images colored by class, the decoded images of a grid of latents, samples and the model to
`--output`, and prints the ELBO of test images in nats.
"""

from typing import Any

import keras
import numpy as np
from datasets import load_split
from scipy.stats import norm
from shared import parser, save_figure, save_picture, train

from keras_gen.callbacks import SampleGrid
from keras_gen.models import VAE

LATENT_DIM = 2


def build_model(image_shape: tuple[int, ...], seed: int) -> VAE:
    x, z = keras.Input(image_shape), keras.Input((LATENT_DIM,))
    h = keras.layers.Dense(256, "relu")(keras.layers.Flatten()(x))
    encoder = keras.Model(x, [keras.layers.Dense(LATENT_DIM)(h), keras.layers.Dense(LATENT_DIM)(h)])
    h = keras.layers.Dense(int(np.prod(image_shape)))(keras.layers.Dense(256, "relu")(z))
    decoder = keras.Model(z, keras.layers.Reshape(image_shape)(h))
    return VAE(encoder, decoder, seed=seed)


def save_scatter(path: Any, z: np.ndarray, labels: np.ndarray | None) -> None:
    def draw(axes: Any) -> None:
        points = axes.scatter(z[:, 0], z[:, 1], c=labels, cmap="tab10", s=8)
        axes.set(xlabel="$z_1$", ylabel="$z_2$", aspect="equal")
        if labels is not None:
            axes.figure.colorbar(points, label="class")

    save_figure(path, draw, 6, 5)


def manifold(side: int = 15) -> np.ndarray:
    """Returns a grid of latents at equally spaced quantiles, from the top left to the bottom right: `(side^2, 2)`."""
    steps = norm.ppf(np.linspace(0.05, 0.95, side))
    return np.stack(np.meshgrid(steps, steps[::-1]), axis=-1).reshape(-1, 2)


def main() -> None:
    arguments = parser(__doc__, "vae", epochs=150).parse_args()
    keras.utils.set_random_seed(arguments.seed)
    (images, _), (test, test_labels) = load_split(arguments.dataset, arguments.size)
    output = arguments.output
    model = build_model(images.shape[1:], arguments.seed)
    model.compile(keras.optimizers.Adam(2e-3))
    grid = SampleGrid(output / "epoch_{epoch:04d}.png", every=max(1, arguments.epochs // 4), scale=4)
    train(model, images, None, arguments, [grid], validation_data=(test, None))

    save_scatter(output / "latents.png", model.encode(test), test_labels)
    save_picture(output / "manifold.png", model.decode(manifold()), 15)
    save_picture(output / "samples.png", model.sample(80, seed=arguments.seed, verbose=0), 10)
    bound = model.elbo(test, num_samples=10, seed=0, verbose=0)
    print(f"bound on -log p(x) of {len(test)} test images: {-bound.mean():.2f} nats")


if __name__ == "__main__":
    main()
