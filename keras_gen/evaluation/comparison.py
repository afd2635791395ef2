"""Comparison of models: each trained and sampled with several seeds."""

import csv
import io
import pathlib
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_gen.core.checks import check, check_integer, finite_floats, is_integer
from keras_gen.core.files import replacing
from keras_gen.evaluation.frechet_distance import FrechetDistance
from keras_gen.evaluation.plots import panels_of
from keras_gen.evaluation.precision_recall import PrecisionRecall
from keras_gen.evaluation.sampled import sampled
from keras_gen.export import keras_gen_export

OF_SAMPLES = ("frechet_distance", "precision", "recall")
MEASURES = ("bits_per_dim", *OF_SAMPLES, "seconds", "parameters")


class Comparison:
    """What `compare` has measured: a row for each model, with means and standard deviations over the seeds.

    Attributes:
        runs: a dictionary of values by measure for each pair of a model's name and a seed.
    """

    def __init__(self, runs: Mapping[tuple[str, int], dict[str, float]]):
        self.runs = dict(runs)

    @property
    def models(self) -> list[str]:
        """The names of the models, in the order in which they were given."""
        return list(dict.fromkeys(name for name, _ in self.runs))

    def values(self, model: str, measure: str) -> np.ndarray:
        """Returns the values of a measure, one for each seed; NaN where the model has none, or has diverged."""
        return np.array([run[measure] for (name, _), run in self.runs.items() if name == model])

    def mean(self, model: str, measure: str) -> float:
        """Returns the mean over the seeds."""
        return float(np.mean(self.values(model, measure)))

    def deviation(self, model: str, measure: str) -> float:
        """Returns the standard deviation over the seeds, NaN for a single one."""
        values = self.values(model, measure)
        return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")

    def __str__(self) -> str:
        """Returns a table in Markdown, `mean ± deviation`."""
        lines = [["model", *MEASURES], ["---"] * (1 + len(MEASURES))]
        lines += [[name, *(self._cell(name, measure) for measure in MEASURES)] for name in self.models]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def save_csv(self, filepath: str | pathlib.Path) -> None:
        """Writes one line for each model and seed."""
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(["model", "seed", *MEASURES])
        writer.writerows([name, seed, *(run[m] for m in MEASURES)] for (name, seed), run in self.runs.items())
        with replacing(pathlib.Path(filepath)) as file:
            file.write(text.getvalue().encode())

    def figure(self) -> Any:
        """Returns a `matplotlib.figure.Figure`: a panel for each measure, with a bar and the runs of each model."""
        shown = [m for m in MEASURES if any(np.isfinite(self.values(name, m)).any() for name in self.models)]
        figure, panels = panels_of(1, len(shown), 2.4, 3)
        for axes, measure in zip(panels, shown, strict=True):
            axes.bar(self.models, [self.mean(name, measure) for name in self.models], color="lightgray")
            for name in self.models:
                values = self.values(name, measure)
                axes.plot([name] * len(values), values, "k.", markersize=4)
            axes.set_title(measure.replace("_", " "))
            axes.tick_params(axis="x", rotation=45)
        return figure

    def _cell(self, model: str, measure: str) -> str:
        mean, deviation = self.mean(model, measure), self.deviation(model, measure)
        if measure == "parameters":
            return f"{mean:,.0f}"
        if np.isnan(mean):
            return "-"
        return f"{mean:.3g}" if np.isnan(deviation) else f"{mean:.3g} ± {deviation:.1g}"


