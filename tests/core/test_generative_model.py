"""The one training step of all models, and the one loop over batches and steps."""

import keras
import numpy as np
import pytest
from keras import ops
from offenders import not_refused

from keras_gen import models, schedules
from keras_gen.core.fixtures import to_numpy
from keras_gen.core.generative_model import GenerativeModel

X = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
WEIGHTS = np.array([1.0, 0.0, 2.0, 0.5], "float32")


@keras.saving.register_keras_serializable("test")
class Adds(keras.layers.Layer):
    """Adds a constant to the loss."""

    def call(self, x):
        self.add_loss(ops.convert_to_tensor(5.0))
        return x


class Plain(GenerativeModel):
    """loss_i = |x_i - network(x_i)|^2, and a term of the whole batch."""

    def __init__(self, network, term=0.0):
        super().__init__(seed=0)
        self.network, self.term = network, term
        self.tracker = keras.metrics.Mean(name="error")

    def loss_per_sample(self, x, y, training):
        error = ops.sum(ops.square(x - self.network(x, training=training)), axis=1)
        self.track(self.tracker, error)
        self.add_loss(ops.convert_to_tensor(self.term))
        return error


def network(regularizer=None, adds=False):
    layers = [keras.Input((3,)), keras.layers.Dense(3, kernel_regularizer=regularizer, kernel_initializer="ones")]
    return keras.Sequential([*layers, Adds()] if adds else layers)


def error():
    return np.sum((X - X.sum(axis=1, keepdims=True)) ** 2, axis=1)


def loss_of(model, **options):
    return float(to_numpy(model.compute_loss(ops.convert_to_tensor(X), **options)))


def test_loss_is_the_weighted_mean_and_what_is_added():
    model = Plain(network(keras.regularizers.L2(0.1), adds=True), term=7.0)
    expected = error().mean() + 7 + 5 + 0.1 * 9
    for _ in range(2):  # nothing is left from the step before
        np.testing.assert_allclose(loss_of(model), expected, rtol=1e-5)
    weighted = (WEIGHTS * error()).mean() + 7 + 5 + 0.1 * 9
    np.testing.assert_allclose(loss_of(model, sample_weight=ops.convert_to_tensor(WEIGHTS)), weighted, rtol=1e-5)


def test_fit_counts_what_layers_add_on_every_backend():
    model = Plain(network(keras.regularizers.L2(0.1), adds=True), term=7.0)
    model.compile(keras.optimizers.SGD(0.0))
    logs = model.fit(X, batch_size=2, epochs=2, verbose=0).history
    np.testing.assert_allclose(logs["loss"], error().mean() + 7 + 5 + 0.9, rtol=1e-5)
    np.testing.assert_allclose(logs["error"], error().mean(), rtol=1e-5)
    assert not model._losses


def test_what_a_network_of_a_diffusion_model_adds_counts():
    def loss(adds):
        keras.utils.set_random_seed(0)
        x, t = keras.Input((3,)), keras.Input((), dtype="int32")
        y = keras.layers.Dense(3)(x)
        model = models.DDPM(keras.Model([x, t], Adds()(y) if adds else y), schedules.LinearSchedule(10), seed=0)
        model.compile(keras.optimizers.SGD(0.0))
        return model.fit(X, verbose=0).history["loss"][0]

    np.testing.assert_allclose(loss(True), loss(False) + 5, rtol=1e-5)


def test_logs_are_weighted_as_the_loss_is():
    model = Plain(network())
    model.compile(keras.optimizers.SGD(0.0))
    logs = model.fit(X, np.zeros(4), sample_weight=WEIGHTS, verbose=0).history
    np.testing.assert_allclose(logs["error"], (WEIGHTS * error()).sum() / WEIGHTS.sum(), rtol=1e-5)
    assert model._sample_weight is None


def test_a_model_without_a_loss_says_so():
    model = GenerativeModel()
    with pytest.raises(NotImplementedError, match="GenerativeModel must define `loss_per_sample`"):
        loss_of(model)


