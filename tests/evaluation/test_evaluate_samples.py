"""Evaluation during training: values, their names, what other callbacks make of them, and what is refused."""

import csv
import math

import keras
import numpy as np
import pytest
from laws import tiny_network

from keras_gen.callbacks import EvaluateSamples, SampleGrid
from keras_gen.core.fixtures import to_numpy
from keras_gen.metrics import CodeUsage, DensityCoverage, FrechetDistance, KernelDistance, PrecisionRecall
from keras_gen.models import DDPM, RealNVP
from keras_gen.samplers import DDIMSampler
from keras_gen.schedules import LinearSchedule

X = np.random.default_rng(0).normal(3, 0.5, (64, 4)).astype("float32")
ALL = (FrechetDistance, KernelDistance, PrecisionRecall, DensityCoverage)


def flow(**options):
    keras.utils.set_random_seed(1)
    model = RealNVP(2, [8], seed=0)
    model.compile(keras.optimizers.Adam(0.03, **options))
    model.build((None, 4))
    return model


def fit(model, callbacks, epochs=1, **options):
    history = model.fit(X, batch_size=16, epochs=epochs, shuffle=False, verbose=0, callbacks=callbacks, **options)
    return history.history


def value(kind, model, n=64, **options):
    metric = kind(None)
    metric.update_state(X, model.sample(n, seed=0, verbose=0, **options))
    return metric.result()


def test_the_logs_hold_the_values_of_each_metric():
    model, features = flow(), keras.layers.Dense(3, name="dense_features")
    evaluate = EvaluateSamples(X, [*(kind(None) for kind in ALL), *(kind(features) for kind in ALL)], n=50)
    logs = fit(model, [evaluate])
    raw = ["frechet", "kernel", "precision", "recall", "density", "coverage"]
    assert logs.keys() == {"loss", "nll", "bits_per_dim", *raw, *(f"{name}_dense_features" for name in raw)}
    assert logs["frechet"] == [pytest.approx(value(FrechetDistance, model, 50), rel=1e-6)]
    assert logs["kernel"] == [pytest.approx(value(KernelDistance, model, 50), rel=1e-6)]
    shares = value(PrecisionRecall, model, 50) | value(DensityCoverage, model, 50)
    assert {name: logs[name][0] for name in shares} == pytest.approx(shares)
    metric = FrechetDistance(features)
    metric.update_state(X, model.sample(50, seed=0, verbose=0))
    assert logs["frechet_dense_features"] == [pytest.approx(metric.result(), rel=1e-5)]


def test_epochs_between_hold_the_last_values():
    model, seen = flow(), []
    after = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append((logs["kernel"], value(KernelDistance, model)))
    )
    fit(model, [EvaluateSamples(X, [KernelDistance(None)], every=3), after], epochs=6)
    logged, true = np.array(seen).T
    np.testing.assert_allclose(logged, true[[0, 0, 2, 2, 2, 5]], rtol=1e-5)
    assert len(set(true)) == 6
    evaluate = EvaluateSamples(X, [KernelDistance(None)], every=100)
    first = fit(model, [evaluate], epochs=2)["kernel"]
    again = fit(model, [evaluate], epochs=2)["kernel"]  # another `fit` begins with values of its own
    assert first[0] == first[1] != again[0] == again[1]


def test_callbacks_after_it_see_the_values(tmp_path):
    # Of 10 epochs the steps grow until the model is worse again.
    rates = keras.callbacks.LearningRateScheduler(lambda epoch: 0.03 if epoch < 6 else 0.3)
    evaluate = EvaluateSamples(X, [KernelDistance(None)])
    best = keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", "kernel", mode="min", save_best_only=True)
    table = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    stop = keras.callbacks.EarlyStopping("kernel", mode="min", patience=2)
    model = flow()
    curve = fit(model, [rates, evaluate, best, table, stop], epochs=12)["kernel"]
    with open(tmp_path / "log.csv") as file:
        written = [float(row["kernel"]) for row in csv.DictReader(file)]
    np.testing.assert_allclose(written, curve, rtol=1e-9)
    assert min(curve) < 0.1 * curve[0]
    assert int(np.argmin(curve)) == len(curve) - 3  # two more, and training was stopped
    loaded = keras.models.load_model(tmp_path / "best.keras")
    assert value(KernelDistance, loaded) == pytest.approx(min(curve), rel=1e-4, abs=1e-6)
    assert value(KernelDistance, model) > 2 * min(curve)


