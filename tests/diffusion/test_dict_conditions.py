"""Conditions that are dicts of arrays, and null conditions that are given."""

import functools

import keras
import numpy as np
import pytest
from keras import ops
from laws.models import joined, told_network
from offenders import not_refused

from keras_gen.core.compiled import as_tensor
from keras_gen.core.fixtures import made_alike, randomize_weights, save_and_load, to_numpy
from keras_gen.core.torch.trace import PLAIN_CALLS, Trace
from keras_gen.diffusion.models.exporting import SamplerGraph
from keras_gen.layers import SinusoidalEmbedding, TransformerBlock
from keras_gen.models import DDPM, EDM, LatentDiffusion, RectifiedFlow, ScoreSDE
from keras_gen.samplers import (
    ClassifierFreeGuidance,
    ClassifierGuidance,
    CodebookDiffusion,
    DDIMSampler,
    DDPMSampler,
    EulerSampler,
    HeunSampler,
)
from keras_gen.schedules import CosineSchedule
from keras_gen.testing.config import check_config

RNG = np.random.default_rng(0)
N = 6
POINTS = RNG.uniform(-1, 1, (N, 2)).astype("float32")
DICT = {"tokens": RNG.normal(size=(N, 2, 3)).astype("float32"), "pooled": RNG.normal(size=(N, 4)).astype("float32")}
VECTOR = np.concatenate([DICT["pooled"], DICT["tokens"].reshape(N, 6)], axis=1)
NULL = {"tokens": np.full((2, 3), 0.5), "pooled": np.arange(4)}
NULL_VECTOR = np.append(NULL["pooled"], NULL["tokens"])
GUIDANCE = ClassifierFreeGuidance(2.0)


