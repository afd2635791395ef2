"""Communication of data parallel training, on paper: bytes per step beside operations, and where the first outweigh.

    KERAS_BACKEND=jax python benchmarks/figures/communication.py

A step sums gradients, float32, and what layers learn outside of them. In a ring each of N devices sends and receives
2 (N - 1) / N times these bytes; the operations of a batch of fixed size are divided by N, and counted by XLA for the
forward and backward pass. Communication takes longer than computation beyond

    N = operations / rate / (2 bytes / bandwidth)

devices, if nothing overlaps. Prints a table for a sustained rate and links of 10, 100 and 400 Gbit/s.
"""

import argparse
from collections.abc import Callable
from typing import Any

import jax
import keras
import numpy as np

from keras_gen import layers, models

LINKS = (10, 100, 400)  # Gbit/s


def autoencoder() -> tuple[keras.Model, keras.Model]:
    x, z = keras.Input((32, 32, 3)), keras.Input((8, 8, 64))
    conv, up = keras.layers.Conv2D, keras.layers.Conv2DTranspose
    h = conv(128, 4, 2, "same", activation="relu")(conv(128, 4, 2, "same", activation="relu")(x))
    back = up(128, 4, 2, "same", activation="relu")(up(128, 4, 2, "same", activation="relu")(z))
    return keras.Model(x, conv(64, 1)(h)), keras.Model(z, conv(3, 3, padding="same")(back))


MODELS: dict[str, tuple[Callable[[], keras.Model], tuple[int, ...], str]] = {
    "DDPM, U-Net 64-128-256, 32 x 32": (lambda: models.DDPM(models.UNet((32, 32, 3))), (32, 32, 3), "float32"),
    "RectifiedFlow, DiT 384 x 12, 32 x 32": (
        lambda: models.RectifiedFlow(models.DiT((32, 32, 3), 2, 384, 12, 6)),
        (32, 32, 3),
        "float32",
    ),
    "Glow, 3 scales of 8 steps, 32 x 32": (lambda: models.Glow(3, 8, (128, 128)), (32, 32, 3), "float32"),
    "CodeTransformer 256 x 8, 256 codes": (lambda: models.CodeTransformer(1024, 256, 256, 8, 8), (256,), "int32"),
    "VQVAE, 1024 codes, 32 x 32": (
        lambda: models.VQVAE(*autoencoder(), layers.VectorQuantizer(1024, restart_below=1.0)),
        (32, 32, 3),
        "float32",
    ),
}


def operations(model: keras.Model, shape: tuple[int, ...], dtype: str, batch_size: int) -> float:
    """Returns the floating-point operations of the loss of a batch and of its gradient, as XLA counts them."""
    variables = [[v.value for v in part] for part in (model.trainable_variables, model.non_trainable_variables)]
    metrics = [v.value for v in model.metrics_variables]

    model.optimizer.build(model.trainable_variables)
    options = {"training": True, "optimizer_variables": [v.value for v in model.optimizer.variables]}

    def loss(trainable: list[Any], x: Any) -> Any:
        return model.compute_loss_and_updates(trainable, variables[1], metrics, x, None, None, **options)[0]

    x = jax.ShapeDtypeStruct((batch_size, *shape), dtype)
    return float(jax.jit(jax.grad(loss)).lower(variables[0], x).cost_analysis()["flops"])


def communicated(model: keras.Model) -> int:
    """Returns the bytes that a step sums: gradients, the sums and counts of codebooks, code usage."""
    gradients = sum(int(np.prod(v.shape)) * 4 for v in model.trainable_variables)
    own = [layer for layer in model._flatten_layers() if isinstance(layer, layers.VectorQuantizer)]
    statistics = [w for layer in own for w in layer.weights if w.name in ("sums", "counts", "seen")]
    return gradients + sum(int(np.prod(w.shape)) * 4 for w in statistics)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--batch-size", type=int, default=256, help="of all devices together")
    arguments.add_argument("--rate", type=float, default=1e14, help="operations per second that a device sustains")
    arguments = arguments.parse_args()
    columns = ["model", "MB per step", "Gflop per sample", *(f"devices at {link} Gbit/s" for link in LINKS)]
    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    for name, (make, shape, dtype) in MODELS.items():
        model = make()
        model.compile("adam")
        data = np.ones((arguments.batch_size, *shape), dtype)
        model.check_data(data, None)
        work, size = operations(model, shape, dtype, arguments.batch_size), communicated(model)
        seconds = work / arguments.rate
        devices = [seconds / (2 * size * 8 / (link * 1e9)) for link in LINKS]
        numbers = [f"{size / 1e6:.3g}", f"{work / arguments.batch_size / 1e9:.3g}", *(f"{n:.2g}" for n in devices)]
        print(f"| {' | '.join([name, *numbers])} |", flush=True)


if __name__ == "__main__":
    main()
