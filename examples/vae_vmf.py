"""Hyperspherical VAE, https://kexue.fm/archives/8404: latents on the unit sphere, with a constant KL divergence.

    KERAS_BACKEND=jax python examples/vae_vmf.py
    KERAS_BACKEND=torch python examples/vae_vmf.py --dataset mnist --epochs 20

Writes decoded great circles of the sphere, samples, reconstructions and the model to `--output`; prints the ELBO of
test images in nats, and the mean of mu . z against its closed form.
"""

import keras
import numpy as np
from datasets import load_split
from scipy.special import ive
from shared import as_count, mean_and_error, parser, save_picture, side_by_side, train

from keras_gen.layers import VonMisesFisherSampling
from keras_gen.models import VonMisesFisherVAE


def build_model(image_shape: tuple[int, ...], latent_dim: int, kappa: float, seed: int) -> VonMisesFisherVAE:
    dense = keras.layers.Dense
    encoder = keras.Sequential(
        [keras.Input(image_shape), keras.layers.Flatten(), dense(256, "relu"), dense(latent_dim)]
    )
    decoder = keras.Sequential(
        [
            keras.Input((latent_dim,)),
            dense(256, "relu"),
            dense(int(np.prod(image_shape))),
            keras.layers.Reshape(image_shape),
        ]
    )
    return VonMisesFisherVAE(encoder, decoder, kappa, seed=seed)


def great_circle(dim: int, points: int, seed: int) -> np.ndarray:
    """Returns `points` unit vectors around the circle through two random directions."""
    plane, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((dim, 2)))
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1) @ plane.T


def check_sampler(dim: int, kappa: float, seed: int) -> None:
    mu = np.eye(1, dim, dtype="float32").repeat(20_000, axis=0)
    cosines = keras.ops.convert_to_numpy(VonMisesFisherSampling(kappa, seed=seed)(mu))[:, 0]
    expected = ive(dim / 2, kappa) / ive(dim / 2 - 1, kappa)
    print(f"E[mu . z]: {mean_and_error(cosines, 4)} sampled, {expected:.4f} by Bessel functions")


def main() -> None:
    arguments = parser(__doc__, "vae_vmf", epochs=150)
    arguments.add_argument("--latent-dim", type=as_count, default=4)
    arguments.add_argument("--kappa", type=float, default=20.0)
    arguments = arguments.parse_args()
    keras.utils.set_random_seed(arguments.seed)
    (images, _), (test, _) = load_split(arguments.dataset, arguments.size)
    model = build_model(images.shape[1:], arguments.latent_dim, arguments.kappa, arguments.seed)
    model.compile(keras.optimizers.Adam(2e-3))
    train(model, images, None, arguments, validation_data=(test, None))

    output = arguments.output
    save_picture(output / "samples.png", model.sample(80, seed=arguments.seed, verbose=0), 10)
    walks = [great_circle(arguments.latent_dim, 12, arguments.seed + row) for row in range(6)]
    save_picture(output / "circles.png", model.decode(np.concatenate(walks)), 12)
    pairs = side_by_side(test[:30], model.reconstruct(test[:30]))
    save_picture(output / "reconstructions.png", pairs, 10)
    bound = model.elbo(test, num_samples=10, seed=0, verbose=0)
    print(f"bound on -log p(x) of {len(test)} test images: {-bound.mean():.2f} nats")
    check_sampler(arguments.latent_dim, arguments.kappa, arguments.seed)


if __name__ == "__main__":
    main()