def test_a_loss_that_is_not_one_number_for_each_sample_is_refused():
    model = Plain(network())
    model.loss_per_sample = lambda x, y, training: ops.sum(x, axis=1, keepdims=True)
    with pytest.raises(ValueError, match=r"`loss_per_sample` must return one value per sample, \(batch,\)."):
        loss_of(model)


def test_what_a_call_outside_of_the_step_added_does_not_count():
    model = Plain(network(adds=True))
    expected = loss_of(model)
    model.network(X)
    np.testing.assert_allclose(loss_of(model), expected, rtol=1e-6)


def test_weights_that_keras_would_drop_are_refused():
    model = Plain(network())
    model.compile("sgd")
    for method in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match="`sample_weight` must come with `y`"):
            method(X, sample_weight=WEIGHTS, verbose=0)


def test_a_model_may_refuse_sample_weights():
    model = Plain(network())
    model.takes_sample_weight = False
    with pytest.raises(ValueError, match="`sample_weight` must be None: the model takes none. Received: sample_weight"):
        loss_of(model, sample_weight=ops.convert_to_tensor(WEIGHTS))


@pytest.mark.parametrize("verbose", [0, 1])
def test_steps_run_for_every_row_and_stop_where_asked(verbose, capsys):
    model = Plain(network())
    noise = {}

    def loop(inputs, state, first, last):
        # Sums x + the number of the step; the seeds are those of the batch.
        def body(i, state):
            return state + inputs["x"] * inputs["factor"] + ops.cast(i, "float32")

        noise["shape"] = tuple(inputs["seeds"].shape)
        return ops.fori_loop(first, last, body, state)

    states = model.run_steps(
        "test",
        loop,
        {"x": X},
        lambda inputs: ops.zeros_like(inputs["x"]),
        steps=4,
        batch_size=3,
        verbose=verbose,
        shared={"factor": ops.convert_to_tensor(2.0)},
        seed=0,
        draws=2,
        stops=[1, 4],
    )
    found = {}
    for rows, stop, state in states:
        found.setdefault(stop, np.zeros_like(X))[rows] = ops.convert_to_numpy(state)
    np.testing.assert_allclose(found[1], 2 * X, rtol=1e-6)
    np.testing.assert_allclose(found[4], 8 * X + 6, rtol=1e-5)
    assert noise["shape"] == (4, 2, 2)
    assert bool(capsys.readouterr().out) == bool(verbose)


def test_parts_of_the_inputs_are_made_between_two_stops():
    model, asked = Plain(network()), []

    def loop(inputs, state, first, last):
        return ops.fori_loop(first, last, lambda i, state: state + inputs["own"], state)

    def part(first, last):
        asked.append((first, last))
        return {"own": ops.convert_to_tensor(float(last))}

    states = model.run_steps(
        "parts",
        loop,
        {"x": X},
        lambda inputs: ops.zeros_like(inputs["x"]),
        steps=5,
        batch_size=4,
        verbose=0,
        stops=[2, 4, 5],
        part=part,
    )
    *_, (_, _, last) = states
    assert asked == [(0, 2), (2, 4), (4, 5)]
    np.testing.assert_allclose(ops.convert_to_numpy(last), 2 * 2 + 2 * 4 + 5)


@pytest.mark.one_backend
def test_what_saves_or_compiles_otherwise_than_meant_is_refused(tmp_path):
    cases = [
        (name, lambda name=name: models.RealNVP(2, [4]).save(tmp_path / name), "`filepath` must end with .keras.*model")
        for name in ("model.h5", "model.hdf5")
    ]
    rule = "`jit_compile` must be 'auto', True or False. Received: jit_compile="
    cases += [
        (value, lambda value=value: Plain(network()).compile("sgd", jit_compile=value), rule) for value in ("yes", 1)
    ]
    offenders = not_refused(cases)
    assert not offenders, "\n".join(offenders)
    assert not list(tmp_path.iterdir())
