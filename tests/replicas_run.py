"""Trains models of the law table on one device, then on several replicas, and writes what each has learned.

    KERAS_BACKEND=jax python tests/replicas_run.py one OUT vqvae                     # the first part alone
    KERAS_BACKEND=jax python tests/replicas_run.py data_parallel OUT vqvae ddpm      # 4 devices
    KERAS_BACKEND=jax python tests/replicas_run.py model_parallel OUT dit            # 2 x 2, weights split
    KERAS_BACKEND=jax python tests/replicas_run.py fully_sharded OUT dit             # 4, weights split
    KERAS_BACKEND=tensorflow python tests/replicas_run.py mirrored OUT vqvae         # 2 devices
    RANK=0 WORLD_SIZE=2 ... python tests/replicas_run.py processes OUT vqvae         # in each process of PyTorch
    RANK=0 WORLD_SIZE=2 ... python tests/replicas_run.py hosts OUT vqvae             # of JAX, with 2 devices each
    RANK=0 WORLD_SIZE=2 ... python tests/replicas_run.py workers OUT vqvae           # of TensorFlow

`OUT.<rank>.npz` holds, for each model and each run ("one", but of hosts and workers, and "all"), its weights, those of
the optimizer, the logs and samples. `tests/core/test_replicas.py` compares them.
"""

import contextlib
import os
import re
import sys

import engines

ENGINE, OUT, NAMES = sys.argv[1], sys.argv[2], sys.argv[3:]
engines.prepare(ENGINE)

import alone  # noqa: F401 (before Keras)
import keras
import numpy as np
from keras import ops
from laws.models import MODELS, four_levels, vqvae
from laws.samplers import DIFFUSION_SAMPLERS

from keras_gen import callbacks, layers, metrics, models, samplers
from keras_gen.core.fixtures import randomize_weights
from keras_gen.core.generative_model import GenerativeModel
from keras_gen.core.replicas import processes, sharing, whole_batch

RNG = np.random.default_rng(0)
IMAGES = (np.clip(RNG.normal(size=(24, 8, 8, 1)), -1, 1) * 8).round().astype("float32") / 8  # 17 levels, as the digits
LABELS = RNG.integers(0, 10, 24).astype("int32")
TOKENS, POOLED = (RNG.normal(size=(24, *shape)).astype("float32") for shape in ((3, 8), (8,)))
CAPTIONS = np.array(list("abcdefgh" * 3))
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
        self.noise.assign(whole_batch.all_rows(ops.stack([eps, x[:, 0, 0, 0]], axis=1)))
        return self.slope * x[:, 0, 0, 0]


def matching(make):
    """Returns a flow matching model of a network."""
    return models.RectifiedFlow(make(), seed=0)


def text_to_image():
    """Returns a model of captions and images, which it encodes."""
    from diffusion.test_text_to_image import made

    return made()


# Models with weights that can be split over devices, each with the class that knows how.
SPLIT = {
    "dit": (models.DiT, lambda: matching(lambda: models.DiT((8, 8, 1), 4, 16, 1, 2)), False),
    "mmdit": (
        models.MMDiT,
        lambda: matching(lambda: models.MMDiT((8, 8, 1), 8, 8, 4, 16, 2, 2, dual_attention=[0])),
        {"tokens": TOKENS, "pooled": POOLED},
    ),
    "unet": (models.UNet, lambda: matching(lambda: models.UNet((8, 8, 1), (8, 16), 1, attention_levels=(1,))), False),
    "unet_condition": (
        models.UNet2DCondition,
        lambda: matching(lambda: models.UNet2DCondition((8, 8, 1), 8, (8, 16), (0, 1), 1, 2, 1, groups=4)),
        TOKENS,
    ),
    "transformer": (models.CodeTransformer, lambda: models.CodeTransformer(4, 64, 8, 1, 2, seed=0), False, four_levels),
}


def packed(images):
    """Returns rows with two sequences of codes and more or less padding."""
    position, lengths = np.arange(16), 8 + np.arange(len(images))[:, None] % 9
    segments = np.where(position < lengths, 1 + (position >= 6), 0).astype("int32")
    return {"codes": four_levels(images).reshape(len(images), -1)[:, :16], "segments": segments}


def vqgan_no_draws():
    """Returns a model whose adaptive weight is that of the whole batch."""
    plain = vqvae(layers.VectorQuantizer(8, seed=0))
    patches = [keras.layers.Conv2D(8, 3, 2, activation="leaky_relu"), keras.layers.Dense(1)]
    discriminator = keras.Sequential([keras.Input((8, 8, 1)), *patches])
    return models.VQGAN(plain.encoder, plain.decoder, plain.quantizer, discriminator, seed=0)