def test_samples_are_drawn_with_the_averages_and_leave_training_alone():
    model, alone = (flow(use_ema=True, ema_momentum=0.5) for _ in range(2))
    logs = fit(model, [EvaluateSamples(X, [FrechetDistance(None)])], epochs=2)
    assert logs["frechet"][-1] == pytest.approx(value(FrechetDistance, model), rel=1e-5)
    fit(alone, [], epochs=2)
    for a, b in zip(model.weights, alone.weights, strict=True):
        np.testing.assert_array_equal(to_numpy(a), to_numpy(b))


def test_metrics_with_the_same_features_compute_them_once():
    class Counted(keras.layers.Layer):
        rows = 0

        def call(self, x):
            Counted.rows += x.shape[0]
            return x

    features = Counted(name="counted")
    features.build(X.shape)
    evaluate = EvaluateSamples(X, [kind(features, batch_size=64) for kind in ALL], n=32)
    evaluate.set_model(flow())
    compiled_once = keras.backend.backend() != "torch"  # where it counts traces: one for each size
    assert Counted.rows == 64
    for _ in range(2):
        evaluate.on_train_begin()
        evaluate.on_epoch_end(0, {})
    assert Counted.rows == 64 + 32 * (1 if compiled_once else 2)


def ddpm():
    model = DDPM(tiny_network(2), LinearSchedule(10), seed=0)
    model.compile("adam")
    return model


@pytest.mark.one_backend  # the large network takes a GB
def test_options_reach_the_sampler_and_inception_gives_features():
    images = np.random.default_rng(0).uniform(-1, 1, (4, 8, 8, 1)).astype("float32")
    labels = np.array([0, 1, 0, 1])
    x = keras.Input((8, 8, 1))
    colored = keras.layers.Concatenate()([x, x, x])
    inception = keras.applications.InceptionV3(include_top=False, pooling="avg", weights=None)
    outputs = inception(keras.layers.Resizing(75, 75)(colored))
    features = keras.Model(x, outputs, name="inception_v3")
    model, sampler = ddpm(), DDIMSampler(2)
    metrics = [FrechetDistance(None), KernelDistance(features)]
    evaluate = EvaluateSamples(images, metrics, sampler=sampler, condition=labels, seed=5)
    logs = model.fit(images, labels, verbose=0, callbacks=[evaluate]).history
    metric = FrechetDistance(None)
    metric.update_state(images, model.sample(4, sampler=sampler, condition=labels, seed=5, verbose=0))
    assert logs["frechet"] == [pytest.approx(metric.result(), rel=1e-5)]
    assert np.isfinite(logs["kernel_inception_v3"][0])
    assert features.output_shape == (None, 2048)


class Diverged(keras.Model):
    def check_sampling(self, n, **options):
        pass

    def sample(self, n, **options):
        x = X[:n].copy()
        x[:3, 0] = np.nan
        return x


@pytest.mark.one_backend
@pytest.mark.parametrize("features", [None, "squares"])
def test_samples_that_are_not_finite_have_the_worst_values(features):
    class Squares(keras.layers.Layer):
        def call(self, x):
            return x**2

    model = Diverged()
    evaluate = EvaluateSamples(X, [kind(features and Squares(name=features)) for kind in ALL])
    evaluate.set_model(model)
    evaluate.on_train_begin()
    logs = {}
    with pytest.warns(UserWarning, match="worst values of epoch 3: 3 of 64 samples, or their features, are not finite"):
        evaluate.on_epoch_end(2, logs)
    names = ["frechet", "kernel", "precision", "recall", "density", "coverage"]
    expected = [math.inf, math.inf, 0, 0, 0, 0]
    assert logs == dict(zip([name if features is None else f"{name}_squares" for name in names], expected, strict=True))
    model.sample = lambda n, **options: X[:n]
    evaluate.on_epoch_end(3, logs)
    assert all(np.isfinite(list(logs.values())))


