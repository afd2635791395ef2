"""What surrounds the training step: the data of any kind, failing steps, evaluation, threads, and compiled programs."""

import gc
import sys
import threading

import keras
import numpy as np
import pytest
from batch_list import BatchList
from keras import ops

from keras_gen.core.compiled import MAX_PROGRAMS, even_batches
from keras_gen.core.fixtures import to_numpy
from keras_gen.layers import AffineCoupling, Chain, Dequantize
from keras_gen.models import DDPM, VAE, Flow
from keras_gen.samplers import ClassifierFreeGuidance, DDIMSampler, DDPMSampler, HeunSampler
from keras_gen.schedules import CosineSchedule

RNG = np.random.default_rng(0)
POINTS = RNG.normal(size=(64, 2)).clip(-1, 1).astype("float32")
LABELS = RNG.integers(0, 3, 64).astype("int32")
QUICK = DDIMSampler(3)
ON_JAX = keras.backend.backend() == "jax"


def mlp(labels=False):
    x, t = keras.Input((2,)), keras.Input((), dtype="int32")
    h = keras.layers.Dense(16)(x) + keras.layers.Embedding(64, 16)(t)
    if not labels:
        return keras.Model([x, t], keras.layers.Dense(2)(ops.tanh(h)))
    y = keras.Input((), dtype="int32")
    return keras.Model([x, t, y], keras.layers.Dense(2)(ops.tanh(h + keras.layers.Embedding(3, 16)(y))))


def ddpm(labels=False, optimizer="adam"):
    keras.utils.set_random_seed(0)
    model = DDPM(mlp(labels), CosineSchedule(20), prediction="v", seed=0)
    model.compile(optimizer)
    return model


def values(model):
    return [to_numpy(weight).copy() for weight in model.weights]


def assert_equal(first, second):
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def batches(*arrays):
    return [tuple(array[start : start + 16] for array in arrays) for start in range(0, 64, 16)]


def loader(*arrays):
    torch = pytest.importorskip("torch")
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*map(torch.from_numpy, arrays)), batch_size=16)


KINDS = {
    "dataset": lambda *arrays: BatchList(batches(*arrays)),
    "generator": lambda *arrays: (batch for batch in batches(*arrays)),
}
if keras.backend.backend() == "torch":
    KINDS["loader"] = loader
if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    KINDS["tf.data"] = lambda *arrays: tf.data.Dataset.from_tensor_slices(arrays).batch(16)


def test_the_first_batch_is_checked_before_any_step_and_trained_on_once():
    offenders = []
    expected = ddpm(optimizer=keras.optimizers.SGD(0.1))
    expected.fit(POINTS, batch_size=16, shuffle=False, verbose=0)
    for name, make in KINDS.items():
        model = ddpm(optimizer=keras.optimizers.SGD(0.1))
        model.fit(make(POINTS), shuffle=False, verbose=0)
        if any(np.abs(a - b).max() > 1e-6 for a, b in zip(values(model), values(expected), strict=True)):
            offenders.append(f"{name}: other weights than those of arrays")
        for x, y in ((POINTS * np.nan, LABELS), (POINTS[:, :1], LABELS), (POINTS, None)):
            model = ddpm(labels=True)
            before = values(model)
            try:
                model.fit(make(*(part for part in (x, y) if part is not None)), verbose=0)
                offenders.append(f"{name}: accepted")
            except ValueError as error:
                if "Received" not in str(error):
                    offenders.append(f"{name}: {error}")
            assert_equal(values(model), before)
    assert not offenders, "\n".join(offenders)


@pytest.mark.parametrize("weight", [np.nan, np.inf, -1.0])
def test_sample_weights_are_finite_and_not_negative(weight):
    weights = np.ones(64, "float32")
    weights[5] = weight
    with pytest.raises(ValueError, match="`sample_weight` must be finite and >= 0"):
        ddpm(labels=True).fit(POINTS, LABELS, sample_weight=weights, verbose=0)
    with pytest.raises(ValueError, match=r"`sample_weight` must have shape \(64,\)"):
        ddpm(labels=True).fit(POINTS, LABELS, sample_weight=np.ones((64, 2)), verbose=0)


class BrokenDataError(Exception):
    pass


def failing(after):
    for i in range(4):
        if i == after:
            raise BrokenDataError("the disk is gone")
        yield (POINTS[:16],)


