"""NADE and MADE on binary MNIST: test log-likelihood in nats (NADE with 500 units: -88.33, MADE: -88.40, both in
arXiv:1502.03509, table 6).

    KERAS_BACKEND=tensorflow python benchmarks/figures/binary_mnist.py nade --dataset mnist.npz
    KERAS_BACKEND=jax python benchmarks/figures/binary_mnist.py made --dataset mnist.npz

Each pixel is binarized once, with its gray level as the probability, by NumPy's generator with seed 0: the procedure of
the published set, but not its draw. 50,000 training, 10,000 validation and 10,000 test images. An interrupted run
resumes from its last epoch. Writes the learning curve, samples and the model to `--output`.
"""

import argparse
import pathlib

import keras
import numpy as np
from mnist import build_optimizer, load_mnist, train

from keras_gen.models import MADE, NADE
from keras_gen.ops import image_grid

# name -> (constructor, epochs, peak learning rate, weight decay as a multiple of the learning rate)
MODELS = {
    "nade": (lambda arguments: NADE(500, seed=arguments.seed), 16, 3e-3, 0.0),
    "made": (lambda arguments: MADE([arguments.units], arguments.masks, seed=arguments.seed), 30, 1e-3, 0.1),
}


def binarized_mnist(path: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the training, validation and test images, `(n, 784)`, 0 or 1."""
    generator = np.random.default_rng(0)
    return load_mnist(path, lambda pixels: (generator.random(pixels.shape) < pixels / 255).astype("float32"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("--dataset", required=True, help="mnist.npz, in Keras's layout")
    parser.add_argument("--output", type=pathlib.Path, help="default: runs/binary_mnist_MODEL")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--rate", type=float, help="learning rate at its height")
    parser.add_argument("--decay", type=float, help="weight decay, as a multiple of the learning rate")
    parser.add_argument("--units", type=int, default=4000, help="of MADE's hidden layer")
    parser.add_argument("--masks", type=int, default=1, help="of MADE")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    make, epochs, rate, decay = MODELS[arguments.model]
    epochs, rate = arguments.epochs or epochs, arguments.rate or rate
    decay = decay if arguments.decay is None else arguments.decay
    output = arguments.output or pathlib.Path(f"runs/binary_mnist_{arguments.model}")
    keras.utils.set_random_seed(arguments.seed)
    images, validation, test = binarized_mnist(arguments.dataset)

    model = make(arguments)
    steps = epochs * -(-len(images) // arguments.batch_size)
    model.compile(build_optimizer(steps, rate, decay, ["bias"]))
    sizes = {"epochs": epochs, "batch_size": arguments.batch_size, "validation_batch_size": 500}
    train(model, images, validation, output, **sizes)
    log_prob = model.log_prob(test, batch_size=500, verbose=0)
    print(f"test log-likelihood {log_prob.mean():.2f} +- {log_prob.std() / len(log_prob) ** 0.5:.2f} nats")
    samples = model.sample(60, seed=arguments.seed, verbose=0).reshape(-1, 28, 28, 1) * 2.0 - 1
    keras.utils.save_img(output / "samples.png", image_grid(samples, 15, scale=1, padding=4), scale=False)


if __name__ == "__main__":
    main()
