"""NICE on MNIST: test log-likelihood in nats, by the definition of the paper (arXiv:1410.8516: 1980.50).

    KERAS_BACKEND=jax python benchmarks/figures/nice_mnist.py --dataset mnist.npz

Pixels are (k + u) / 256 with uniform u; the density is that on [0, 1]^784. The networks are the paper's: four additive
couplings of the even and the odd pixels, each with five layers of 1000 units, and a scaling; 50,000 training, 10,000
validation and 10,000 test images. An interrupted run resumes from its last epoch. Writes the learning curve, samples
and the model to `--output`.
"""

import argparse
import pathlib

import keras
import numpy as np
from mnist import PIXELS, build_optimizer, load_mnist, train

from keras_gen.layers import ActNorm, AdditiveCoupling, AffineCoupling, Chain, Conditioner, Dequantize, Reshape, Scale
from keras_gen.models import Flow
from keras_gen.ops import image_grid

HIDDEN = [1000] * 5
COUPLINGS = {"additive": (AdditiveCoupling, 1), "affine": (AffineCoupling, 2)}  # and parameters per pixel


def build_model(kind: str, dropout: float, seed: int) -> Flow:
    coupling, width = COUPLINGS[kind]
    couplings = [
        coupling(Conditioner(width * PIXELS // 2, HIDDEN, dropout=dropout), split="interleave", flip=i % 2 == 1)
        for i in range(4)
    ]
    return Flow(Chain([Dequantize(256), Reshape(), *couplings, ActNorm(), Scale(rate=20.0)]), "logistic", seed=seed)


def scaled(pixels: np.ndarray) -> np.ndarray:
    return pixels.astype("float32") / 127.5 - 1


class Nats(keras.callbacks.Callback):
    """Adds the paper's log-likelihood to the logs, before they are written."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        for name in ("", "val_"):
            logs[f"{name}nats"] = PIXELS * np.log(256) - logs[f"{name}nll"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, help="mnist.npz, in Keras's layout")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs/nice_mnist"))
    parser.add_argument("--coupling", choices=COUPLINGS, default="additive")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate at its height")
    parser.add_argument("--decay", type=float, default=1.0, help="weight decay, as a multiple of the learning rate")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    keras.utils.set_random_seed(arguments.seed)
    images, validation, test = load_mnist(arguments.dataset, scaled)

    model = build_model(arguments.coupling, arguments.dropout, arguments.seed)
    steps = arguments.epochs * -(-len(images) // arguments.batch_size)
    model.compile(build_optimizer(steps, arguments.rate, arguments.decay, ["bias", "log_scale"]))
    sizes = {"epochs": arguments.epochs, "batch_size": arguments.batch_size, "validation_batch_size": 1000}
    train(model, images, validation, arguments.output, callbacks=[Nats()], **sizes)
    samples = model.sample(60, seed=arguments.seed, verbose=0).reshape(-1, 28, 28, 1)
    keras.utils.save_img(arguments.output / "samples.png", image_grid(samples, 15, scale=1, padding=4), scale=False)
    nats = model.log_prob(test, seed=0, batch_size=1000, verbose=0) + PIXELS * np.log(256)
    bits = model.bits_per_dim(test, seed=0, batch_size=1000, verbose=0).mean()
    print(f"test log-likelihood {nats.mean():.2f} +- {nats.std() / len(nats) ** 0.5:.2f} nats, {bits:.3f} bits/dim")


if __name__ == "__main__":
    main()
