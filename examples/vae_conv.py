"""Convolutional VAE, https://kexue.fm/archives/5253: a VAE with convolutions and a Gaussian likelihood.

    KERAS_BACKEND=jax python examples/vae_conv.py
    KERAS_BACKEND=jax python examples/vae_conv.py --upsampling icnr
    KERAS_BACKEND=torch python examples/vae_conv.py --dataset my_pictures --size 64 --latent-dim 128 --epochs 50

Pixels are Gaussian around the decoder's output, with one shared variance; the post's squared error is variance 1/2.
Writes samples, reconstructions, interpolations between test images and the model to `--output`, and prints the ELBO
of test images in nats.
"""

from collections.abc import Callable

import keras
import numpy as np
from datasets import check_sides, load_split
from shared import as_count, parser, save_picture, side_by_side, train
from upsampling import KINDS

from keras_gen.losses import GaussianLikelihood
from keras_gen.models import VAE


def build_model(
    image_shape: tuple[int, ...], latent_dim: int, variance: float, seed: int, up: Callable[[int, str], keras.Layer]
) -> VAE:
    conv = keras.layers.Conv2D
    x, z = keras.Input(image_shape), keras.Input((latent_dim,))
    h = x
    for filters in (32, 64):
        h = conv(filters, 4, 2, "same", activation="silu")(h)
    small = h.shape[1:]
    h = keras.layers.Dense(128, "silu")(keras.layers.Flatten()(h))
    encoder = keras.Model(x, [keras.layers.Dense(latent_dim)(h), keras.layers.Dense(latent_dim)(h)])
    h = keras.layers.Dense(int(np.prod(small)), "silu")(keras.layers.Dense(128, "silu")(z))
    h = keras.layers.Reshape(small)(h)
    for filters in (64, 32):
        h = up(filters, "silu")(h)
    decoder = keras.Model(z, conv(image_shape[-1], 3, padding="same")(h))
    return VAE(encoder, decoder, GaussianLikelihood(variance), seed=seed)


def main() -> None:
    arguments = parser(__doc__, "vae_conv", epochs=60)
    arguments.add_argument("--latent-dim", type=as_count, default=8)
    arguments.add_argument("--variance", type=float, default=0.1, help="of a pixel around the decoder's output")
    arguments.add_argument("--upsampling", choices=KINDS, default="transposed", help="how the decoder doubles images")
    arguments = arguments.parse_args()
    keras.utils.set_random_seed(arguments.seed)
    (images, _), (test, _) = load_split(arguments.dataset, arguments.size)
    check_sides(images.shape[1:])
    output = arguments.output
    up = KINDS[arguments.upsampling]
    model = build_model(images.shape[1:], arguments.latent_dim, arguments.variance, arguments.seed, up)
    model.compile(keras.optimizers.Adam(2e-3))
    train(model, images, None, arguments, validation_data=(test, None))

    save_picture(output / "samples.png", model.sample(80, seed=arguments.seed, verbose=0), 10)
    pairs = side_by_side(test[:30], model.reconstruct(test[:30]))
    save_picture(output / "reconstructions.png", pairs, 10)
    between = model.interpolate(test[:6], test[6:12], points=9)
    save_picture(output / "interpolation.png", between.reshape(-1, *test.shape[1:]), 9)
    bound = model.elbo(test, num_samples=10, seed=0, verbose=0)
    print(f"bound on -log p(x) of {len(test)} test images: {-bound.mean():.2f} nats")


if __name__ == "__main__":
    main()