def normalized():
    """Returns a model with statistics of the whole batch: by `synchronized` on TensorFlow, on JAX anyway."""
    conv, is_told = keras.layers.Conv2D, keras.backend.backend() == "tensorflow"
    norm = keras.layers.BatchNormalization(synchronized=is_told)
    encoder = keras.Sequential([keras.Input((8, 8, 1)), conv(8, 2, 2), norm, keras.layers.ReLU(), conv(4, 1)])
    return models.VQVAE(encoder, vqvae(layers.VectorQuantizer(8)).decoder, layers.VectorQuantizer(8, seed=0), seed=0)


# What the table of models lacks, as its lines are.
OTHERS = {
    "normalized": (normalized, False),
    "probe": (Probe, False),
    "made_before": (lambda: vqvae(layers.VectorQuantizer(8, restart_below=1, seed=0)), False),
    "remat": (lambda: models.CodeTransformer(4, 64, 8, 1, 2, remat=True, seed=0), False, four_levels),
    "accumulation": (lambda: models.NICE(2, [16], None, seed=0), False),
    "uneven": (lambda: models.NICE(2, [16], None, seed=0), False, lambda images: images[:21]),
    "reflow": (lambda: matching(lambda: models.DiT((8, 8, 1), 4, 16, 1, 2)), False),
    "fit_prior": (lambda: vqvae(layers.VectorQuantizer(8, seed=0)), False),
    "packed": (lambda: models.CodeTransformer(4, 16, 8, 1, 2, seed=0), False, packed),
    "vqgan_no_draws": (vqgan_no_draws, False),
    "text_to_image": (text_to_image, CAPTIONS),
}
MESHES = {"model_parallel": ((2, 2), "model"), "fully_sharded": ((4, 1), "batch")}  # shape, and where weights are split
EARLIER = ["made_before"]  # made and trained on one device, before the distribution is set
ACCUMULATED = {"accumulation": 3}  # steps of training for an update of the weights
EVALUATED = ["accumulation"]  # by what their samples are like, after the epoch


def reflow(model, x, size):
    # Its batch is that of a process: those of JAX, which are compared with one device, have equal shares of four rows.
    size = 4 // processes.processes()[1] if keras.backend.backend() == "jax" else 4
    model.reflow(
        16, sampler=samplers.EulerSampler(2), sampling_seed=0, sampling_batch_size=4, batch_size=size, verbose=0
    )


def fit_prior(model, x, size):
    prior = models.CodeTransformer(8, 16, 8, 1, 2, seed=0)
    prior.compile(keras.optimizers.SGD(1e-3))
    model.fit_prior(prior, x, batch_size=size, shuffle=False, verbose=0)


AFTERWARDS = {"reflow": reflow, "fit_prior": fit_prior}


def encoded(model):
    """Returns the indices of a codebook of noise for images."""
    codec = samplers.CodebookDiffusion(model, samplers.DDPMSampler(5), codebook_size=8)
    return codec.encode(IMAGES[:14], batch_size=8, verbose=0)


def with_sampler(make):
    """Returns a method that draws by a sampler."""
    return lambda model: model.sample(8, sampler=make(), **DRAW)


def adapted(model):
    """Returns samples of a sampler that estimates variances."""
    model.adapt_variance(IMAGES[:8], batch_size=8, verbose=0)
    return with_sampler(DIFFUSION_SAMPLERS["analytic_dpm_sampler"][0])(model)


# Methods that devices share, of models that are not trained. `adapted` has the one sampler of DDPM alone; the other has
# steps that follow the error: with random weights, rounding errors of another order change them.
ELSEWHERE = ("analytic_dpm_sampler", "probability_flow_sampler")
DRAW = {"seed": 3, "batch_size": 8, "verbose": 0}
METHODS = {
    "ddpm": {"sample": lambda model: model.sample(14, **DRAW), "indices": encoded, "adapted": adapted},
    "score_sde": {name: with_sampler(make) for name, (make, _) in DIFFUSION_SAMPLERS.items() if name not in ELSEWHERE},
    "vae": {
        "sample": lambda model: model.sample(14, **DRAW),
        "encode": lambda model: model.encode(IMAGES[:14], 8),
        "elbo": lambda model: model.elbo(IMAGES[:14], **DRAW),
    },
    "flow_condition": {
        "sample": lambda model: model.sample(14, **DRAW),
        "log_prob": lambda model: model.log_prob(IMAGES[:14], batch_size=8, verbose=0),
    },
    "code_transformer": {"sample": lambda model: model.sample(14, **DRAW)},
    "latent_diffusion": {"sample": lambda model: model.sample(14, condition=LABELS[:14], **DRAW)},
    "vqgan": {"sample": lambda model: model.sample(14, **DRAW), "encode": lambda model: model.encode(IMAGES[:14], 8)},
}


