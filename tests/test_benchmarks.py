"""The benchmarks' choice of device and mode, and what their tables say; no row is run."""

import ast
import json
import os
import pathlib
import sys

import pytest
from offenders import not_refused

sys.path.append(str(pathlib.Path(__file__).parents[1]))  # the benchmarks are no part of what is installed

from benchmarks import devices, environment, example_times, rows, table
from benchmarks.rows import MODES, ROWS

FOLDER = pathlib.Path(rows.__file__).parent
pytestmark = pytest.mark.one_backend


def test_device_is_the_one_that_is_there(monkeypatch):
    torch = pytest.importorskip("torch")
    for there, name in ((True, "gpu"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert devices.default() == name
    assert devices.chosen("cpu").name == "cpu"
    refused = [
        ("not there", lambda: devices.chosen("gpu"), r"`device` must be one that .* see; .*Received: device='gpu'"),
        ("unknown", lambda: devices.chosen("tpu"), r"`device` must be one of 'cpu', 'gpu'. Received: device='tpu'"),
    ]
    assert not_refused(refused) == []


def test_modes_of_rows():
    step, lookup = ROWS["unet_step"], ROWS["vq_lookup"]
    assert step.modes_on("cpu") == ("float32",)
    assert step.modes_on("gpu") == tuple(MODES)
    assert step.modes_on("cpu", "bfloat16") == ("bfloat16",)
    assert lookup.modes_on("gpu") == ("float32",)
    assert lookup.modes_on("gpu", "bfloat16") == ()


def test_rows_are_functions_and_marks_are_of_their_modes_and_peers():
    offenders = []
    for name, row in ROWS.items():
        tree = ast.parse((FOLDER / f"{row.module}.py").read_text(encoding="utf-8"))
        found = [part for part in tree.body if isinstance(part, ast.FunctionDef) and part.name == name]
        if not found or [argument.arg for argument in found[0].args.args] != ["quick", "setting"]:
            offenders.append(f"{name} is no function of quick and setting in {row.module}.py")
        peers = {mark.peer for marks in row.gpu_marks.values() for mark in marks}
        if not (peers | set(row.marks) <= set(row.peers) and set(row.gpu_marks) <= set(row.modes)):
            offenders.append(f"{name} has marks of a peer or a mode that it has not")
    assert offenders == []


def test_table_of_a_gpu_judges_each_backend():
    shared = {"name": "dit_train", "mode": "bfloat16-compiled", "case": "a case", "agree": True, "differences": {}}
    counted = {"operations": 4e12, "product_rate": 100e12}
    results = [
        {**shared, **counted, "backend": backend, "times": {"ours": [ours] * 3, "diffusers": [0.1] * 3}}
        for backend, ours in (("torch", 0.2), ("jax", 0.08))
    ]
    line = table.times(results, "gpu").splitlines()[2]
    assert "| 80 ms, **0.80** (0.80 .. 0.80), MFU 50% | 200 ms, **2.00** (2.00 .. 2.00), MFU 20% |" in line
    for mark in ("JAX: 0.9 of diffusers met", "JAX: MFU 44% met", "PyTorch: 1.1 of diffusers missed"):
        assert mark in line
    assert "mark" not in line.split("|")[3]
    assert devices.as_array((1, [2.0]))[1][0] == 2.0


EXAMPLE = """
import keras
import numpy as np

model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
history = model.fit(np.zeros((4, 2)), np.zeros((4, 1)), epochs={epochs}, verbose=0)
assert len(history.epoch) == 3
"""


@pytest.fixture
def examples(monkeypatch, tmp_path):
    """A folder of examples, in place of ours, which this process measures."""
    monkeypatch.setattr(example_times, "EXAMPLES", tmp_path)
    monkeypatch.setattr(environment.os, "execv", lambda *_: None)  # else it begins anew in one thread
    monkeypatch.setattr(environment.os, "environ", dict(os.environ))
    monkeypatch.setattr(environment, "limit_torch", lambda threads: None)
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_time_of_an_example_counts_the_epochs_that_are_left_out(monkeypatch, examples, capsys):
    keras = pytest.importorskip("keras")
    monkeypatch.setattr(example_times, "SECONDS", 0.0)
    monkeypatch.setattr(keras.Model, "fit", keras.Model.fit)  # restores it
    results = {}
    for epochs in (3, 1000):
        (examples / f"of_{epochs}.py").write_text(EXAMPLE.format(epochs=epochs), encoding="utf-8")
        example_times.measure(f"of_{epochs}", keras.backend.backend(), whole=False)
        os.chdir(examples)
        results[epochs] = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert results[3]["left_out"] == 0
    assert results[1000]["left_out"] > 0
    assert example_times.cell({"measured": 299.0, "left_out": 2.0, "whole": False}) == "**301**"


def test_times_of_examples(monkeypatch, examples, capsys):
    """An example runs in a folder of its own, and the table keeps the cells of the others."""
    (examples / "draw.py").write_text("if __name__ == '__main__':\n    open('picture.png', 'w').close()\n")
    (examples / "page.md").write_text("before\n<!-- times -->\n<!-- /times -->\nafter\n")
    monkeypatch.setattr(example_times, "PAGE", examples / "page.md")
    monkeypatch.setattr(example_times, "names", lambda: ["draw", "paint"])
    example_times.measure("draw", "torch", whole=True)
    result = json.loads(capsys.readouterr().out)
    assert (result["name"], result["backend"], result["left_out"]) == ("draw", "torch", 0)
    assert result["measured"] > 0
    assert not (examples / "picture.png").exists()

    example_times.write_table({("paint", "jax"): "12"})
    example_times.write_table(example_times.read_table() | {("draw", "torch"): "**301**"})
    lines = (examples / "page.md").read_text().splitlines()
    assert lines[4:6] == ["| `draw.py` |  |  | **301** |", "| `paint.py` |  | 12 |  |"]
    assert (lines[0], lines[-1]) == ("before", "after")
