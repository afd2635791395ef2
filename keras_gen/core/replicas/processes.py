"""Which replica and which process of a model this is, and what the processes tell each other."""

import os
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.checks import check


def replicas() -> tuple[Any, int]:
    """Returns the index of this replica and the number of replicas, `(0, 1)` on JAX and on a single device."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        context = tf.distribute.get_replica_context()
        return (0, 1) if context is None else (context.replica_id_in_sync_group, context.num_replicas_in_sync)
    return processes() if keras.backend.backend() == "torch" else (0, 1)


def processes() -> tuple[int, int]:
    """Returns the index of this process and the number of processes that train one model together."""
    match keras.backend.backend():
        case "tensorflow":
            import tensorflow as tf

            cluster = tf.distribute.get_strategy().cluster_resolver
            workers = 1 if cluster is None else len(cluster.cluster_spec().as_dict().get("worker", [None]))
            return (0, 1) if workers == 1 else (cluster.task_id, workers)
        case "torch":
            return (group().get_rank(), group().get_world_size()) if group().is_initialized() else (0, 1)
        case "jax":
            import jax

            return jax.process_index(), jax.process_count()
        case _:
            return 0, 1


def replicas_of_strategy() -> int:
    """Returns the number of replicas of the current strategy of TensorFlow, 1 elsewhere."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return int(tf.distribute.get_strategy().num_replicas_in_sync)


def check_group() -> None:
    """Checks that PyTorch's process group is there if it is wanted, and serves the device that Keras computes on."""
    world = int(os.environ.get("WORLD_SIZE", 1))
    rule = "be initialized, by `torch.distributed.init_process_group()`: else each process trains a model of its own"
    check(world == 1 or group().is_initialized(), "process group", rule, f"none, but WORLD_SIZE={world}")
    if processes()[1] > 1:
        device, served = ops.ones(()).device.type, group().get_backend_config()
        rule = f"serve the device that Keras computes on, {device}, as gloo does for cpu and nccl for cuda"
        check(f"{device}:" in served, "process group", rule, served)


def group() -> Any:
    """Returns PyTorch's module of process groups."""
    import torch.distributed

    return torch.distributed


def gathered(x: Any) -> list[Any]:
    """Returns a tensor of each process, of equal shapes, on PyTorch."""
    parts = [ops.zeros_like(x) for _ in range(processes()[1])]
    group().all_gather(parts, x.detach().contiguous())
    return parts


def arrays_of_processes(x: Any) -> list[np.ndarray]:
    """Returns a tensor of each process as an array."""
    match keras.backend.backend():
        case "torch":
            return [ops.convert_to_numpy(part) for part in gathered(x)]
        case "jax":
            from jax.experimental import multihost_utils

            return list(multihost_utils.process_allgather(np.asarray(x)))
        case _:
            import tensorflow as tf

            return np.split(tf.distribute.get_strategy().gather(x, axis=0).numpy(), processes()[1])


def of_processes(number: int) -> list[int]:
    """Returns an integer of each process."""
    return [int(part[0]) for part in arrays_of_processes(ops.convert_to_tensor([number], dtype="int32"))]


def totals(tensors: Sequence[Any], factor: float) -> list[Any]:
    """Returns sums over all processes, each times its factor. One message for all tensors of a dtype; `None` stays."""
    import torch

    result = list(tensors)
    for dtype in {x.dtype for x in tensors if x is not None}:
        places = [i for i, x in enumerate(tensors) if x is not None and x.dtype == dtype]
        flat = torch.cat([tensors[i].detach().reshape(-1) for i in places]).mul_(factor)
        group().all_reduce(flat)
        parts = torch.split(flat, [tensors[i].numel() for i in places])
        for i, part in zip(places, parts, strict=True):
            result[i] = part.reshape(tensors[i].shape)
    return result
