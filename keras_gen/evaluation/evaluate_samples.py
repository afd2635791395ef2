import collections
import warnings
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from keras_gen.core.checks import (
    batch_of,
    check,
    check_integer,
    check_unit_range,
    finite_floats,
    finite_rows,
    image_range,
    same_shape,
)
from keras_gen.core.replicas import sharing
from keras_gen.evaluation.feature_metric import FeatureMetric
from keras_gen.evaluation.sampled import sampled
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.callbacks.EvaluateSamples")
class EvaluateSamples(keras.callbacks.Callback):
    """Callback that compares samples with data after epochs, and writes the values into the logs.

    Put it before the callbacks that read the logs, such as `EarlyStopping`, `ModelCheckpoint`, `CSVLogger` and
    `TensorBoard`: callbacks are called in order. The values are also in the history that `fit` returns. Callbacks that
    monitor a value need to know whether lower (`mode="min"`) or higher (`mode="max"`) is better.

    | metric | names in the logs | better |
    | --- | --- | --- |
    | `FrechetDistance` | `frechet` | lower |
    | `KernelDistance` | `kernel` | lower |
    | `PrecisionRecall` | `precision`, `recall` | higher |
    | `DensityCoverage` | `density`, `coverage` | higher |

    With a feature model, an underscore and its name follow: `frechet_inception_v3`, or `frechet_fid_clean` for the FID
    of `models.FIDInception`. Values of different features cannot be compared. Metrics with the same feature model share
    its output.

    The samples always start from the same noise, so that values differ only because of the weights. If the optimizer
    keeps averages of the weights (`use_ema=True`), the samples are drawn with them. The first epoch of a `fit` is
    always evaluated. In epochs between evaluations the logs repeat the last values, so that `CSVLogger` has its
    columns, and callbacks that keep the best see no improvement; `patience` counts these epochs.

    Samples that are not finite, such as those of a model that has diverged, cause a warning, and the values are the
    worst possible: infinity for distances, otherwise 0.

    Args:
        images: floats `(n, ...)`, data to compare with, scaled like those of `fit`, and preferably not among them.
            Their features are computed here, once.
        metrics: list of metrics of the table above, for this callback alone.
        every: int >= 1. Number of epochs between evaluations. Defaults to `1`.
        n: int >= 2 or `None`. Number of samples. Defaults to `None`, as many as `images`, at which Frechet distance,
            precision and recall are meant to be compared.
        seed: int >= 0. Seed of the samples. Defaults to `0`.
        **options: passed to the model's `sample`, such as `sampler`, `condition` and `batch_size`.

    Raises:
        ValueError: if an argument is outside its range, a metric needs more images or samples or, when training
            begins, `images` or `options` are invalid for the model.

    Example:

    >>> inception = keras.applications.InceptionV3(include_top=False, pooling="avg")  # takes images in [-1, 1]
    >>> features = keras.Sequential([keras.layers.Resizing(299, 299), inception], name="inception_v3")
    >>> metrics = [keras_gen.metrics.FrechetDistance(features), keras_gen.metrics.KernelDistance(features)]
    >>> evaluate = EvaluateSamples(test_images, metrics, every=5, sampler=keras_gen.samplers.DDIMSampler(50))
    >>> best = keras.callbacks.ModelCheckpoint(
    ...     "best.keras", monitor="kernel_inception_v3", mode="min", save_best_only=True
    ... )
    >>> model.fit(images, epochs=100, callbacks=[evaluate, best])
    """

    def __init__(
        self,
        images: Any,
        metrics: Iterable[FeatureMetric],
        every: int = 1,
        n: int | None = None,
        seed: int = 0,
        **options: Any,
    ):
        super().__init__()
        self.metrics = _checked(metrics)
        images = finite_floats("images", images)
        sharing.check_same("images", [images])
        self.data_shape = images.shape[1:]
        self.image_range = image_range("images", images)
        self.every = check_integer("every", every)
        self.n = len(images) if n is None else check_integer("n", n, at_least=2)
        for metric in self.metrics:
            number, words = metric.fewest()
            check(len(images) >= number, "images", f"hold at least {words}, for {metric.name}", len(images))
            check(self.n >= number, "n", f"be at least {words}, for {metric.name}", self.n)
        self.seed = check_integer("seed", seed, at_least=0)
        self.options = {"verbose": 0, **options}
        self.by_features = collections.defaultdict(list)  # metrics whose features are the same
        for metric in self.metrics:
            self.by_features[id(metric.feature_model)].append(metric)
            metric.reset_state()
        for metrics in self.by_features.values():
            features = metrics[0].features("images", images)
            for metric in metrics:
                metric.collect("real", features)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.values: dict[str, float] = {}
        model = self.model
        shape = getattr(model, "data_shape", getattr(model, "image_shape", None))
        if shape is not None:
            rule = f"have shape {batch_of(shape)}, as the samples will have"
            check(same_shape(self.data_shape, shape), "images", rule, f"shape {batch_of(self.data_shape)}")
        if self.image_range is not None and getattr(model, "takes_unit_images", False):
            doubt = check_unit_range("images", *self.image_range)
            if doubt:
                warnings.warn(f"EvaluateSamples: {doubt}", stacklevel=2)
        model.check_sampling(self.n, **self.options)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if not self.values or (epoch + 1) % self.every == 0:
            self.values = self._evaluated(epoch)
        if logs is not None:
            logs.update(self.values)

    def _evaluated(self, epoch: int) -> dict[str, float]:
        samples, finite = sampled(self.model, self.n, seed=self.seed, **self.options)
        groups = () if samples is None else self.by_features.values()
        values: dict[str, float] = {}
        for metrics in groups:
            features = metrics[0].extracted(np.asarray(samples, "float32"))
            finite &= finite_rows(features)
            for metric in metrics if finite.all() else ():
                metric.reset_generated()
                metric.collect("generated", features)
                values |= _named(metric, metric.values())
        if finite.all():
            return values
        received = f"{(~finite).sum()} of {len(finite)} samples, or their features, are not finite"
        warnings.warn(f"EvaluateSamples writes the worst values of epoch {epoch + 1}: {received}", stacklevel=2)
        return {name: value for metric in self.metrics for name, value in _named(metric, metric.worst).items()}


def _checked(metrics: Any) -> list[FeatureMetric]:
    rule = "be a list of metrics such as keras_gen.metrics.FrechetDistance(features)"
    is_list = isinstance(metrics, list | tuple) and len(metrics) > 0
    check(is_list and all(isinstance(metric, FeatureMetric) for metric in metrics), "metrics", rule, metrics)
    names = collections.Counter(name for metric in metrics for name in _named(metric, metric.worst))
    twice = [name for name, count in names.items() if count > 1]
    check(not twice, "metrics", "write different names into the logs (name the feature models)", f"{twice} twice")
    return list(metrics)


def _named(metric: FeatureMetric, values: dict[str, float]) -> dict[str, float]:
    """Returns the values under their names in the logs, which say of which features they are."""
    model = metric.feature_model
    return values if model is None else {f"{name}_{model.name}": value for name, value in values.items()}
