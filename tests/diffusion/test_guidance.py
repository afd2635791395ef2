"""Guidance, with Gaussian classes: all that it should give is known."""

import keras
import numpy as np
import pytest
from keras import ops
from mixture import Mixture, exact_model

from keras_gen.core.fixtures import to_numpy
from keras_gen.models import DDPM, ScoreSDE
from keras_gen.samplers import (
    ClassifierFreeGuidance,
    ClassifierGuidance,
    DDIMSampler,
    DDPMSampler,
    DPMSolverPPSampler,
    EulerSampler,
    Guidance,
    HeunSampler,
    ReverseSDESampler,
)
from keras_gen.schedules import LinearSchedule, VPSchedule, ZeroTerminalSNR

MEANS, STD, SHAPE, N = np.array([-1.0, 1.0]), 0.5, (2, 2, 1), 4
NOISE = np.random.default_rng(0).normal(size=(N, *SHAPE)).astype("float32")
LABELS = np.array([0, 1, 1, 0])


class ClassDenoiser(keras.layers.Layer):
    """E[eps | x_t, class] of the classes N(MEANS[c], STD^2); of class 2, the null one, of N(0, 1)."""

    def __init__(self, schedule, share=None, times=1000):
        super().__init__()
        self.schedule, self.share, self.times = schedule, share, times

    def call(self, inputs):
        x, t, label = inputs
        t = t if hasattr(self.schedule, "num_steps") else t / self.times
        alpha, sigma = (ops.reshape(f(t), (-1, 1, 1, 1)) for f in (self.schedule.alpha, self.schedule.sigma))
        means, stds = (ops.convert_to_tensor(values, "float32") for values in ([*MEANS, 0.0], [STD, STD, 1.0]))
        mean, std = (ops.reshape(ops.take(table, label), (-1, 1, 1, 1)) for table in (means, stds))
        eps = sigma / (alpha**2 * std**2 + sigma**2) * (x - alpha * mean)
        if self.share is None:
            return eps
        return ops.concatenate([eps, ops.full_like(eps, 2 * self.share - 1)], axis=-1)


def class_model(schedule=None, share=None, dropout=0.1, **options):
    schedule = VPSchedule() if schedule is None else schedule
    discrete = hasattr(schedule, "num_steps")
    inputs = (
        keras.Input(SHAPE),
        keras.Input((), dtype="int32" if discrete else "float32"),
        keras.Input((), dtype="int32"),
    )
    network = keras.Model(inputs, ClassDenoiser(schedule, share)(inputs))
    network.num_classes = 2
    if discrete:
        return DDPM(network, schedule, condition_dropout=dropout, seed=0, **options)
    return ScoreSDE(network, schedule, condition_dropout=dropout, seed=0, **options)


def samples(model, guidance, sampler=None, **options):
    options = {"condition": LABELS, "noise": NOISE, "verbose": 0, **options}
    return model.sample(N, EulerSampler(8) if sampler is None else sampler, guidance=guidance, **options)


@pytest.fixture(scope="module")
def model():
    return class_model()


def test_scale_1_is_the_plain_conditional_model(model):
    plain = samples(model, None)
    np.testing.assert_allclose(samples(model, ClassifierFreeGuidance(1.0)), plain, rtol=1e-5, atol=1e-5)
    assert np.abs(plain[0] - samples(model, None, condition=1)[0]).max() > 0.1


def test_scale_0_is_the_unconditional_model(model):
    """Whose data are N(0, 1): x_t is what its noise was, but for the last jump and the errors of 8 steps."""
    both = [samples(model, ClassifierFreeGuidance(0.0), condition=label) for label in (0, 1)]
    np.testing.assert_allclose(*both, rtol=1e-5, atol=1e-5)
    assert np.abs(both[0] - samples(model, None)).max() > 0.1


@pytest.mark.parametrize("rescale", [0.0, 0.7])
def test_one_batch_or_two_are_the_same(model, rescale):
    a, b = (samples(model, ClassifierFreeGuidance(2.5, rescale, batched=batched)) for batched in (True, False))
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_one_batch_or_two_are_the_same_with_a_learned_variance():
    model = class_model(LinearSchedule(50, 1e-3, 0.2), share=0.3, variance="learned_range")
    step_noise = np.random.default_rng(1).normal(size=(5, N, *SHAPE))
    a, b = (
        samples(model, ClassifierFreeGuidance(2.5, batched=batched), DDPMSampler(5), step_noise=step_noise)
        for batched in (True, False)
    )
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def predictions(x_t, alpha, sigma):
    """eps_hat of each label, and of the null class, in NumPy."""
    mean = MEANS[LABELS].reshape(-1, 1, 1, 1)
    return sigma / (alpha**2 * STD**2 + sigma**2) * (x_t - alpha * mean), sigma / (alpha**2 + sigma**2) * x_t


