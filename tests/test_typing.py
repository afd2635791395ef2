"""The annotations: mypy checks the package, pyright scripts as its users write them."""

import pathlib
import subprocess
import sys

import pytest

pytestmark = pytest.mark.one_backend

ROOT = pathlib.Path(__file__).resolve().parent.parent


def run(module, *arguments, **options):
    pytest.importorskip(module)
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, **options)


def test_the_package_passes_mypy():
    result = run("mypy")
    assert result.returncode == 0, result.stdout + result.stderr


def test_scripts_of_users_pass_pyright():
    try:
        found = run("pyright", "--version", timeout=120).returncode == 0  # downloads Node.js if there is none
    except subprocess.TimeoutExpired:
        found = False
    if not found:
        pytest.skip("pyright needs Node.js, which cannot be downloaded")
    result = run("pyright", "--pythonpath", sys.executable, "tests/typing")
    assert result.returncode == 0, result.stdout + result.stderr
