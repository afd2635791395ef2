"""Gumbel-softmax, https://kexue.fm/archives/6705: a VAE with 32 categorical latents, soft and straight-through.

    KERAS_BACKEND=jax python examples/vae_gumbel.py
    KERAS_BACKEND=jax python examples/vae_gumbel.py --dataset mnist --epochs 40 --batch-size 100

Pixels are binarized by new draws in each epoch (`--fixed-pixels`: once). The temperature decreases with the training
step, inside the compiled `fit`. Both estimators are compared by the ELBO of test images with hard (one-hot) samples, in
nats. Writes pictures and models to `--output`.
"""

import keras
import numpy as np
from datasets import load_split
from keras.optimizers.schedules import CosineDecay, PolynomialDecay
from shared import (
    RedrawnPixels,
    binarized,
    mean_and_error,
    number_of_steps,
    parser,
    save_picture,
    side_by_side,
    train,
)

from keras_gen.models import GumbelVAE

LATENTS, CLASSES, WIDTH = 32, 10, 1024
WAYS = {"soft": False, "straight-through": True}


def build_model(image_shape: tuple[int, ...], hard: bool, steps: int, seed: int) -> GumbelVAE:
    dense = keras.layers.Dense
    encoder = keras.Sequential(
        [
            keras.Input(image_shape),
            keras.layers.Flatten(),
            dense(WIDTH, "silu"),
            dense(WIDTH // 2, "silu"),
            dense(LATENTS * CLASSES),
            keras.layers.Reshape((LATENTS, CLASSES)),
        ]
    )
    decoder = keras.Sequential(
        [
            keras.Input((LATENTS, CLASSES)),
            keras.layers.Flatten(),
            dense(WIDTH // 2, "silu"),
            dense(WIDTH, "silu"),
            dense(int(np.prod(image_shape))),
            keras.layers.Reshape(image_shape),
        ]
    )
    # Soft samples approach hard ones as the temperature decreases, while the variance of the gradient grows: slowly,
    # and not below 0.3. KL annealing (warm-up) over the first third: with the full weight from the start most latents
    # collapse to the prior; without any, logits diverge, and their gradients vanish.
    temperature = PolynomialDecay(1.0, max(1, 4 * steps // 5), end_learning_rate=0.3)
    kl_weight = PolynomialDecay(0.3, max(1, steps // 3), end_learning_rate=1.0)
    model = GumbelVAE(encoder, decoder, temperature, hard, kl_weight=kl_weight, seed=seed)
    model.compile(keras.optimizers.Adam(CosineDecay(2e-3, max(1, steps)), global_clipnorm=5.0))
    return model


def main() -> None:
    arguments = parser(__doc__, "vae_gumbel", epochs=150)
    arguments.add_argument("--fixed-pixels", action="store_true", help="draw training pixels black or white only once")
    arguments = arguments.parse_args()
    (images, _), (test, _) = load_split(arguments.dataset, arguments.size)
    test = binarized(test, seed=1)
    steps = number_of_steps(arguments, len(images))
    bounds = {}
    for way, hard in WAYS.items():
        keras.utils.set_random_seed(arguments.seed)
        model = build_model(images.shape[1:], hard, steps, arguments.seed)
        data = RedrawnPixels(images, arguments.batch_size, arguments.seed)
        if arguments.fixed_pixels:
            data = binarized(images, arguments.seed)
        train(model, data, None, arguments, validation_data=(test, None), folder=way)
        bounds[way] = model.elbo(test, num_samples=10, seed=0, verbose=0)
        folder = arguments.output / way
        save_picture(folder / "samples.png", model.sample(100, seed=arguments.seed, verbose=0), 10)
        pairs = side_by_side(test[:30], model.reconstruct(test[:30]))
        save_picture(folder / "reconstructions.png", pairs, 10)
    for way, bound in bounds.items():
        print(f"{way:17} bound on -log p(x), hard samples: {mean_and_error(-bound)} nats")


if __name__ == "__main__":
    main()