@pytest.mark.parametrize("rescale", [0.0, 0.7, 1.0])
def test_guided_samples_are_those_of_the_formula(model, rescale):
    """Euler's method in NumPy, with `rescale` of Lin et al., equation 16."""
    schedule, w = VPSchedule(), 3.0
    times = EulerSampler(8).times(schedule)
    alpha, sigma = schedule.alpha(times), schedule.sigma(times)
    x = NOISE.astype("float64")
    for i in range(8):
        conditional, unconditional = predictions(x, alpha[i], sigma[i])
        eps = unconditional + w * (conditional - unconditional)
        deviations = [part.std(axis=(1, 2, 3), keepdims=True) for part in (conditional, eps)]
        eps = rescale * eps * deviations[0] / deviations[1] + (1 - rescale) * eps
        x0 = (x - sigma[i] * eps) / alpha[i]
        x = alpha[i + 1] * x0 + sigma[i + 1] * eps
    np.testing.assert_allclose(samples(model, ClassifierFreeGuidance(w, rescale)), x, rtol=1e-3, atol=1e-3)


def test_outside_its_interval_the_model_is_plain(model):
    plain, guided = samples(model, None), samples(model, ClassifierFreeGuidance(3.0))
    everywhere = samples(model, ClassifierFreeGuidance(3.0, interval=(0.0, np.inf)))
    nowhere = samples(model, ClassifierFreeGuidance(3.0, interval=(1e4, 1e5)))
    np.testing.assert_allclose(everywhere, guided, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(nowhere, plain, rtol=1e-5, atol=1e-5)
    # sigma / alpha falls: guided in the first steps alone
    times = EulerSampler(8).times(VPSchedule())
    level = VPSchedule().sigma(times[3]) / VPSchedule().alpha(times[3])
    early = samples(model, ClassifierFreeGuidance(3.0, interval=(level * 0.99, np.inf)))
    path = [
        model.denoising_path(N, 8, EulerSampler(8), NOISE, condition=LABELS, guidance=guidance, verbose=0)
        for guidance in (ClassifierFreeGuidance(3.0), ClassifierFreeGuidance(3.0, interval=(level * 0.99, np.inf)))
    ]
    np.testing.assert_allclose(path[1][:5], path[0][:5], rtol=1e-5, atol=1e-5)
    assert np.abs(path[1][6] - path[0][6]).max() > 1e-3
    np.testing.assert_allclose(path[1][-1], early, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "sampler",
    [HeunSampler(4), DPMSolverPPSampler(4), ReverseSDESampler(40, 1), DDIMSampler(4, eta=1.0)],
    ids=lambda s: type(s).__name__,
)
def test_every_sampler_can_be_guided(model, sampler):
    step_noise = np.random.default_rng(1).normal(size=(sampler.steps, *([2] if sampler.draws == 2 else []), N, *SHAPE))
    options = {"sampler": sampler, "step_noise": step_noise}
    plain, guided = (samples(model, guidance, **options) for guidance in (None, ClassifierFreeGuidance(3.0)))
    toward = (guided - plain) * MEANS[LABELS].reshape(-1, 1, 1, 1)
    assert np.isfinite(guided).all()
    assert toward.mean() > 0.1


def test_interval_at_zero_snr_leaves_pure_noise_alone():
    """There sigma / alpha is infinite."""
    schedule = ZeroTerminalSNR(LinearSchedule(20))
    x, t, label = keras.Input(SHAPE), keras.Input((), dtype="int32"), keras.Input((), dtype="int32")
    embedded = keras.layers.Reshape((1, 1, 1))(keras.layers.Embedding(3, 1)(label))
    network = keras.Model([x, t, label], keras.layers.Multiply()([x, embedded]))
    network.num_classes = 2
    model = DDPM(network, schedule, "v", condition_dropout=0.1, seed=0)
    sampler = DDIMSampler(4, spacing="trailing")
    assert np.isfinite(samples(model, ClassifierFreeGuidance(2.0, interval=(0.1, 5.0)), sampler)).all()
    assert np.isfinite(samples(model, ClassifierFreeGuidance(2.0), sampler)).all()


def test_null_condition_of_vectors_is_the_zero_vector():
    x, t, y = keras.Input((3,)), keras.Input(()), keras.Input((3,))
    network = keras.Model([x, t, y], keras.layers.Dense(3)(keras.layers.Concatenate()([x, y])))
    model = ScoreSDE(network, VPSchedule(), condition_dropout=0.5, seed=0)
    y, noise = np.ones((2, 3), "float32"), np.ones((2, 3), "float32")
    options = {"noise": noise, "verbose": 0, "sampler": EulerSampler(3)}
    unguided = model.sample(2, condition=np.zeros((2, 3), "float32"), **options)
    a = model.sample(2, condition=y, guidance=ClassifierFreeGuidance(0.0), **options)
    np.testing.assert_allclose(a, unguided, rtol=1e-5, atol=1e-5)


def test_training_drops_the_share_of_conditions():
    model = class_model(dropout=0.3)
    labels = ops.convert_to_tensor(np.ones(20_000, "int32"))
    dropped = to_numpy(model._drop(labels))
    assert set(dropped.tolist()) == {1, 2}
    assert abs((dropped == 2).mean() - 0.3) < 0.02
    whole = float(model.compute_loss(ops.zeros((500, *SHAPE)), labels[:500], training=False))
    assert np.isfinite(whole)


# --- by a classifier ---


class ExactClassifier(keras.layers.Layer):
    """log p(x_t | class) + const, of the two classes; `gain` is a weight, to be changed."""

    def __init__(self, schedule, level=None, **kwargs):
        super().__init__(**kwargs)
        self.schedule, self.level = schedule, level

    def build(self, *shapes):
        self.gain = self.add_weight(name="gain", initializer="ones")

    def call(self, x, t=None):
        if t is None:  # a classifier of one noise level
            alpha, sigma = self.level
        else:
            t = t if hasattr(self.schedule, "num_steps") else t / 1000
            alpha, sigma = (ops.reshape(f(t), (-1, 1)) for f in (self.schedule.alpha, self.schedule.sigma))
        means = ops.convert_to_tensor(MEANS, "float32")
        offset = ops.reshape(x, (-1, int(np.prod(SHAPE)), 1)) - ops.expand_dims(alpha * means, -2)
        variance = alpha**2 * STD**2 + sigma**2
        return -0.5 * self.gain * ops.sum(offset**2, axis=1) / variance


def unlabelled(schedule):
    """A model of the data of both classes together, as one network of [x_t, t]."""
    return exact_model(schedule, Mixture([0.5, 0.5], MEANS, [STD, STD]), "epsilon", SHAPE)


def classifier_with_time(schedule):
    x, t = keras.Input(SHAPE), keras.Input((), dtype="int32" if hasattr(schedule, "num_steps") else "float32")
    return keras.Model([x, t], ExactClassifier(schedule)(x, t))


@pytest.mark.parametrize("schedule", [VPSchedule(), LinearSchedule(1000)], ids=["continuous", "discrete"])
def test_classifier_guidance_is_the_closed_form(schedule):
    """eps_hat - w sigma grad log p(y | x_t), followed by Euler's method in NumPy."""
    w, data = 1.5, unlabelled(schedule).network.mixture
    sampler = EulerSampler(8)
    times = sampler.times(schedule)
    alpha, sigma = schedule.alpha(times), schedule.sigma(times)
    x, mean = NOISE.astype("float64"), MEANS[LABELS].reshape(-1, 1, 1, 1)
    for i in range(8):
        variance = alpha[i] ** 2 * STD**2 + sigma[i] ** 2
        logits = np.stack([-0.5 * ((x - alpha[i] * m) ** 2).sum((1, 2, 3)) / variance for m in MEANS], -1)
        p = np.exp(logits - logits.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        expected_mean = (p @ MEANS).reshape(-1, 1, 1, 1)
        gradient = alpha[i] / variance * (mean - expected_mean)
        eps = data.predict(x, alpha[i], sigma[i])[1] - w * sigma[i] * gradient
        x = alpha[i + 1] * (x - sigma[i] * eps) / alpha[i] + sigma[i + 1] * eps
    guidance = ClassifierGuidance(classifier_with_time(schedule), w)
    np.testing.assert_allclose(samples(unlabelled(schedule), guidance, sampler), x, rtol=1e-3, atol=1e-3)


def test_changed_weights_of_the_classifier_are_seen_by_the_next_call():
    schedule = VPSchedule()
    model, classifier = unlabelled(schedule), classifier_with_time(schedule)
    guidance = ClassifierGuidance(classifier, 2.0)
    first = samples(model, guidance)
    assert len(model.programs.by_key) == 1
    classifier.weights[0].assign(0.0)
    np.testing.assert_allclose(samples(model, guidance), samples(model, None, condition=None), rtol=1e-5, atol=1e-5)
    assert len(model.programs.by_key) == 2  # one for guidance, whatever its weights, and one without
    assert np.abs(samples(model, guidance) - first).max() > 0.05
    classifier.weights[0].assign(1.0)
    np.testing.assert_allclose(samples(model, guidance), first, rtol=1e-5, atol=1e-5)


def test_two_classifiers_are_two_guidances():
    schedule = VPSchedule()
    model = unlabelled(schedule)
    first, second = classifier_with_time(schedule), classifier_with_time(schedule)
    second.weights[0].assign(0.0)
    a, b = (samples(model, ClassifierGuidance(classifier)) for classifier in (first, second))
    assert np.abs(a - b).max() > 0.05


def test_a_classifier_may_know_nothing_of_time():
    schedule, sampler = VPSchedule(), DDIMSampler(1)
    model = unlabelled(schedule)
    level = tuple(float(f(1.0)) for f in (schedule.alpha, schedule.sigma))
    x = keras.Input(SHAPE)
    plain = keras.Model(x, ExactClassifier(schedule, level)(x))
    a, b = (samples(model, ClassifierGuidance(one, 2.0), sampler) for one in (plain, classifier_with_time(schedule)))
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_a_conditional_network_can_be_guided_by_a_classifier(model):
    guided = samples(model, ClassifierGuidance(classifier_with_time(VPSchedule()), 2.0))
    toward = (guided - samples(model, None)) * MEANS[LABELS].reshape(-1, 1, 1, 1)
    assert toward.mean() > 0.01


PLAIN = class_model(dropout=0.0)


class Towards(Guidance):
    """x0 is one of many images."""

    def __init__(self, images):
        self.images = images

    def check_model(self, model):
        pass

    def bind(self, model):
        return lambda x_t, row, condition: (0 * x_t + ops.convert_to_tensor(self.images[250]), 0.0)

    def get_config(self):
        return {"images": self.images.tolist()}


def test_guidance_by_large_arrays_is_told_apart():
    """Also by numbers that NumPy leaves out when it prints an array."""
    model, images = exact_model(VPSchedule(), None, "v", SHAPE), np.zeros((500, *SHAPE), "float32")
    for value in (0.25, 0.75):
        images[250] = value
        guidance = Towards(images.copy())
        drawn = model.sample(2, EulerSampler(2), guidance=guidance, seed=0, verbose=0)
        np.testing.assert_allclose(drawn, np.full((2, *SHAPE), value), rtol=1e-5)
        np.testing.assert_allclose(
            model.predict_x0(NOISE, 0.5, guidance=guidance), np.full_like(NOISE, value), rtol=1e-5
        )


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: ClassifierFreeGuidance("2"), "`scale` must be a number"),
        (lambda: ClassifierFreeGuidance(2.0, rescale=1.5), r"`rescale` must be in \[0, 1\]"),
        (lambda: ClassifierFreeGuidance(2.0, interval=(2.0, 1.0)), "`interval` must be None or a pair"),
        (lambda: ClassifierFreeGuidance(2.0, batched=1), "`batched` must be True or False"),
        (lambda: ClassifierGuidance(lambda x: x), "`classifier` must be a keras.Model"),
        (lambda: ClassifierGuidance(classifier_with_time(VPSchedule()), None), "`scale` must be a number"),
        (
            lambda: samples(PLAIN, ClassifierFreeGuidance(2.0)),
            "`guidance` must be used with a model that was trained with",
        ),
        (lambda: samples(PLAIN, 2.0), "`guidance` must be a Guidance or None"),
        (lambda: samples(class_model(), ClassifierFreeGuidance(2.0), condition=None), "`condition` must be given"),
        (
            lambda: samples(class_model(), ClassifierFreeGuidance(2.0), condition=2),
            r"`condition` must be labels in 0 .. 1",
        ),
        (
            lambda: samples(unlabelled(VPSchedule()), ClassifierFreeGuidance(2.0), condition=None),
            "`guidance` must be used with a model that was trained with `condition_dropout`",
        ),
        *[
            (
                lambda condition=condition: samples(
                    unlabelled(VPSchedule()),
                    ClassifierGuidance(classifier_with_time(VPSchedule())),
                    condition=condition,
                ),
                match,
            )
            for condition, match in [
                (None, "`condition` must be given: the classifier's class"),
                (2, "`condition` must be labels in 0 .. 1"),
                (-1, "`condition` must be labels in 0 .. 1"),
                (0.5, r"`condition` must be integer labels of shape \(4,\)"),
                ([0, 1], r"`condition` must be integer labels of shape \(4,\)"),
            ]
        ],
        (
            lambda: samples(
                exact_model(ZeroTerminalSNR(LinearSchedule(20)), None, "v", SHAPE),
                ClassifierGuidance(classifier_with_time(LinearSchedule(20))),
            ),
            "`schedule` must keep some signal",
        ),
        (
            lambda: DDPM(keras.layers.Identity(), LinearSchedule(20), condition_dropout=0.1),
            "`condition_dropout` must be 0",
        ),
        (lambda: class_model(dropout=1.0), r"`condition_dropout` must be in \[0, 1\)"),
    ],
)
def test_bad_input(call, match):
    with pytest.raises(ValueError, match=match):
        call()
