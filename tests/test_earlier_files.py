"""Files of earlier versions load, and give the numbers that they gave."""

import json
import pathlib
import re
import subprocess
import sys
import zipfile

import pytest

HERE = pathlib.Path(__file__).parent
VERSIONS = sorted(path.name for path in (HERE / "data").iterdir() if path.is_dir())


@pytest.mark.parametrize("first", range(3))
@pytest.mark.parametrize("version", VERSIONS)
def test_files_of_an_earlier_version_give_the_same_numbers(version, first):
    folder = HERE / "data" / version
    command = [sys.executable, HERE / "load_files.py", folder, str(first)]
    loaded = subprocess.run(command, capture_output=True, text=True, check=False)
    assert loaded.returncode == 0, loaded.stdout + loaded.stderr
    configured = json.loads((folder / "configured.json").read_text())
    files = sorted(folder.glob("*.keras"))[first::3]
    assert files
    assert sorted(loaded.stdout.split()) == sorted([*configured, *(file.stem for file in files)])


def test_every_class_of_version_010_is_in_its_files():
    """All but base classes, a callback, and a codec that is made around a model."""
    folder = HERE / "data" / "0.1.0"
    texts = [(folder / "configured.json").read_text()]
    for file in folder.glob("*.keras"):
        with zipfile.ZipFile(file) as archive:
            texts.append(archive.read("config.json").decode())
    keys = {key for text in texts for key in re.findall(r'"registered_name": "keras_gen>(\w+)"', text)}
    assert len(keys) == 115
