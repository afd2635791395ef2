"""Trains models of the law table on one device, then on several replicas, and writes what each has learned.

    KERAS_BACKEND=jax python tests/replicas_run.py data_parallel OUT vqvae ddpm      # 4 devices
    KERAS_BACKEND=jax python tests/replicas_run.py model_parallel OUT dit            # 2 x 2, weights split
    KERAS_BACKEND=tensorflow python tests/replicas_run.py mirrored OUT vqvae         # 2 devices
    RANK=0 WORLD_SIZE=2 ... python tests/replicas_run.py processes OUT vqvae         # in each process of PyTorch
    RANK=0 WORLD_SIZE=2 ... python tests/replicas_run.py hosts OUT vqvae             # of JAX, with 2 devices each
    RANK=0 WORLD_SIZE=2 ... python tests/replicas_run.py workers OUT vqvae           # of TensorFlow

`OUT.<rank>.npz` holds, for each model and each run ("one", but of hosts and workers, and "all"), its weights, those of
the optimizer, the logs and samples. `tests/core/test_replicas.py` compares them.
"""

import contextlib
import json
import os
import sys

ENGINE, OUT, NAMES = sys.argv[1], sys.argv[2], sys.argv[3:]
RANK, WORLD = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
DEVICES = {"data_parallel": 4, "model_parallel": 4, "hosts": 2}
if ENGINE in DEVICES:
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={DEVICES[ENGINE]}"
if ENGINE == "workers":
    addresses = [f"127.0.0.1:{int(os.environ['MASTER_PORT']) + i}" for i in range(WORLD)]
    task = {"type": "worker", "index": RANK}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})

import alone  # noqa: F401 (before Keras)
import keras
import numpy as np
from keras import ops
from laws.models import MODELS, four_levels

from keras_gen import models
from keras_gen.core import replicas
from keras_gen.core.generative_model import GenerativeModel

RNG = np.random.default_rng(0)
IMAGES = (np.clip(RNG.normal(size=(24, 8, 8, 1)), -1, 1) * 8).round().astype("float32") / 8  # 17 levels, as the digits
LABELS = RNG.integers(0, 10, 24).astype("int32")
BATCH = 8


class Probe(GenerativeModel):
    """Keeps the noise that the rows of a batch got, and a number of each row."""

    def __init__(self):
        super().__init__(seed=0)
        self.noise = self.add_weight(shape=(BATCH, 2), initializer="zeros", trainable=False)
        self.slope = self.add_weight(shape=(), initializer="ones")
        self.built = True

    def loss_per_sample(self, x, y, training):
        eps = keras.random.normal((ops.shape(x)[0],), seed=self.seed_generator)
        self.noise.assign(replicas.all_rows(ops.stack([eps, x[:, 0, 0, 0]], axis=1)))
        return self.slope * x[:, 0, 0, 0]


def matching(make):
    """Returns a flow matching model of a network."""
    return models.RectifiedFlow(make(), seed=0)


# Models with weights that can be split over devices, each with the class that knows how.
SPLIT = {
    "dit": (models.DiT, lambda: matching(lambda: models.DiT((8, 8, 1), 4, 16, 1, 2)), False),
    "unet": (models.UNet, lambda: matching(lambda: models.UNet((8, 8, 1), (8, 16), 1, attention_levels=(1,))), False),
    "transformer": (models.CodeTransformer, lambda: models.CodeTransformer(4, 64, 8, 1, 2, seed=0), False, four_levels),
}


def split_over_devices(name):
    """Trains a model whose weights are split, on a mesh of 2 x 2 devices."""
    mesh = keras.distribution.DeviceMesh((2, 2), ["batch", "model"])
    layout = SPLIT[name][0].layout_map(mesh)
    with keras.distribution.ModelParallel(layout_map=layout, batch_dim_name="batch").scope():
        return trained(name, 0, 1, contextlib.nullcontext)


