"""What the examples share: arguments of their command lines are refused before any work, damaged models by name."""

import argparse
import ast
import pathlib
import re
import sys

import keras
import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "examples"))
from shared import as_seed, load_model, loaded_or_trained, mean_and_error, parser, side_by_side

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"
pytestmark = pytest.mark.one_backend


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("--batch-size", "0", "argument --batch-size: must be an integer >= 1. Received: 0"),
        ("--epochs", "0", "argument --epochs: must be an integer >= 1. Received: 0"),
        ("--size", "0", "argument --size: must be an integer >= 1. Received: 0"),
        ("--size", "2.5", "argument --size: must be an integer >= 1. Received: 2.5"),
        ("--seed", "-1", r"argument --seed: must be an integer in 0 .. 2\*\*31 - 1. Received: -1"),
        ("--seed", str(2**32), f"argument --seed: must be an integer.*Received: {2**32}"),
        ("--seed", "one", "argument --seed: must be an integer.*Received: one"),
    ],
)
def test_refused(argument, value, message, capsys):
    with pytest.raises(SystemExit):
        parser("", "name", epochs=3).parse_args([argument, value])
    assert re.search(message, capsys.readouterr().err)


def test_accepted():
    arguments = parser("", "name", epochs=3).parse_args(["--seed", "0", "--batch-size", "1"])
    assert (arguments.seed, arguments.batch_size, arguments.epochs) == (0, 1, 3)
    assert as_seed(str(2**31 - 1)) == 2**31 - 1
    with pytest.raises(argparse.ArgumentTypeError):
        as_seed(str(2**31))


def test_a_grid_of_two_columns_shows_pairs():
    a, b = (np.full((3, 2, 2, 1), value) + np.arange(3).reshape(3, 1, 1, 1) for value in (0, 10))
    assert side_by_side(a, b)[:, 0, 0, 0].tolist() == [0, 10, 1, 11, 2, 12]


def test_the_error_is_that_of_the_mean():
    assert mean_and_error(np.tile([1.0, 3.0], 50)) == "2.00 +- 0.10"


def test_a_model_of_an_earlier_run_is_not_trained_again(tmp_path):
    path, model = tmp_path / "model.keras", keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    assert loaded_or_trained(path, lambda: model) is model
    model.save(path)
    loaded = loaded_or_trained(path, lambda: pytest.fail("trained again"))
    assert loaded.output_shape == (None, 1)


def test_no_example_takes_any_integer():
    offenders = []
    for script in sorted(EXAMPLES.glob("*.py")):
        for node in ast.walk(ast.parse(script.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument":
                types = [ast.unparse(keyword.value) for keyword in node.keywords if keyword.arg == "type"]
                if "int" in types:
                    offenders.append(f"{script.name}: {ast.unparse(node)}")
    assert not offenders


def test_a_damaged_model_is_named(tmp_path):
    whole = tmp_path / "whole.keras"
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(whole)
    assert load_model(whole).output_shape == (None, 1)
    content, path = whole.read_bytes(), tmp_path / "damaged.keras"
    places = range(40, len(content), len(content) // 20)
    damaged = [
        content[:100],
        b"",
        b"words",
        *(content[:i] + bytes([content[i] ^ 1]) + content[i + 1 :] for i in places),
    ]
    refused = 0
    for data in damaged:
        path.write_bytes(data)
        try:
            load_model(path)
        except ValueError as error:
            refused += 1
            assert re.match(rf"`model` must be a whole file.*Received: model={path}", str(error))  # noqa: PT017
    assert refused > len(damaged) // 2