@keras.saving.register_keras_serializable("keras_gen_tests")
class OfParts(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.of_x, self.of_condition, self.embedding = (keras.layers.Dense(2) for _ in range(3))

    def call(self, inputs):
        x, t, condition = inputs
        time = ops.expand_dims(ops.cast(t, "float32") / 1000, -1)
        return self.of_x(x) + self.of_condition(joined(condition)) + self.embedding(time)


MODELS = {
    "ddpm": (lambda network, **options: DDPM(network, CosineSchedule(6), **options), DDIMSampler(3, eta=1.0)),
    "edm": (EDM, HeunSampler(3)),
    "rectified_flow": (RectifiedFlow, EulerSampler(3)),
    "score_sde": (ScoreSDE, EulerSampler(3)),
}


def model_of(name, network, null=NULL):
    model = MODELS[name][0](network, condition_dropout=0.2, null_condition=null, seed=0)
    model.compile("sgd")
    return model


def rows(condition, n):
    return {name: part[:n] for name, part in condition.items()} if isinstance(condition, dict) else condition[:n]


@functools.cache
def pair(name):
    """Two models with the same weights: one is told the parts, the other the same numbers in one vector."""
    models = [model_of(name, told_network(by_parts), null) for by_parts, null in ((True, NULL), (False, NULL_VECTOR))]
    for model in models:
        randomize_weights(model.network, scale=1.0)
    return tuple(zip(models, (DICT, VECTOR), strict=True))


def inverted(model, condition):
    return model.invert(POINTS, EulerSampler(3), condition=condition, verbose=0)


def adapted(model, condition):
    model.adapt_variance(POINTS, condition, seed=0, verbose=0)
    return model.noise_power


def coded(model, condition):
    codec = CodebookDiffusion(model, DDPMSampler(3), 4)
    return codec.decode(codec.encode(POINTS, condition, verbose=0), condition, verbose=0)


def path(model, condition):
    return model.denoising_path(N, 2, seed=0, of="x0", condition=condition, guidance=GUIDANCE, **SILENT, **FOUR)


SILENT, FOUR = {"verbose": 0}, {"batch_size": 4}
DENSITY = {"tolerance": 1e-2, "seed": 0, **SILENT}
METHODS = {
    "adapt_variance": ("ddpm", adapted),
    "codebook": ("ddpm", coded),
    "denoising_path": ("edm", path),
    "elbo": ("ddpm", lambda model, y: model.elbo(POINTS, y, seed=0, **SILENT)),
    "evaluate": ("ddpm", lambda model, y: model.evaluate(POINTS, y, **SILENT)),
    "image_to_image": ("rectified_flow", lambda model, y: model.image_to_image(POINTS, condition=y, seed=0, **SILENT)),
    "inpaint": ("edm", lambda model, y: model.inpaint(POINTS, POINTS > 0, condition=y, seed=0, **SILENT)),
    "interpolate": (
        "rectified_flow",
        lambda model, y: model.interpolate(POINTS[:3], POINTS[3:], 0.5, 2, condition=y, seed=0, **SILENT),
    ),
    "invert": ("score_sde", inverted),
    "log_prob": ("rectified_flow", lambda model, y: model.log_prob(POINTS, y, **DENSITY)),
    "log_prob_estimate": ("rectified_flow", lambda model, y: model.log_prob(POINTS, y, "hutchinson", **DENSITY)),
    "predict_x0": ("edm", lambda model, y: model.predict_x0(POINTS, 0.5, y, GUIDANCE)),
    "straightness": ("rectified_flow", lambda model, y: model.straightness(N, y, 2, seed=0, **SILENT)),
}


@pytest.mark.parametrize("method", METHODS)
def test_a_dict_is_as_good_as_one_vector(method):
    name, call = METHODS[method]
    by_parts, by_vector = (to_numpy(ops.convert_to_tensor(call(model, y))) for model, y in pair(name))
    assert np.isfinite(by_parts).all()
    np.testing.assert_allclose(by_parts, by_vector, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("ddpm", told_network),
        ("edm", OfParts),
        ("rectified_flow", OfParts),
        ("score_sde", told_network),
    ],
)
def test_train_sample_and_load(name, make):
    """By arrays and by a generator; samples do not depend on the batch size, and each one on its own condition."""
    models = [made_alike(lambda: model_of(name, make())) for _ in range(2)]
    batches = ((POINTS, dict(reversed(DICT.items()))) for _ in range(1))
    losses = [
        models[0].fit(POINTS, DICT, shuffle=False, verbose=0).history["loss"],
        models[1].fit(batches, steps_per_epoch=1, verbose=0).history["loss"],
    ]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    randomize_weights(models[0].network, scale=1.0)

    def samples(model, condition, **options):
        options = {"seed": tuple(range(N)), "guidance": GUIDANCE, "verbose": 0, **options}
        return model.sample(N, MODELS[name][1], condition, **options)

    first = samples(models[0], DICT)
    np.testing.assert_allclose(samples(models[0], DICT, batch_size=4), first, rtol=1e-4, atol=1e-4)
    other = {**DICT, "pooled": DICT["pooled"] + np.eye(N, 1)}
    changed = np.abs(samples(models[0], other) - first).max(axis=1)
    assert changed[0] > 1e-3
    assert changed[1:].max() < 1e-4
    loaded = save_and_load(models[0])
    np.testing.assert_allclose(samples(loaded, DICT), first, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match=r"`condition` must be the network's condition, a dict of 'pooled', 'tokens'"):
        samples(loaded, {"tokens": DICT["tokens"]})


class Told(keras.layers.Layer):
    """Predicts x0 to be a number that tells the condition."""

    def call(self, inputs):
        x, _, condition = inputs
        tokens = ops.mean(condition["tokens"], axis=(1, 2))
        told = tokens + 10 * condition["pooled"] + 100 * condition["sizes"]
        return ops.zeros_like(x) + ops.expand_dims(told, -1)


def telling(null):
    inputs = [
        keras.Input((2,)),
        keras.Input((), dtype="int32"),
        {"tokens": keras.Input((2, 3)), "pooled": keras.Input(()), "sizes": keras.Input(())},
    ]
    network = keras.Model(inputs, Told()(inputs))
    return DDPM(network, CosineSchedule(6), "x0", condition_dropout=0.3, null_condition=null, seed=0)