def trained(name, rank, world, scope):
    """Returns what a model of the table is and has logged after three steps."""
    keras.utils.set_random_seed(7)
    make, labels, *prepare = MODELS.get(name) or SPLIT.get(name, (None, Probe, False))[1:]
    data = prepare[0](IMAGES) if prepare else IMAGES
    with scope():
        model = make()
        # Not Adam, which makes steps of one size of gradients that are nothing but rounding.
        model.compile(keras.optimizers.SGD(1e-3, momentum=0.9, use_ema=True, ema_momentum=0.9))
    given = [own_rows(array, rank, world) for array in ([data, LABELS] if labels else [data])]
    if ENGINE == "workers":
        logs = model.fit(sharded(given), verbose=0).history
    else:
        logs = model.fit(*given, batch_size=BATCH // world, shuffle=False, verbose=0).history
    counters = [ops.convert_to_numpy(state)[1] for state in model._states_of_replica()]  # of draws by each replica
    result = {f"weight {i}": ops.convert_to_numpy(v) for i, v in enumerate(model.variables)}
    result |= {f"slot {i}": ops.convert_to_numpy(v) for i, v in enumerate(model.optimizer.variables)}
    result |= {f"log {key}": np.array(value) for key, value in logs.items()}
    if hasattr(model, "sample") and not labels:
        with scope():  # where workers of TensorFlow share the batches, too
            result["samples"] = model.sample(5, seed=3, batch_size=2, verbose=0)
    if name == "probe":
        result["noise"] = ops.convert_to_numpy(model.noise)
    if keras.backend.backend() == "jax":
        variables = [*model.variables, *model.optimizer.variables]
        result["bytes"] = np.array(sum(v.value.addressable_shards[0].data.nbytes for v in variables))
    result["draws"] = np.array(any(counters))
    result["apart"] = np.array(max((spread(v) for v in model.variables), default=0.0))
    return result


def spread(variable):
    """Returns the largest difference between the copies that the devices of TensorFlow have of a variable."""
    if ENGINE != "mirrored" or not hasattr(variable.value, "values") or 0 in variable.shape:
        return 0.0
    first, second = (copy.numpy().astype("float64") for copy in variable.value.values)
    return np.max(np.abs(first - second))


def sharded(arrays):
    """Returns a dataset of which each worker of TensorFlow takes its rows."""
    import tensorflow as tf

    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return tf.data.Dataset.from_tensor_slices(tuple(arrays)).batch(BATCH).with_options(options)


def own_rows(array, rank, world):
    """Returns a process's rows of each batch."""
    if world == 1:
        return array
    batches = array.reshape(-1, world, BATCH // world, *array.shape[1:])
    return batches[:, rank].reshape(-1, *array.shape[1:])


def refused(rank):
    """Returns the messages with which processes refuse what is not the same in all of them, or not alike."""
    model = models.NICE(2, [8], None, seed=0)
    model.compile("sgd")
    model.fit(IMAGES[:8], verbose=0)
    calls = {
        "arguments": lambda: model.log_prob(IMAGES[rank : rank + 4], verbose=0),
        "batches": lambda: model.fit(IMAGES[: 8 + 8 * rank], batch_size=8, verbose=0),
    }
    messages = {}
    for name, call in calls.items():
        try:
            call()
        except ValueError as error:
            messages[name] = np.array(str(error))
    return messages


def start():
    """Starts the engine; returns the index of this process, how many have their own data, and the scope of models."""
    match ENGINE:
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

            return RANK, 1, tf.distribute.MultiWorkerMirroredStrategy().scope
        case "processes":
            import torch.distributed

            torch.distributed.init_process_group("gloo")
            return RANK, WORLD, contextlib.nullcontext
    return 0, 1, contextlib.nullcontext


def main():
    if ENGINE == "mirrored":
        import tensorflow as tf

        two = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
    runs = {"one": {}}
    if RANK == 0 and ENGINE not in ("hosts", "workers"):  # their engines start before anything else
        os.environ.pop("WORLD_SIZE", None)  # one process is refused where several are started
        runs["one"] = {name: trained(name, 0, 1, contextlib.nullcontext) for name in NAMES}
        os.environ["WORLD_SIZE"] = str(WORLD)
    rank, world, scope = start()
    if ENGINE == "model_parallel":
        runs["all"] = {name: split_over_devices(name) for name in NAMES}
    else:
        runs["all"] = {name: trained(name, rank, world, scope) for name in NAMES}
    if ENGINE == "processes":
        runs["refused"] = {"messages": refused(rank)}
    arrays = {f"{run}|{name}|{key}": v for run, of in runs.items() for name, r in of.items() for key, v in r.items()}
    np.savez(f"{OUT}.{rank}.npz", **arrays)
    if ENGINE == "processes":
        import torch.distributed

        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
