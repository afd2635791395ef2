"""What the README shows must run, and what it names must exist."""

import os
import pathlib
import re
import subprocess
import sys

import keras
import pytest

from keras_gen.export import NAMESPACES, exported

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
# What the blocks after the first take from it: the imports and the data.
SHARED = BLOCKS[0].partition("network =")[0]


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_python_block_runs(number, tmp_path):
    script = BLOCKS[number] if number == 0 else SHARED + BLOCKS[number]
    (tmp_path / "readme.py").write_text(script.replace('"jax"', repr(keras.backend.backend())))
    # Keras reads these two and cuts every `fit` short.
    environment = {**os.environ, "KERAS_MAX_EPOCHS": "1", "KERAS_MAX_STEPS_PER_EPOCH": "2"}
    result = subprocess.run(
        [sys.executable, "readme.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert {file.suffix for file in tmp_path.iterdir()} == ({".py", ".png", ".keras"} if number == 0 else {".py"})


def test_names_and_files_exist():
    for name in set(re.findall(rf"`((?:{'|'.join(NAMESPACES)})\.\w+)`", README)):
        assert f"keras_gen.{name}" in exported(), name
    for path in set(re.findall(r"\]\(([\w./]+)\)", README)) | set(
        re.findall(r"`((?:examples|keras_gen)/[\w/.]+)`", README)
    ):
        assert (ROOT / path).exists(), path


def test_every_example_is_in_the_table():
    scripts = [file for file in (ROOT / "examples").glob("*.py") if "\nif __name__" in file.read_text()]
    assert scripts
    for script in scripts:
        assert f"examples/{script.name}" in README
        assert "kexue.fm" in script.read_text().splitlines()[0]
