"""The engines of several devices and processes, for the scripts that tests start in processes of their own.

`prepare` comes before the import of Keras, `start` before the first model. A process knows its number by `RANK`, and
how many there are by `WORLD_SIZE`, as those that torchrun starts.
"""

import contextlib
import json
import os
from collections.abc import Callable
from typing import Any

import numpy as np

DEVICES = {"data_parallel": 4, "model_parallel": 4, "fully_sharded": 4, "hosts": 2}  # of JAX, in a process
RANK, WORLD = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def prepare(engine: str) -> None:
    """Sets what the backends read when they are imported."""
    if engine in DEVICES:
        os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={DEVICES[engine]}"
    if engine == "workers":
        addresses = [f"127.0.0.1:{int(os.environ['MASTER_PORT']) + i}" for i in range(WORLD)]
        task = {"type": "worker", "index": RANK}
        os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})


def start(engine: str) -> tuple[int, int, Callable[[], contextlib.AbstractContextManager[Any]]]:
    """Starts an engine; returns the index of this process, how many have their own data, and the scope of models.

    Workers of TensorFlow are given all data, and take their rows themselves.
    """
    import keras

    match engine:
        case "data_parallel":
            keras.distribution.set_distribution(keras.distribution.DataParallel())
        case "hosts":
            keras.distribution.initialize(f"127.0.0.1:{os.environ['MASTER_PORT']}", WORLD, RANK)
            keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))
            return RANK, WORLD, contextlib.nullcontext
        case "mirrored":
            import tensorflow as tf

            return 0, 1, tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope
        case "workers":
            import tensorflow as tf

            return 0, 1, tf.distribute.MultiWorkerMirroredStrategy().scope
        case "processes":
            import torch.distributed

            torch.distributed.init_process_group("gloo")
            return RANK, WORLD, contextlib.nullcontext
    return 0, 1, contextlib.nullcontext


def share(size: int, rank: int, world: int) -> int:
    """Returns how many of the rows of a batch a process has: as even a share as there is."""
    return size // world + (rank < size % world)


def own_rows(array: np.ndarray, batch_size: int, rank: int, world: int) -> np.ndarray:
    """Returns a process's rows of each batch."""
    batches = np.split(array, range(batch_size, len(array), batch_size))
    return np.concatenate([np.array_split(batch, world)[rank] for batch in batches])


def sharded(arrays: tuple[np.ndarray, ...], batch_size: int) -> Any:
    """Returns a dataset of which each worker of TensorFlow takes its rows."""
    import tensorflow as tf

    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return tf.data.Dataset.from_tensor_slices(arrays).batch(batch_size).with_options(options)
