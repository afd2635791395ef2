import csv

import keras
import numpy as np
import pytest
from offenders import not_refused
from scipy.stats import norm

from keras_gen.evaluation.comparison import MEASURES
from keras_gen.layers import Scale
from keras_gen.metrics import compare
from keras_gen.models import Flow, RealNVP

RNG = np.random.default_rng(0)
X = RNG.normal(size=(256, 4)).astype("float32")
TEST = RNG.normal(size=(64, 4)).astype("float32")


def coupling_flow(seed):
    model = RealNVP(2, [8], seed=seed)
    model.compile(keras.optimizers.Adam(0.01))
    return model


def standard_normal(seed):
    """A flow that is trained already: its density is known."""
    model = Flow(Scale(), seed=seed)
    model.build((None, 4))
    model.compile("sgd")
    model.optimizer.build(model.trainable_variables)
    model.optimizer.iterations.assign(1)
    return model


def test_values_and_table(tmp_path):
    result = compare({"flow": coupling_flow, "normal": standard_normal}, X, TEST, (0, 1), n=50, fit={"epochs": 2})
    assert result.models == ["flow", "normal"]
    bits = -norm.logpdf(TEST).sum(axis=1).mean() / (4 * np.log(2))
    np.testing.assert_allclose(result.values("normal", "bits_per_dim"), bits, rtol=1e-5)
    assert result.deviation("normal", "bits_per_dim") == pytest.approx(0, abs=1e-6)
    assert np.isnan(result.values("normal", "seconds")).all()
    assert (result.values("flow", "seconds") > 0).all()
    flow = result.values("flow", "frechet_distance")
    assert flow[0] != flow[1]
    assert result.mean("flow", "frechet_distance") == pytest.approx(flow.mean())
    assert ((result.values("normal", "precision") > 0.3) & (result.values("normal", "recall") > 0.3)).all()
    assert result.mean("normal", "parameters") == standard_normal(0).count_params()
    lines = str(result).splitlines()
    assert lines[0].startswith("| model | bits_per_dim | frechet_distance | precision | recall | seconds |")
    assert " ± " in lines[2]
    result.save_csv(tmp_path / "runs.csv")
    with open(tmp_path / "runs.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["model"], row["seed"]) for row in rows] == [(m, s) for m in ("flow", "normal") for s in "01"]
    assert float(rows[0]["frechet_distance"]) == flow[0]
    panels = result.figure().axes
    assert [axes.get_title() for axes in panels][:2] == ["bits per dim", "frechet distance"]


def diverged(seed):
    model = standard_normal(seed)
    model.bijector.log_scale.assign(model.bijector.log_scale + float("nan"))
    return model


def test_a_diverged_model_loses_no_other_run():
    runs = {"normal": standard_normal, "broken": diverged, "normal again": standard_normal}
    with pytest.warns(UserWarning, match="compare measures nothing of 'broken' with seed 3: 20 of 20 samples are not"):
        result = compare(runs, X, TEST, (3,), n=20)
    values = {name: [result.mean(name, measure) for measure in MEASURES] for name in result.models}
    np.testing.assert_array_equal(values["normal"], values["normal again"])
    assert np.isnan(values["broken"][:-1]).all()
    assert values["broken"][-1] == values["normal"][-1]
    assert str(result).splitlines()[3] == "| broken | - | - | - | - | - | 4 |"
    assert len(result.figure().axes) == 5


def test_a_seed_gives_the_same_run_again():
    first, second = (compare({"flow": coupling_flow}, X, TEST, (3,), n=20) for _ in range(2))
    assert first.mean("flow", "frechet_distance") == pytest.approx(second.mean("flow", "frechet_distance"), rel=1e-5)
    assert np.isnan(first.deviation("flow", "precision"))


def test_bad_arguments():
    cases = [
        ("models", lambda: compare({"a": coupling_flow(0)}, X, TEST), "`models` must be functions from a seed"),
        ("none", lambda: compare({}, X, TEST), "`models` must be functions by name"),
        ("seeds", lambda: compare({"a": coupling_flow}, X, TEST, ()), "`seeds` must be different integers"),
        (
            "a later seed",
            lambda: compare({"a": coupling_flow}, X, TEST, (0, -1), n=20),
            "`seeds` must be different integers >= 0",
        ),
        ("n", lambda: compare({"a": coupling_flow}, X, TEST, n=100), "`n` must be at most the number of test data, 64"),
        ("few", lambda: compare({"a": coupling_flow}, X, TEST, n=2), "`n` must be an integer >= 10"),
        ("sample", lambda: compare({"a": coupling_flow}, X, TEST, n=20, sample={"b": {}}), "`sample` must hold names"),
        ("data", lambda: compare({"a": coupling_flow}, X * np.nan, TEST, n=20), "`x` must be finite"),
    ]
    assert not not_refused(cases)
