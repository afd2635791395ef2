"""NICE, https://kexue.fm/archives/5776: additive couplings, exact likelihood, and inpainting.

    KERAS_BACKEND=jax python examples/nice.py
    KERAS_BACKEND=torch python examples/nice.py --dataset mnist --recipe kexue --epochs 30

The default recipe is the paper's: four couplings of the even and the odd pixels, networks with linear output, and a
logistic base. `--recipe kexue` is the post's: a normal base, and samples at temperature 0.75. It differs from the
post's script in three points. The script's loss omits the constants of the normal density, 720.4 nats on MNIST, and its
noise, of at most 0.01, does not match the spacing of pixel levels: so it is not a likelihood. And its networks end in a
ReLU, so that each can only shift in one direction.

Writes samples, inpainted halves of test images by gradient ascent on the density (a row of images, one with noise in
the hidden half, one of results), and the model to `--output`; prints the log-likelihood of test images.
"""

import argparse
from typing import Any

import keras
import numpy as np
from datasets import load_split
from keras import ops
from shared import as_count, number_of_steps, parser, save_picture, train, warm_cosine

from keras_gen.models import NICE
from keras_gen.ops import gradient

BASES = {"paper": "logistic", "kexue": "normal"}
TEMPERATURES = {"paper": 1.0, "kexue": 0.75}


def fit(model: NICE, images: np.ndarray, test: np.ndarray, arguments: argparse.Namespace) -> None:
    steps = number_of_steps(arguments, len(images))
    rate = warm_cosine(arguments.rate, steps)
    momentum = 0.99 if steps < 10_000 else 0.999
    optimizer = keras.optimizers.AdamW(rate, weight_decay=arguments.decay, use_ema=True, ema_momentum=momentum)
    optimizer.exclude_from_weight_decay(var_names=["bias", "log_scale"])
    model.compile(optimizer)
    train(model, images, None, arguments, validation_data=(test, None))


def half_masks(n: int, height: int, width: int) -> np.ndarray:
    """Returns masks that hide the upper, the lower, the left, the right half, and so on: `(n, height, width, 1)`."""
    masks = np.zeros((n, height, width, 1), "float32")
    masks[0::4, : height // 2] = masks[1::4, height // 2 :] = 1
    masks[2::4, :, : width // 2] = masks[3::4, :, width // 2 :] = 1
    return masks


def spread(images: np.ndarray, levels: int, generator: np.random.Generator) -> np.ndarray:
    """Dequantizes images to [0, 1] by uniform noise, as `Dequantize` does."""
    k = np.round((images + 1) / 2 * (levels - 1))
    return ((k + generator.random(images.shape)) / levels).astype("float32")


def inpaint(
    model: NICE, y: np.ndarray, hidden: np.ndarray, variance: np.ndarray, steps: int, generator: np.random.Generator
) -> np.ndarray:
    """Fills in hidden pixels by the paper's gradient ascent on the density, with decreasing noise.

    Step sizes are proportional to the variance of each pixel: pixels that are black in all images hardly change.
    """

    def log_density(y: Any) -> Any:
        log_p = 0.0
        for bijector in model.bijector.bijectors[1:]:  # without `Dequantize`: continuous values have a gradient
            y, log_det = bijector(y)
            log_p = log_p + log_det
        return model.base(y) + log_p

    def climb(y: Any, hidden: Any, rate: Any, noise: Any) -> Any:
        return ops.clip(y + hidden * (rate * gradient(log_density, y) + noise), 0, 1)

    step = model.program("inpaint", climb)
    y, hidden = ops.convert_to_tensor(y), ops.convert_to_tensor(hidden)
    for remaining in np.linspace(1, 0, steps):
        rate = ((0.1 * remaining + 0.001) * variance).astype("float32")
        noise = remaining * np.sqrt(2 * rate) * generator.standard_normal(y.shape)
        y = step(y, hidden, ops.convert_to_tensor(rate), ops.convert_to_tensor(noise, "float32"))
    return ops.convert_to_numpy(y)


def main() -> None:
    arguments = parser(__doc__, "nice", epochs=40)
    arguments.add_argument("--recipe", choices=BASES, default="paper")
    arguments.add_argument(
        "--units", type=as_count, nargs="+", help="the paper's 1000 five times; for digits 512 thrice"
    )
    arguments.add_argument("--rate", type=float, default=5e-4, help="learning rate at its height")
    arguments.add_argument("--decay", type=float, help="weight decay, in learning rates: 1, and 4 for the few digits")
    arguments = arguments.parse_args()
    keras.utils.set_random_seed(arguments.seed)
    (images, _), (test, _) = load_split(arguments.dataset, arguments.size)
    small = arguments.dataset == "digits"
    levels = 17 if small else 256
    arguments.units = arguments.units or ([512] * 3 if small else [1000] * 5)
    arguments.decay = (4.0 if small else 1.0) if arguments.decay is None else arguments.decay
    model = NICE(4, arguments.units, levels, BASES[arguments.recipe], seed=arguments.seed)
    fit(model, images, test, arguments)

    output, temperature = arguments.output, TEMPERATURES[arguments.recipe]
    samples = model.sample(80, temperature=temperature, seed=arguments.seed, verbose=0)
    save_picture(output / "samples.png", samples, 10)

    generator = np.random.default_rng(arguments.seed)
    shown, variance = spread(test[:12], levels, generator), spread(images, levels, generator).var(0)
    hidden = half_masks(*shown.shape[:3])
    y = np.where(hidden == 1, generator.random(shown.shape, "float32"), shown)
    rows = [shown, y, inpaint(model, y, hidden, variance, 1000, generator)]
    save_picture(output / "inpainting.png", 2 * np.concatenate(rows) - 1, len(shown))

    nats = model.log_prob(test, seed=0, verbose=0).mean()
    dims = np.prod(test.shape[1:])
    density, bits = nats + dims * np.log(levels), -nats / (dims * np.log(2))
    print(f"log-likelihood of {len(test)} test images: {nats:.2f} nats, {bits:.3f} bits/dim; as the paper's density on")
    print(f"[0, 1], {density:.2f} nats")


if __name__ == "__main__":
    main()