@pytest.mark.parametrize("after", [1, 2])
def test_a_failing_step_costs_neither_weights_nor_message(after):
    model = ddpm()
    with pytest.raises(Exception, match="the disk is gone"):
        model.fit(failing(after), verbose=0)
    assert all(np.isfinite(value).all() for value in values(model))
    assert np.isfinite(model.sample(2, QUICK, verbose=0)).all()
    model.fit(POINTS, verbose=0)


def test_a_loss_that_fails_leaves_the_weights(monkeypatch):
    model = ddpm()
    before = values(model)

    def broken(*args, **kwargs):
        raise RuntimeError("a slip in the loss")

    monkeypatch.setattr(model, "loss_per_sample", broken)
    for call in (model.fit, model.evaluate):
        with pytest.raises(RuntimeError, match="a slip in the loss"):
            call(POINTS, verbose=0)
        assert_equal(values(model), before)


def vae():
    keras.utils.set_random_seed(0)
    x = keras.Input((2,))
    encoder = keras.Model(x, [keras.layers.Dense(2)(x), keras.layers.Dense(2)(x)])
    model = VAE(encoder, keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)]), "gaussian", seed=0)
    model.compile(keras.optimizers.SGD(0.1))
    return model


@pytest.mark.parametrize("make", [lambda: ddpm(optimizer=keras.optimizers.SGD(0.1)), vae], ids=["ddpm", "vae"])
def test_evaluation_repeats_itself_and_moves_nothing(make):
    model = make()
    losses = [model.evaluate(POINTS, batch_size=16, verbose=0, return_dict=True)["loss"] for _ in range(2)]
    assert losses[0] == losses[1]
    weights = []
    for validation_data in (None, (POINTS, None)):
        model = make()
        model.fit(POINTS, epochs=2, batch_size=16, shuffle=False, verbose=0, validation_data=validation_data)
        weights.append(values(model))
    assert_equal(*weights)


def test_times_of_evaluation_are_stratified():
    """The loss of one batch varies far less with the seed than by independent times."""
    model = ddpm()
    x = ops.convert_to_tensor(np.repeat(POINTS[:1], 64, axis=0))
    times = {}
    for training in (False, True):
        drawn = []
        draw = model.time_sampler.draw

        def spy(batch, schedule, seed, draw=draw, drawn=drawn):
            t = draw(batch, schedule, seed)
            drawn.append(to_numpy(t))
            return t

        model.time_sampler.draw = spy
        for _ in range(10):
            model.compute_loss(x, training=training)
        times[training] = np.mean(drawn, axis=1).std()
        del model.time_sampler.draw
    assert times[False] < times[True] / 3, times


def in_threads(call, n=8):
    """Runs `call(k)` in n threads that switch often, and returns the results."""
    results, interval = [None] * n, sys.getswitchinterval()

    def run(k):
        results[k] = call(k)

    threads = [threading.Thread(target=run, args=(k,)) for k in range(n)]
    sys.setswitchinterval(1e-4)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    return results


def test_seeded_draws_are_the_same_in_threads():
    flow = Flow(Chain([Dequantize(4), AffineCoupling(units=[8])]), seed=0)
    flow.build((None, 4))
    x = (RNG.integers(0, 4, (16, 4)) / 1.5 - 1).astype("float32")
    model = vae()
    for call in (
        lambda k: flow.log_prob(x, seed=k, verbose=0),
        lambda k: model.elbo(POINTS[:16], seed=k, verbose=0),
        lambda k: model.sample(4, seed=k, verbose=0),
    ):
        assert_equal(in_threads(call), [call(k) for k in range(8)])
    states = [to_numpy(state) for state in flow._random_states()]
    flow.log_prob(x, seed=1, verbose=0)
    assert_equal([to_numpy(state) for state in flow._random_states()], states)


def test_unseeded_draws_of_threads_differ():
    model = ddpm()
    samples = in_threads(lambda k: model.sample(1, QUICK, verbose=0))
    assert len({sample.tobytes() for sample in samples}) == 8


def test_a_call_within_a_traced_function_leaves_no_tracer_behind():
    """JAX cannot trace `sample`, which returns NumPy, but the draw of its seed must not end in the model's state."""
    if keras.backend.backend() != "jax":
        pytest.skip("JAX traces what it is given")
    import jax

    model = ddpm()
    with pytest.raises(TypeError, match="[Tt]racer"):
        jax.jit(lambda x: x + model.sample(1, QUICK, verbose=0))(np.zeros((1, 2), "float32"))
    assert model.sample(1, QUICK, verbose=0).shape == (1, 2)


