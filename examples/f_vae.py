"""f-VAE, https://kexue.fm/archives/5977: a VAE whose prior is a normalizing flow, compared with the prior N(0, I).

    KERAS_BACKEND=jax python examples/f_vae.py
    KERAS_BACKEND=torch python examples/f_vae.py --dataset fashion_mnist --latent-dim 32 --epochs 20

During training the decoder receives encoded images, whose distribution, the aggregate posterior, is not N(0, I): the
flow learns it. As in the post, the variance of q(z | x) is learned for each latent dimension and does not depend on the
image.

Writes samples and reconstructions of both and the models to `--output`, and prints the ELBOs of test images in nats.
"""

from typing import Any

import keras
import numpy as np
from datasets import check_sides, load_split
from keras import ops
from shared import as_count, number_of_steps, parser, save_picture, side_by_side, train

from keras_gen.losses import GaussianLikelihood
from keras_gen.models import VAE, Flow, RealNVP


@keras.saving.register_keras_serializable(package="examples")
class LearnedVector(keras.layers.Layer):
    """A trainable vector of the size of an input, shared by all samples."""

    def build(self, input_shape: Any) -> None:
        self.vector = self.add_weight(name="vector", shape=input_shape[1:], initializer="zeros")

    def call(self, x: Any) -> Any:
        return ops.broadcast_to(ops.cast(self.vector, x.dtype), ops.shape(x))


def build_model(image_shape: tuple[int, ...], latent_dim: int, variance: float, prior: Flow | None, seed: int) -> VAE:
    conv, up = keras.layers.Conv2D, keras.layers.Conv2DTranspose
    x, z = keras.Input(image_shape), keras.Input((latent_dim,))
    h = x
    for filters in (32, 64):
        h = conv(filters, 4, 2, "same", activation="silu")(h)
    small = h.shape[1:]
    mean = keras.layers.Dense(latent_dim)(keras.layers.Dense(128, "silu")(keras.layers.Flatten()(h)))
    encoder = keras.Model(x, [mean, LearnedVector(name="log_var")(mean)])
    h = keras.layers.Dense(int(np.prod(small)), "silu")(keras.layers.Dense(128, "silu")(z))
    h = keras.layers.Reshape(small)(h)
    for filters in (64, 32):
        h = up(filters, 4, 2, "same", activation="silu")(h)
    decoder = keras.Model(z, conv(image_shape[-1], 3, padding="same")(h))
    return VAE(encoder, decoder, GaussianLikelihood(variance), prior=prior, seed=seed)


def main() -> None:
    arguments = parser(__doc__, "f_vae", epochs=60)
    arguments.add_argument("--latent-dim", type=as_count, default=16)
    arguments.add_argument("--variance", type=float, default=0.1, help="of a pixel around the decoder's output")
    arguments = arguments.parse_args()
    (images, _), (test, _) = load_split(arguments.dataset, arguments.size)
    check_sides(images.shape[1:])
    output, steps = arguments.output, number_of_steps(arguments, len(images))
    for name in ("normal", "flow"):
        keras.utils.set_random_seed(arguments.seed)
        prior = RealNVP(8, units=(64, 64), seed=arguments.seed) if name == "flow" else None
        model = build_model(images.shape[1:], arguments.latent_dim, arguments.variance, prior, arguments.seed)
        rate = keras.optimizers.schedules.CosineDecay(2e-3, steps)
        model.compile(keras.optimizers.Adam(rate, use_ema=True, ema_momentum=0.99, clipnorm=100.0))
        train(model, images, None, arguments, validation_data=(test, None), folder=name)

        save_picture(output / f"samples_{name}.png", model.sample(80, seed=arguments.seed, verbose=0), 10)
        pairs = side_by_side(test[:30], model.reconstruct(test[:30]))
        save_picture(output / f"reconstructions_{name}.png", pairs, 10)
        bound = model.elbo(test, num_samples=10, seed=0, verbose=0)
        print(f"{name} prior: bound on log p(x) of {len(test)} test images: {bound.mean():.2f} nats")


if __name__ == "__main__":
    main()
