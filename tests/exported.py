"""Files of exported graphs, read in a process that has neither this library nor Keras."""

import subprocess
import sys

import keras
import numpy as np
import pytest

BACKEND = keras.backend.backend()
READERS = {
    "": """
import tensorflow as tf
def reader(path, method):
    loaded = tf.saved_model.load(path)
    return lambda inputs: getattr(loaded, method)(*inputs.values())
""",
    ".stablehlo": """
from jax import export
def reader(path, method):
    exported = export.deserialize(bytearray(open(path, "rb").read()))
    return lambda inputs: exported.call(*inputs.values())
""",
    ".onnx": """
import onnxruntime
def reader(path, method):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, inputs)[0]
""",
}
READ = """
import sys
sys.modules["keras"] = sys.modules["keras_gen"] = None
import numpy as np
{reader}
for path, method in zip(sys.argv[1::2], sys.argv[2::2]):
    run, arrays = reader(path, method), dict(np.load(path + ".inputs.npz"))
    first = {{name: array[:, :1] if name == "step_noise" else array[:1] for name, array in arrays.items()}}
    np.savez(path + ".outputs.npz", whole=run(arrays), one=run(first))
"""
NEEDED = {
    ("tensorflow", ""): (),
    ("tensorflow", ".onnx"): ("onnx", "tf2onnx", "onnxruntime"),
    ("jax", ".stablehlo"): (),
    ("torch", ".onnx"): ("onnx", "onnxscript", "onnxruntime"),
}
FORMATS = [suffix for backend, suffix in NEEDED if backend == BACKEND]


def skip_unless_installed(suffix):
    for module in NEEDED[BACKEND, suffix]:
        pytest.importorskip(module)


def python(code, *arguments, **options):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, **options)
    assert result.returncode == 0, result.stderr[-3000:]


def read_back(files):
    """Yields what each (path, method, inputs) computes, for all rows and for the first one alone."""
    for path, _, inputs in files:
        np.savez(f"{path}.inputs.npz", **inputs)
    code = READ.format(reader=READERS[files[0][0].suffix])
    python(code, *[argument for path, method, _ in files for argument in (path, method)])
    for path, *_ in files:
        with np.load(f"{path}.outputs.npz") as outputs:
            yield outputs["whole"], outputs["one"]