def test_sampling_while_training():
    """From any callback; from another thread too, but on JAX, whose weights are then elsewhere."""
    model, outcomes = ddpm(), []

    def sample(*args, **kwargs):
        try:
            outcomes.append(model.sample(1, QUICK, verbose=0).shape)
        except RuntimeError as error:
            outcomes.append(str(error))

    def sample_in_thread(*args, **kwargs):
        thread = threading.Thread(target=sample)
        thread.start()
        thread.join()

    for callback in (sample, sample_in_thread):
        on_batch = keras.callbacks.LambdaCallback(on_train_batch_end=callback)
        model.fit(POINTS, batch_size=32, verbose=0, callbacks=[on_batch])
    assert outcomes[:2] == [(1, 2), (1, 2)]
    for outcome in outcomes[2:]:
        assert "being trained in another thread" in outcome if ON_JAX else outcome == (1, 2)


def test_programs_follow_the_variables():
    """`quantize` replaces the kernels: the next sample is made with those of int8."""
    model = ddpm()
    model.fit(POINTS, verbose=0)
    before = model.sample(4, QUICK, seed=0, verbose=0)
    model.network.layers[2].quantize("int8") if hasattr(model.network.layers[2], "kernel") else model.quantize("int8")
    after = model.sample(4, QUICK, seed=0, verbose=0)
    model.programs.by_key.clear()
    np.testing.assert_array_equal(after, model.sample(4, QUICK, seed=0, verbose=0))
    assert np.abs(after - before).max() > 1e-6


def test_numbers_are_arguments_of_programs():
    x, t, y = keras.Input((2,)), keras.Input((), dtype="int32"), keras.Input((1,))
    network = keras.Model([x, t, y], keras.layers.Dense(2)(keras.layers.Concatenate()([x, y])))
    model = DDPM(network, CosineSchedule(20), prediction="v", condition_dropout=0.1, seed=0)
    results = []
    for scale, clip, eta in ((1.0, 0.5, 0.3), (3.0, 0.9, 0.6), (0.5, 0.7, 0.9)):
        sampler, guidance = DDIMSampler(3, eta, clip_x0=clip), ClassifierFreeGuidance(scale)
        options = {"condition": np.ones((4, 1), "float32"), "guidance": guidance, "seed": 0, "verbose": 0}
        results.append(model.sample(4, sampler, **options))
        assert len(model.programs.by_key) == 1
        fresh = DDPM.from_config(model.get_config())
        fresh.set_weights(model.get_weights())
        np.testing.assert_allclose(results[-1], fresh.sample(4, sampler, **options), rtol=1e-6, atol=1e-6)
    assert len({result.tobytes() for result in results}) == 3
    model.sample(4, HeunSampler(3, churn=1.0), condition=np.ones((4, 1), "float32"), verbose=0)
    model.sample(4, HeunSampler(3, churn=2.0), condition=np.ones((4, 1), "float32"), verbose=0)
    assert len(model.programs.by_key) == 2


def test_few_programs_serve_any_number_and_are_bounded():
    model = ddpm()
    for n in range(1, 9):
        model.sample(n, QUICK, verbose=0)
    sizes = {len(rows) for n in range(1, 9) for rows in even_batches(n, 64)}
    assert len(model.programs.by_key) == len(sizes)
    if keras.backend.backend() != "torch":
        assert sizes == {1, 2, 4, 8}
        assert {len(rows) for n in range(1, 300) for rows in even_batches(n, 48)} == {1, 2, 4, 8, 16, 32, 48}
    for n in range(1, 300):
        batches = list(even_batches(n, 48))
        assert np.unique(np.concatenate(batches)).tolist() == list(range(n))
        assert sum(map(len, batches)) <= 2 * n
    for steps in range(1, MAX_PROGRAMS + 4):
        model.sample(1, DDPMSampler(steps), verbose=0)
    assert len(model.programs.by_key) == MAX_PROGRAMS
    gc.collect()


def test_injected_noise_is_finite():
    noise = np.full((3, 2, 2), np.nan, "float32")
    with pytest.raises(ValueError, match="`step_noise` must be finite"):
        ddpm().sample(2, DDPMSampler(3), step_noise=noise, verbose=0)
