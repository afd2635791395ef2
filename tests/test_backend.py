"""A backend that is not installed is named before Keras's own traceback."""

import os
import subprocess
import sys

import pytest


@pytest.mark.one_backend
@pytest.mark.parametrize("backend", ["jax", "tensorflow", "torch"])
def test_a_missing_backend_is_named(backend):
    program = f"import sys; sys.modules[{backend!r}] = None; import keras_gen"
    result = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert f"ModuleNotFoundError: Keras is set to {backend}, which is not installed" in result.stderr
