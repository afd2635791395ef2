"""Several devices: one `fit` on the engine of each backend, here for the VQ-VAE of https://kexue.fm/archives/6760.

    KERAS_BACKEND=jax python examples/distributed.py --devices 4           # virtual devices, on any machine
    KERAS_BACKEND=tensorflow python examples/distributed.py --devices 2
    KERAS_BACKEND=torch python examples/distributed.py --devices 2         # as many processes

Trains on one device, then on all of them, from the same weights; prints the largest difference between the two in
weights, codebook and codebook statistics, and the throughput of both. Virtual devices share the processor: they show
that the result is the same, not a speedup. Sums in a different order round differently: after some epochs a vector
halfway between two codes goes to the other one, the runs diverge from then on, and the counts of codes differ by a few.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import time


def configure(devices: str) -> None:
    """Makes virtual devices, before a backend is imported; on PyTorch, starts this script in as many processes."""
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    if backend == "jax":
        os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
        # A thread of XLA that waits for the other devices computes nothing: where they are few, all may wait.
        os.environ.setdefault("NPROC", "16")
    if backend == "torch" and "RANK" not in os.environ:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={devices}"]
        sys.exit(subprocess.run([*command, *sys.argv]).returncode)


if __name__ == "__main__":
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--devices", default="2")  # checked below, where the backend is known
    configure(first.parse_known_args()[0].devices)

import keras
import numpy as np
from datasets import load_split
from shared import as_count, parser
from vq_vae import build_model

from keras_gen.models import VQVAE


def start(devices: int) -> tuple[int, int, contextlib.AbstractContextManager]:
    """Starts the engine; returns the index of this process, the number of processes, and the scope of models."""
    match keras.backend.backend():
        case "jax":
            keras.distribution.set_distribution(keras.distribution.DataParallel())
        case "tensorflow":
            import tensorflow as tf

            return 0, 1, tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(devices)]).scope()
        case "torch":
            import torch.distributed

            torch.distributed.init_process_group()
            return torch.distributed.get_rank(), torch.distributed.get_world_size(), contextlib.nullcontext()
    return 0, 1, contextlib.nullcontext()


def train(images: np.ndarray, batch_size: int, arguments: argparse.Namespace) -> tuple[VQVAE, float]:
    """Returns a model trained on the images, and how many it has seen per second in its last epochs."""
    keras.utils.set_random_seed(arguments.seed)
    model = build_model(images.shape[1:], arguments.num_codes, "vq", arguments.seed)
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9))
    options = {"batch_size": batch_size, "shuffle": False, "verbose": 0}
    model.fit(images, epochs=1, **options)  # compiles
    began = time.perf_counter()
    model.fit(images, epochs=arguments.epochs, **options)
    return model, len(images) * arguments.epochs / (time.perf_counter() - began)


def main() -> None:
    arguments = parser(__doc__, "distributed", epochs=1, batch_size=64)
    arguments.add_argument("--devices", type=as_count, default=2, help="number of (virtual) devices, or processes")
    arguments.add_argument("--num-codes", type=as_count, default=32)
    arguments = arguments.parse_args()
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        virtual = [tf.config.LogicalDeviceConfiguration()] * arguments.devices
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], virtual)
    (images, _), _ = load_split(arguments.dataset, arguments.size)
    images = images[: len(images) // arguments.batch_size * arguments.batch_size]  # whole batches
    world = os.environ.pop("WORLD_SIZE", None)  # one device first: `fit` refuses to train alone where many are started
    one, alone = train(images, arguments.batch_size, arguments)
    if world is not None:
        os.environ["WORLD_SIZE"] = world
    rank, processes, scope = start(arguments.devices)
    share = arguments.batch_size // processes
    batches = images.reshape(-1, processes, share, *images.shape[1:])
    with scope:
        many, together = train(batches[:, rank].reshape(-1, *images.shape[1:]), share, arguments)
    if rank == 0:
        pairs = zip(one.variables, many.variables, strict=True)
        apart = max(np.abs(np.subtract(*map(keras.ops.convert_to_numpy, pair))).max() for pair in pairs)
        print(f"{keras.backend.backend()}: {len(images)} images, {arguments.devices} devices")
        print(f"largest difference from one device in weights, codes and statistics: {apart:.1e}")
        print(f"images per second: {alone:.0f} on one device, {together * processes:.0f} on all")


if __name__ == "__main__":
    main()