def methods(scope):
    """Returns what the methods of models with random weights return."""
    returned = {}
    for name in [name for name in NAMES if name in METHODS]:
        keras.utils.set_random_seed(7)
        with scope():
            model = MODELS[name][0]()
            if not model.built:
                model.build((None, 8, 8, 1))
            randomize_weights(model)
            returned[name] = {key: method(model) for key, method in METHODS[name].items()}
    return returned


def split(network, shape, axis):
    """Returns the scope of a mesh of devices over which the weights of a network are split."""
    mesh = keras.distribution.DeviceMesh(shape, ["batch", "model"])
    layout = network.layout_map(mesh, axis)
    return keras.distribution.ModelParallel(layout_map=layout, batch_dim_name="batch").scope()


def split_over_devices(name):
    """Trains a model whose weights are split."""
    with split(SPLIT[name][0], *MESHES[ENGINE]):
        return trained(name, 0, 1, contextlib.nullcontext)


def exchanged():
    """Counts what devices exchange for the gradient of a transformer block, of 2 x 8 tokens of width 16 in each."""
    import jax

    with split(models.CodeTransformer, *MESHES["model_parallel"]):
        block = layers.TransformerBlock(2)
        block.build((None, 8, 16))
        x = sharing.placed(ops.ones((4, 8, 16)))
        states = [variable.value for variable in block.non_trainable_variables]
        weights = [variable.value for variable in block.trainable_variables]
        layouts = [weight.sharding for weight in weights], x.sharding

        def loss(weights, x):
            return ops.sum(ops.square(block.stateless_call(weights, states, x)[0]))

        gradient = jax.jit(jax.grad(loss, (0, 1)), out_shardings=layouts)
        text = gradient.lower(weights, x).compile().as_text()
    operations = re.findall(r"= (.*) (all-reduce|all-gather|all-to-all|collective-permute)(?:-start)?\(", text)
    counts = {kind: sum(kind == other for _, other in operations) for kind in ("all-to-all", "collective-permute")}
    counts["sums of tokens"] = sum(results.count("[2,8,16]") for results, kind in operations if kind == "all-reduce")
    counts["tokens otherwise"] = sum("[2,8," in results for results, kind in operations if kind != "all-reduce")
    return {kind: np.array(count) for kind, count in counts.items()}


@contextlib.contextmanager
def on_one_device():
    """Context without the distribution that is set."""
    distribution = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(distribution)


def trained(name, rank, world, scope):
    """Returns what a model of the table is and has logged after three steps."""
    keras.utils.set_random_seed(7)
    make, labels, *prepare = MODELS.get(name) or OTHERS.get(name) or SPLIT[name][1:]
    data = prepare[0](IMAGES) if prepare else IMAGES
    conditions = [] if labels is False else [LABELS if labels is True else labels]
    size = engines.share(BATCH, rank, world)
    with on_one_device() if name in EARLIER else scope():
        model = make()
        # Not Adam, which makes steps of one size of gradients that are nothing but rounding.
        options = {"momentum": 0.9, "use_ema": True, "ema_momentum": 0.9}
        options["gradient_accumulation_steps"] = ACCUMULATED.get(name)
        model.compile(keras.optimizers.SGD(1e-3, **options))
        if name in EARLIER:
            model.fit(data[:BATCH], batch_size=size, verbose=0)
    given = keras.tree.map_structure(lambda array: engines.own_rows(array, BATCH, rank, world), [data, *conditions])
    if ENGINE == "workers" and name != "latent_diffusion":  # which encodes arrays
        logs = model.fit(engines.sharded(tuple(given), BATCH), verbose=0).history
    else:
        observers = [evaluate_samples(IMAGES)] if name in EVALUATED else []
        logs = model.fit(*given, batch_size=size, shuffle=False, verbose=0, callbacks=observers).history
    if name in AFTERWARDS:
        AFTERWARDS[name](model, given[0], size)
    counters = [ops.convert_to_numpy(state)[1] for state in model._states_of_replica()]  # of draws by each replica
    result = {f"weight {i}": ops.convert_to_numpy(v) for i, v in enumerate(model.variables)}
    result |= {f"slot {i}": ops.convert_to_numpy(v) for i, v in enumerate(model.optimizer.variables)}
    result |= {f"log {key}": np.array(value) for key, value in logs.items()}
    if hasattr(model, "sample") and not conditions:
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


def evaluate_samples(images):
    """Returns a callback that compares samples with images."""
    return callbacks.EvaluateSamples(images, [metrics.FrechetDistance(None), metrics.PrecisionRecall(None)])