def test_a_run_that_diverges_goes_on_with_warnings(tmp_path):
    """Although the model itself refuses to return such samples."""
    images = np.random.default_rng(0).uniform(-1, 1, (8, 8, 8, 1)).astype("float32")
    model, sampler = DDPM(tiny_network(), LinearSchedule(5)), DDIMSampler(2)
    model.compile(keras.optimizers.SGD(1e30))
    evaluate = EvaluateSamples(images, [FrechetDistance(None), PrecisionRecall(None)], sampler=sampler)
    grid = SampleGrid(tmp_path / "{epoch}.png", n=2, sampler=sampler)
    with pytest.warns(UserWarning, match="worst values of epoch 2: 8 of 8 samples") as caught:
        logs = model.fit(images, epochs=2, verbose=0, callbacks=[evaluate, grid]).history
    messages = [str(warning.message) for warning in caught]
    assert any("no picture of epoch 2: 2 of 2 samples are not finite" in message for message in messages)
    assert (logs["frechet"][-1], logs["precision"][-1], logs["recall"][-1]) == (math.inf, 0, 0)
    assert not (tmp_path / "2.png").exists()


@pytest.mark.one_backend
def test_samples_whose_features_overflow_have_the_worst_values():
    class Exponential(keras.layers.Layer):
        def call(self, x):
            return keras.ops.exp(x)

    model = Diverged()
    evaluate = EvaluateSamples(X, [KernelDistance(Exponential(name="exp")), FrechetDistance(None)])
    evaluate.set_model(model)
    evaluate.on_train_begin()
    model.sample = lambda n, **options: 100 * X[:n]
    logs = {}
    with pytest.warns(UserWarning, match="64 of 64 samples, or their features"):
        evaluate.on_epoch_end(0, logs)
    assert logs == {"kernel_exp": math.inf, "frechet": math.inf}


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda m: EvaluateSamples(X, []), "`metrics` must be a list of metrics such as .*Received: metrics=\\[\\]"),
        (lambda m: EvaluateSamples(X, m), "`metrics` must be a list of metrics such as"),
        (lambda m: EvaluateSamples(X, [FrechetDistance]), "`metrics` must be a list of metrics such as"),
        (lambda m: EvaluateSamples(X, ["frechet"]), "`metrics` must be a list of metrics such as"),
        (lambda m: EvaluateSamples(X, [CodeUsage(3)]), "`metrics` must be a list of metrics such as"),
        (lambda m: EvaluateSamples(X, [m, PrecisionRecall(None, 7)]), "different names .*precision.* twice"),
        (lambda m: EvaluateSamples(X, [m], n=1), "`n` must be an integer >= 2. Received: n=1"),
        (lambda m: EvaluateSamples(X, [m], n=3), r"`n` must be at least k \+ 1 = 4, for precision_recall.*n=3"),
        (lambda m: EvaluateSamples(X[:3], [m], n=9), r"`images` must hold at least k \+ 1 = 4, for precision_recall"),
        (lambda m: EvaluateSamples(X[:0], [m]), "`images` must hold at least one sample"),
        (lambda m: EvaluateSamples(X.astype("uint8"), [m]), "`images` must be floating-point"),
        (lambda m: EvaluateSamples(X * np.nan, [m]), "`images` must be finite"),
        (lambda m: EvaluateSamples(X, [m], every=0), "`every` must be an integer >= 1"),
        (lambda m: EvaluateSamples(X, [m], seed=-1), "`seed` must be an integer >= 0"),
        (lambda m: EvaluateSamples(X, [KernelDistance(None, 65)]), "`images` must hold at least subset_size = 65"),
    ],
)
def test_bad_input(call, match):
    with pytest.raises(ValueError, match=match):
        call(PrecisionRecall(None, name="precision_recall"))


def test_images_and_options_are_checked_before_training():
    images, labels = np.zeros((6, 8, 8, 1), "float32"), np.zeros(6, "int32")
    model = ddpm()
    for shape, options, match in (
        ((6, 4, 4, 1), {"condition": 0}, r"`images` must have shape \(n, 8, 8, 1\), as the samples will have"),
        ((6, 8, 8, 1), {}, "`condition` must be given"),
        ((6, 8, 8, 1), {"condition": 0, "sampler": "ddim"}, "`sampler` must be a DiffusionSampler"),
    ):
        evaluate = EvaluateSamples(np.zeros(shape, "float32"), [FrechetDistance(None)], **options)
        with pytest.raises(ValueError, match=match):
            model.fit(images, labels, verbose=0, callbacks=[evaluate])
    pixels = np.full((6, 8, 8, 1), 255.0, "float32")
    evaluate = EvaluateSamples(pixels, [FrechetDistance(None)], condition=0)
    with pytest.raises(ValueError, match=r"`images` must be images in \[-1, 1\].* give `images / 127.5 - 1`"):
        model.fit(images, labels, verbose=0, callbacks=[evaluate])
    assert int(to_numpy(model.optimizer.iterations)) == 0
