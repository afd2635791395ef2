"""Files of earlier versions load, and give the numbers that they gave."""

import json
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent
VERSIONS = sorted(path.name for path in (HERE / "data").iterdir() if path.is_dir())


@pytest.mark.parametrize("version", VERSIONS)
def test_files_of_an_earlier_version_give_the_same_numbers(version):
    folder = HERE / "data" / version
    loaded = subprocess.run([sys.executable, HERE / "load_files.py", folder], capture_output=True, text=True)
    assert loaded.returncode == 0, loaded.stdout + loaded.stderr
    configured = json.loads((folder / "configured.json").read_text())
    assert sorted(loaded.stdout.split()) == sorted([*configured, *(path.stem for path in folder.glob("*.keras"))])