@keras_gen_export("keras_gen.metrics.compare")
def compare(
    models: Mapping[str, Callable[[int], keras.Model]],
    x: Any,
    x_test: Any,
    seeds: Sequence[int] = (0, 1, 2),
    n: int = 1000,
    feature_model: keras.Layer | None = None,
    fit: Mapping[str, Any] | None = None,
    sample: Mapping[str, Mapping[str, Any]] | None = None,
) -> Comparison:
    """Trains several models with several seeds, and measures what they have learned.

        bits_per_dim       mean over `x_test` of `model.bits_per_dim`, lower is better; NaN for a model without
        frechet_distance   of n samples to `x_test`, in the space of the features, lower is better
        precision, recall  of n samples against as many rows of `x_test`, higher is better
        seconds            of `fit`; NaN for a model that was trained before
        parameters         number of weights

    A model that has diverged, whose samples are not finite, causes a warning, and its other values are NaN.

    Args:
        models: functions by the models' names; `make(seed)` returns a compiled model, which is trained here, or one
            that is trained already: then nothing but its samples differs between the seeds.
        x: training data `(n_train, ...)`.
        x_test: data `(n_test, ...)` that were not trained on.
        seeds: ints >= 0. Seeds of weights, training and samples. Defaults to `(0, 1, 2)`.
        n: int >= 10. Number of samples of each model, at most `n_test`. Defaults to `1000`.
        feature_model: a Keras layer or model from data to features, or `None`, the data themselves. Defaults to `None`.
        fit: arguments of `fit`, such as `epochs`. Defaults to `None`, Keras's own.
        sample: arguments of `sample`, such as a sampler, by the model's name. Defaults to `None`.

    Returns:
        A `Comparison`: printed it is a table, `save_csv(filepath)` writes the runs, `figure()` draws them.

    Raises:
        ValueError: if an argument is outside its range, or data are not finite floats.

    Example:

    >>> result = keras_gen.metrics.compare({"vae": make_vae, "flow": make_flow}, images, test, fit={"epochs": 20})
    >>> print(result)

    Reference: Theis et al. 2015, arXiv:1511.01844, on why one measure is not enough.
    """
    check(isinstance(models, Mapping) and len(models) > 0, "models", "be functions by name, at least one", models)
    for make in models.values():  # a model is callable, too
        is_function = callable(make) and not isinstance(make, keras.Model)
        check(is_function, "models", "be functions from a seed to a compiled model", make)
    is_list = isinstance(seeds, Sequence) and len(seeds) > 0 and all(is_integer(seed) and seed >= 0 for seed in seeds)
    check(is_list and len(set(seeds)) == len(seeds), "seeds", "be different integers >= 0", repr(seeds))
    for option, value in {"fit": fit, "sample": sample}.items():
        check(value is None or isinstance(value, Mapping), option, "be a dictionary or None", repr(value))
    x, x_test = finite_floats("x", x), finite_floats("x_test", x_test)
    check_integer("n", n, at_least=10)
    check(n <= len(x_test), "n", f"be at most the number of test data, {len(x_test)}", n)
    unknown = (sample or {}).keys() - models.keys()
    check(not unknown, "sample", "hold names of models", sorted(unknown))
    measure = _Measure(x_test, n, feature_model)
    runs = {}
    for name, make in models.items():
        for seed in seeds:
            keras.utils.set_random_seed(int(seed))
            model = make(seed)
            seconds = _train(model, x, fit or {})
            options = {"seed": seed, "verbose": 0, **(sample or {}).get(name, {})}
            measured = _measured(f"{name!r} with seed {seed}", model, measure, n, options)
            runs[name, seed] = {**measured, "seconds": seconds, "parameters": model.count_params()}
    return Comparison(runs)


def _measured(
    run: str, model: keras.Model, measure: "_Measure", n: int, options: Mapping[str, Any]
) -> dict[str, float]:
    """Returns what the samples of a model give, or warns that a run has diverged, and returns NaN."""
    samples, finite = sampled(model, n, **options)
    if samples is not None and finite.all():
        return measure(model, samples)
    received = f"{(~finite).sum()} of {n} samples are not finite"
    warnings.warn(f"compare measures nothing of {run}: {received}", stacklevel=3)
    return dict.fromkeys(("bits_per_dim", *OF_SAMPLES), float("nan"))


def _train(model: keras.Model, x: np.ndarray, options: Mapping[str, Any]) -> float:
    if getattr(model, "optimizer", None) is None or int(model.optimizer.iterations) > 0:
        return float("nan")
    start = time.perf_counter()
    model.fit(x, **{"verbose": 0, **options})
    return time.perf_counter() - start


class _Measure:
    """Measures models against test data, whose features are computed once, as are those of each model's samples."""

    def __init__(self, x_test: np.ndarray, n: int, feature_model: keras.Layer | None):
        self.x_test = x_test
        self.distance, self.balls = FrechetDistance(feature_model), PrecisionRecall(feature_model)
        features = self.distance.features("real", x_test)
        self.distance.collect("real", features)
        self.balls.collect("real", features[:n])

    def __call__(self, model: Any, samples: np.ndarray) -> dict[str, float]:
        features = self.distance.features("generated", samples)
        for metric in (self.distance, self.balls):
            metric.reset_generated()
            metric.collect("generated", features)
        distance: Any = self.distance.result()
        balls: Any = self.balls.result()
        bits = float(np.mean(model.bits_per_dim(self.x_test))) if hasattr(model, "bits_per_dim") else float("nan")
        return {
            "bits_per_dim": bits,
            "frechet_distance": float(distance),
            **{name: float(value) for name, value in balls.items()},
        }