def told(n):
    return {"tokens": np.ones((n, 2, 3)), "pooled": np.zeros(n), "sizes": np.arange(n, dtype="float32") / n}


KEPT_SIZES = {"tokens": np.full((2, 3), 2.0), "pooled": np.array(5.0), "sizes": None}


def test_all_parts_of_a_sample_are_dropped_together():
    n = 400
    condition, x = told(n), np.zeros((n, 2), "float32")
    for null, dropped in ((KEPT_SIZES, 52.0), (None, 0.0)):
        model = telling(null)
        tensors = {name: as_tensor(part) for name, part in condition.items()}
        losses = [to_numpy(model.loss_per_sample(as_tensor(x), tensors, training)) for training in (True, False)]
        sizes = 100 * condition["sizes"]
        values, plain = (np.sqrt(loss) for loss in losses)
        np.testing.assert_allclose(plain, 1 + sizes, rtol=1e-5)
        kept = np.isclose(values, 1 + sizes, rtol=1e-4)
        assert 0.6 < kept.mean() < 0.8
        np.testing.assert_allclose(values[~kept], dropped + (0 if null is None else sizes[~kept]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batched", [True, False])
def test_guidance_leaves_the_given_null_condition(batched):
    """x0 = null + w (conditional - null), but for the part that is never dropped."""
    model, condition = telling(KEPT_SIZES), told(4)
    x0 = model.predict_x0(POINTS[:4], 3, condition, ClassifierFreeGuidance(3.0, batched=batched))
    expected = 52 + 3 * (1 - 52) + 100 * condition["sizes"]
    np.testing.assert_allclose(x0, np.repeat(expected[:, None], 2, axis=1), rtol=1e-5)


def reader():
    """A network that reads token ids itself."""
    x, t, ids = keras.Input((2,)), keras.Input(()), keras.Input((4,), dtype="int32")
    text = TransformerBlock(1, positions=None)(keras.layers.Embedding(9, 4, name="words")(ids))
    h = keras.layers.Dense(8)(x) + keras.layers.Dense(8)(SinusoidalEmbedding(4)(t))
    h = h + keras.layers.Dense(8)(ops.reshape(text, (-1, 16)))
    return keras.Model([x, t, ids], keras.layers.Dense(2)(ops.tanh(h)))


def test_ids_are_dropped_to_given_ids():
    """So a network trains its own text encoder."""
    with pytest.raises(ValueError, match="`condition_dropout` must be 0 .* unless `null_condition` is given"):
        RectifiedFlow(reader(), condition_dropout=0.1)
    model = RectifiedFlow(reader(), condition_dropout=0.1, null_condition=[1, 0, 0, 0], seed=0)
    model.compile(keras.optimizers.Adam(0.01))
    ids = RNG.integers(2, 9, (N, 4))
    before = to_numpy(model.network.get_layer("words").embeddings)
    model.fit(POINTS, ids, epochs=4, verbose=0)
    changed = np.abs(to_numpy(model.network.get_layer("words").embeddings) - before).max(axis=1) > 1e-4
    np.testing.assert_array_equal(changed[2:], np.isin(np.arange(2, 9), ids))
    predictions = [model.predict_x0(POINTS, 0.5, y, GUIDANCE) for y in (ids, np.tile([1, 0, 0, 0], (N, 1)))]
    plain = model.predict_x0(POINTS, 0.5, ids)
    np.testing.assert_allclose(predictions[0], 2 * plain - predictions[1], rtol=1e-4, atol=1e-4)
    assert np.abs(plain - predictions[1]).max() > 1e-3
    assert save_and_load(model).null_condition.given.tolist() == [1, 0, 0, 0]


class Doubling(keras.layers.Layer):
    """An autoencoder without weights."""

    def __init__(self):
        super().__init__()
        self.built = True

    def encode(self, x):
        return 2 * x

    def decode(self, z):
        return z / 2


def test_a_subclassed_network_learns_latents():
    model = LatentDiffusion(Doubling(), RectifiedFlow(OfParts(), condition_dropout=0.1, null_condition=NULL, seed=0))
    model.compile("sgd")
    model.fit(POINTS, DICT, verbose=0)
    new = model.sample(2, EulerSampler(2), rows(DICT, 2), GUIDANCE, seed=0, verbose=0)
    assert np.isfinite(new).all()


def test_each_part_is_an_input_of_an_exported_sampler():
    (model, _), _ = pair("ddpm")
    sampler = DDIMSampler(2)
    graph = SamplerGraph(model, sampler, GUIDANCE)
    assert [one.name for one in graph.inputs] == ["noise", "condition_pooled", "condition_tokens"]
    images = graph(*map(as_tensor, (POINTS, DICT["pooled"], DICT["tokens"])))
    expected = model.sample(N, sampler, DICT, GUIDANCE, noise=POINTS, verbose=0)
    np.testing.assert_allclose(to_numpy(images), expected, rtol=1e-5, atol=1e-5)


def test_the_configuration_holds_the_null_condition():
    null = {**NULL, "pooled": None}
    network = told_network()
    check_config(lambda: RectifiedFlow(network, null_condition=null))
    model = RectifiedFlow(network, null_condition=null)
    given = RectifiedFlow.from_config(model.get_config()).null_condition.given
    assert given["pooled"] is None
    np.testing.assert_array_equal(given["tokens"], null["tokens"])


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="only PyTorch calls layer by layer")
def test_a_trace_takes_a_dict_in_any_order():
    network = told_network()
    trace = Trace(network, network.__call__)
    parts = {name: as_tensor(part) for name, part in DICT.items()}
    x, t = as_tensor(POINTS), as_tensor(np.zeros(N, "float32"))
    orders = [parts, dict(reversed(parts.items()))]
    outputs = [to_numpy(trace([x, t, orders[i % 2]], False)) for i in range(PLAIN_CALLS + 2)]
    assert len(trace.graphs) == 1
    for output in outputs[1:]:
        np.testing.assert_allclose(output, outputs[0], rtol=1e-6, atol=1e-6)


def test_what_is_no_condition_is_refused():
    model, other = (
        model_of("rectified_flow", told_network()),
        model_of("rectified_flow", told_network(by_parts=False), None),
    )
    subclassed = model_of("rectified_flow", OfParts())
    subclassed.fit(POINTS, DICT, verbose=0)
    no_null = model_of("score_sde", told_network(), None)
    parts = "a dict of 'pooled', 'tokens'"
    fit, sample = (lambda y, m=model: m.fit(POINTS, y, verbose=0)), (lambda y, m=model: m.sample(2, condition=y))
    two = rows(DICT, 2)
    null = lambda value, taking=model.network: DDPM(taking, null_condition=value)  # noqa: E731
    x, t = keras.Input((2,)), keras.Input(())
    plain = keras.Model([x, t], x + t[:, None])
    classifier = ClassifierGuidance(keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)]))
    of_y, of_condition = (f"`{name}` must be the network's condition, {parts}" for name in ("y", "condition"))
    cases = [
        ("a part is missing", lambda: fit({"tokens": DICT["tokens"]}), f"{of_y}. Received: y=a dict of 'tokens'"),
        ("a part too many", lambda: fit({**DICT, "mask": VECTOR}), f"{of_y}. Received: y=a dict of 'mask', 'pooled'"),
        ("no parts", lambda: fit({}), "`y` must be one array, or a dict of arrays by their names. Received: y={}"),
        ("a nested dict", lambda: fit({"a": DICT}), "`y` must be one array, or a dict of arrays by their names"),
        ("numbers as names", lambda: fit({0: VECTOR}), "`y` must be one array, or a dict of arrays by their names"),
        ("an array", lambda: fit(VECTOR), f"{of_y}. Received: y=one array"),
        (
            "a dict for an array",
            lambda: fit(DICT, other),
            "`y` must be the network's condition, one array. Rec.*a dict",
        ),
        ("None as a part", lambda: fit({**DICT, "pooled": None}), r"`y\[\"pooled\"\]` must be numbers"),
        ("a list", lambda: fit({**DICT, "pooled": [[1.0] * 4] * N}), r"`y\[\"pooled\"\]` must be an array"),
        ("a number", lambda: fit({**DICT, "pooled": 1.0}), r"`y\[\"pooled\"\]` must have one entry for each of 6"),
        (
            "fewer rows",
            lambda: fit({**DICT, "tokens": DICT["tokens"][:3]}),
            r"`y\[\"tokens\"\]` must have one entry for each of 6 images. Received: .*=shape \(3, 2, 3\)",
        ),
        (
            "another width",
            lambda: fit({**DICT, "pooled": DICT["pooled"][:, :3]}),
            r"`y\[\"pooled\"\]` must have shape \(n, 4\). Received: .*=shape \(6, 3\)",
        ),
        ("texts", lambda: fit({**DICT, "tokens": np.array(["a"] * N)}), r"`y\[\"tokens\"\]` must be numbers: .*<U1"),
        ("a text for each", lambda: fit(np.array(["zero"] * N)), of_y),
        ("a text for each vector", lambda: fit(np.array(["zero"] * N), other), "`y` must be numbers: .*<U4"),
        ("a batch with other parts", lambda: model.check_batch(POINTS, {"tokens": DICT["tokens"]}), of_y),
        (
            "a generator",
            lambda: model.fit(((POINTS, VECTOR) for _ in range(1)), steps_per_epoch=1, verbose=0),
            of_y,
        ),
        ("a subclassed network", lambda: fit({"tokens": DICT["tokens"]}, subclassed), of_y),
        ("none", lambda: sample(None), "`condition` must be given"),
        ("a part is missing in `sample`", lambda: sample({"pooled": two["pooled"]}), of_condition),
        (
            "other rows in `sample`",
            lambda: sample(DICT),
            r"`condition\[\"pooled\"\]` must have one entry for each of 2",
        ),
        (
            "a classifier",
            lambda: no_null.sample(2, condition=two, guidance=classifier),
            "`condition` must be one array",
        ),
        (
            "a null condition of other parts",
            lambda: null({"tokens": NULL["tokens"]}),
            "`null_condition` must be the net",
        ),
        ("a null array", lambda: null(NULL_VECTOR), f"`null_condition` must be the network's condition, {parts}"),
        (
            "a null condition of another shape",
            lambda: null({**NULL, "tokens": NULL["pooled"]}),
            r"`null_condition\[\"tokens\"\]` must have shape \(2, 3\), without a batch. Received: .*=shape \(4,\)",
        ),
        ("NaN", lambda: null({**NULL, "tokens": np.full((2, 3), np.nan)}), "must be finite"),
        ("a null text", lambda: null(""), "`null_condition` must be numbers"),
        (
            "a null condition of none",
            lambda: null(0.0, plain),
            "`null_condition` must be None: the network takes no condition",
        ),
    ]
    offenders = not_refused(cases)
    assert not offenders, "\n".join(offenders)


def test_conditions_have_the_length_of_the_null_condition():
    x, t, tokens = keras.Input((2,)), keras.Input(()), keras.Input((None, 3))
    network = keras.Model([x, t, tokens], keras.layers.Dense(2)(x + ops.mean(tokens, axis=(1, 2))[:, None]))
    model = RectifiedFlow(network, condition_dropout=0.1, null_condition=np.zeros((4, 3)))
    rule = r"must have rows of shape \(4, 3\), as `null_condition` has. Received: .*=rows of shape \(2, 3\)"
    with pytest.raises(ValueError, match=f"`condition` {rule}"):
        model.sample(N, condition=DICT["tokens"])
    with pytest.raises(ValueError, match=f"`y` {rule}"):
        model.check_batch(POINTS, DICT["tokens"])