def stream(batches):
    """Returns a loader that does not tell how many batches it has."""
    from torch.utils.data import DataLoader, IterableDataset

    class Stream(IterableDataset):
        def __iter__(self):
            for _ in range(batches):
                yield (IMAGES[:4],)

    return DataLoader(Stream(), batch_size=None)


def refused(rank):
    """Returns the messages with which processes refuse what is not the same in all of them, or not alike."""
    model = models.NICE(2, [8], None, seed=0)
    model.compile("sgd")
    model.fit(IMAGES[:8], verbose=0)
    flow = matching(lambda: models.DiT((8, 8, 1), 4, 16, 1, 2))
    flow.compile("sgd")
    backup = keras.callbacks.BackupAndRestore(f"{OUT}.backup")
    longer, options = IMAGES[: 8 + 8 * rank], {"batch_size": 8, "verbose": 0}
    calls = {
        "arguments": lambda: model.log_prob(IMAGES[rank : rank + 4], verbose=0),
        "batches": lambda: model.fit(longer, **options),
        "pairs": lambda: flow.fit((longer, longer), **options),
        "validation": lambda: model.fit(IMAGES[:8], validation_data=(longer, None), **options),
        "steps": lambda: model.fit(stream(4), steps_per_epoch=1 + rank, verbose=0),
        "images": lambda: evaluate_samples(IMAGES[rank : rank + 8]),
        "callbacks": lambda: model.fit(IMAGES[:8], verbose=0, callbacks=[backup]),
    }
    return messages_of(calls)


def refused_by_strategy(scope):
    """Returns the messages with which replicas of TensorFlow refuse what Keras cannot do there."""
    with scope():
        model = models.NICE(2, [8], None, seed=0)
        model.compile(keras.optimizers.SGD(gradient_accumulation_steps=2))
    return messages_of({"accumulation": lambda: model.fit(IMAGES[:8], batch_size=4, verbose=0)})


def computing(scope):
    """Returns the number of the device that computes each row, in batches of two."""
    with scope():

        def index_of(x):
            return ops.ones_like(x) * ops.cast(processes.replicas()[0], x.dtype)

        index = Probe().in_batches("index", index_of, IMAGES[:8, 0], batch_size=2)
    return {"index": index[:, 0, 0]}


def messages_of(calls):
    messages = {}
    for name, call in calls.items():
        try:
            call()
        except ValueError as error:
            messages[name] = np.array(str(error))
    return messages


def streamed(rank):
    """Trains on streams of different lengths, with callbacks that write; returns the number of steps."""
    model = models.NICE(2, [8], None, seed=0)
    model.compile("sgd")
    writers = [
        keras.callbacks.CSVLogger(f"{OUT}.{rank}.csv"),
        keras.callbacks.ModelCheckpoint(f"{OUT}.{rank}.keras"),
    ]
    model.fit(stream(2 + rank), validation_data=stream(3 - rank), epochs=2, verbose=0, callbacks=writers)
    return {"steps": ops.convert_to_numpy(model.optimizer.iterations)}


def main():
    if ENGINE == "mirrored":
        import tensorflow as tf

        two = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
    runs = {"one": {}}
    if engines.RANK == 0 and ENGINE not in ("hosts", "workers"):  # their engines start before anything else
        os.environ.pop("WORLD_SIZE", None)  # one process is refused where several are started
        runs["one"] = {name: trained(name, 0, 1, contextlib.nullcontext) for name in NAMES}
        runs["methods, one"] = methods(contextlib.nullcontext)
        if ENGINE == "data_parallel":
            two = keras.distribution.DataParallel(devices=["cpu:0", "cpu:1"])
            runs["methods, two"] = methods(two.scope)
        os.environ["WORLD_SIZE"] = str(engines.WORLD)
    rank, world, scope = engines.start(ENGINE)
    if ENGINE in MESHES:
        runs["all"] = {name: split_over_devices(name) for name in NAMES}
        runs["exchanged"] = {"transformer_block": exchanged()}
    elif ENGINE != "one":
        runs["all"] = {name: trained(name, rank, world, scope) for name in NAMES}
        runs["methods, all"] = methods(scope)
    if ENGINE == "mirrored":
        runs["refused"] = {"messages": refused_by_strategy(scope)}
        runs["computing"] = {"probe": computing(scope)}
    if ENGINE == "processes":
        runs["refused"] = {"messages": refused(rank)}
        runs["streamed"] = {"nice": streamed(rank)}
    arrays = {f"{run}|{name}|{key}": v for run, of in runs.items() for name, r in of.items() for key, v in r.items()}
    np.savez(f"{OUT}.{engines.RANK}.npz", **arrays)
    if ENGINE == "processes":
        import torch.distributed

        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
