"""Glow, https://kexue.fm/archives/5807: multi-scale flow of invertible 1 x 1 convolutions and couplings.

    KERAS_BACKEND=jax python examples/glow.py
    KERAS_BACKEND=torch python examples/glow.py --dataset fashion_mnist --scales 2 --steps 16 --epochs 20

Writes samples at six temperatures, a row each (0.5, 0.6, 0.7, 0.8, 0.9, 1), interpolations between pairs of test
images in latent space, and the model to `--output`; prints the bits per dimension of test images.
"""

import keras
import numpy as np
from datasets import load_split
from shared import as_count, number_of_steps, parser, save_picture, train, warm_cosine

from keras_gen.callbacks import SampleGrid
from keras_gen.models import Glow

TEMPERATURES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def main() -> None:
    arguments = parser(__doc__, "glow", epochs=40)
    arguments.add_argument("--scales", type=as_count, default=2, help="how often images are squeezed")
    arguments.add_argument("--steps", type=as_count, default=8, help="of each scale")
    arguments.add_argument("--units", type=as_count, default=96, help="filters of both hidden layers of a coupling")
    arguments = arguments.parse_args()
    keras.utils.set_random_seed(arguments.seed)
    (images, _), (test, _) = load_split(arguments.dataset, arguments.size)
    output = arguments.output
    levels = 17 if arguments.dataset == "digits" else 256
    model = Glow(arguments.scales, arguments.steps, [arguments.units] * 2, levels, seed=arguments.seed)

    rate = warm_cosine(2e-3, number_of_steps(arguments, len(images)))
    optimizer = keras.optimizers.AdamW(rate, weight_decay=1.0, use_ema=True, ema_momentum=0.99, clipnorm=50.0)
    model.compile(optimizer)
    grid = SampleGrid(output / "epoch_{epoch:04d}.png", every=max(1, arguments.epochs // 4), temperature=0.7)
    train(model, images, None, arguments, [grid], validation_data=(test, None))

    # each column has the same noise in every row
    rows = [model.sample(10, temperature=t, seed=arguments.seed, verbose=0) for t in TEMPERATURES]
    save_picture(output / "samples.png", np.concatenate(rows), 10)
    between = model.interpolate(test[:6], test[6:12], points=9)
    save_picture(output / "interpolation.png", between.reshape(-1, *test.shape[1:]), 9)
    bits = model.bits_per_dim(test, seed=0, verbose=0)
    print(f"{bits.mean():.3f} bits/dim of {len(test)} test images, of {np.log2(levels):.3f} without a model")


if __name__ == "__main__":
    main()
