"""Labels and other conditions, as data sets and users write them: one rule for all models that take them."""

import keras
import numpy as np
import pytest
from laws.models import MODELS
from offenders import not_refused

from keras_gen.core.fixtures import made_alike, save_and_load
from keras_gen.models import DDPM
from keras_gen.samplers import DDIMSampler
from keras_gen.schedules import CosineSchedule

RNG = np.random.default_rng(0)
X, LABELS = RNG.integers(0, 2, (8, 8, 8, 1)).astype("float32") * 2 - 1, RNG.integers(0, 4, 8)
CONDITIONAL = {name: entry for name, entry in MODELS.items() if entry[1]}
OF_LABELS = [name for name in CONDITIONAL if name != "flow_condition"]  # whose condition is a vector


def data(name):
    make, _, *prepare = MODELS[name]
    return make, prepare[0](X) if prepare else X


@pytest.mark.parametrize("name", OF_LABELS)
def test_a_column_of_labels_is_as_good(name):
    """As `keras.datasets.cifar10` gives them: in an array and by a dataset."""
    make, x = data(name)
    losses = []
    for labels in (LABELS, LABELS[:, None]):
        model = made_alike(make)
        losses.append(model.fit(x, labels, batch_size=8, shuffle=False, verbose=0).history["loss"][0])
    generator = ((x, LABELS[:, None]) for _ in range(1))
    if name != "latent_diffusion":  # takes datasets of latents alone
        losses.append(made_alike(make).fit(generator, steps_per_epoch=1, verbose=0).history["loss"][0])
    np.testing.assert_allclose(losses, losses[0], rtol=1e-5)
    samples = [model.sample(2, condition=labels[:2], seed=0, verbose=0) for labels in (LABELS, LABELS[:, None])]
    np.testing.assert_array_equal(*samples)


def test_what_is_no_condition_is_refused():
    cases = []
    for name in CONDITIONAL:
        make, x = data(name)
        model = make()
        fit = lambda y, model=model, x=x: model.fit(x, y, verbose=0)  # noqa: E731
        cases.append((f"{name}, a scalar", lambda fit=fit: fit(LABELS[0]), "`y` must have one entry for each of 8"))
        names = np.array(["cat", "dog"] * 4)
        message = "must be numbers: give integers for names of classes, .* Received: .*=dtype <U3"
        cases.append((f"{name}, names", lambda fit=fit, names=names: fit(names), message))
        if name in OF_LABELS and model.built:
            cases.append((f"{name}, a name", lambda model=model: model.sample(2, condition="cat"), message))
    offenders = not_refused(cases)
    assert not offenders, "\n".join(offenders)


@keras.saving.register_keras_serializable("keras_gen_tests")
class Subclassed(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.dense, self.embedding = keras.layers.Dense(2), keras.layers.Embedding(32, 2)

    def call(self, inputs):
        x, t, *labels = inputs
        h = self.dense(x) + self.embedding(t)
        return h + self.embedding(labels[0] + 16) if labels else h


POINTS = RNG.normal(size=(8, 2)).astype("float32")


def of_points(**options):
    model = DDPM(Subclassed(), CosineSchedule(10), seed=0, **options)
    model.compile("sgd")
    return model


@pytest.mark.parametrize("by", ["array", "generator", "a call before"])
def test_a_subclassed_network_takes_a_condition(by):
    """`fit` shows it the first labels; its file remembers that it takes some."""
    model = of_points()
    if by == "a call before":
        model.network([POINTS, LABELS, LABELS])
    if by == "generator":
        model.fit(((POINTS, LABELS) for _ in range(2)), steps_per_epoch=2, verbose=0)
    else:
        model.fit(POINTS, LABELS, verbose=0)
    options = {"sampler": DDIMSampler(3), "seed": 0, "verbose": 0}
    samples = model.sample(2, condition=[1, 2], **options)
    assert np.abs(samples - model.sample(2, condition=[1, 3], **options)).max(axis=1).tolist()[0] == 0
    assert np.abs(samples - model.sample(2, condition=[1, 3], **options)).max() > 1e-4
    loaded = save_and_load(model)
    np.testing.assert_allclose(loaded.sample(2, condition=[1, 2], **options), samples, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="`condition` must be given: the network takes a condition"):
        loaded.sample(2, **options)
    with pytest.raises(ValueError, match="`y` must be given: the network takes a condition"):
        loaded.fit(POINTS, verbose=0)


def test_a_subclassed_network_without_a_condition():
    model = of_points()
    model.fit(POINTS, verbose=0)
    rule = "`y` must be None: the network takes no condition, as it was first called with x_t and t alone"
    with pytest.raises(ValueError, match=rule):
        model.fit(POINTS, LABELS, verbose=0)


def test_numbers_that_a_network_would_cut_or_spread_are_refused():
    """Keras casts fractions to integers, and a NaN spoils the weights."""
    x, t, vector = keras.Input((2,)), keras.Input((), dtype="int32"), keras.Input((3,))
    label = keras.Input((), dtype="int32")
    h, kinds = keras.layers.Dense(2)(x) + keras.layers.Embedding(10, 2)(t), keras.layers.Embedding(4, 2)
    of_labels = DDPM(keras.Model([x, t, label], h + kinds(label)), CosineSchedule(10), seed=0)
    of_vectors = DDPM(keras.Model([x, t, vector], h + keras.layers.Dense(2)(vector)), CosineSchedule(10), seed=0)
    vectors = RNG.normal(size=(8, 3))
    cases = []
    for model, given, rule in (
        (of_labels, LABELS + 0.5, "be integers, as the network takes them"),
        (of_labels, np.full(8, np.nan), "be finite"),
        (of_vectors, np.where(vectors > 0, np.nan, vectors), "be finite"),
    ):
        model.compile("sgd")
        sample = lambda model=model, given=given: model.sample(8, DDIMSampler(3), condition=given, verbose=0)  # noqa: E731
        fit = lambda model=model, given=given: model.fit(POINTS, given, verbose=0)  # noqa: E731
        cases += [(f"fit, {rule}", fit, f"`y` must {rule}"), (f"sample, {rule}", sample, f"`condition` must {rule}")]
    offenders = not_refused(cases)
    assert not offenders, "\n".join(offenders)
    of_labels.fit(POINTS, LABELS.astype("float32"), verbose=0)
    of_vectors.fit(POINTS, vectors, verbose=0)
