"""Loads each .keras file of a folder in this fresh process and compares its outputs; prints the names that agree."""

import pathlib
import sys

import alone  # noqa: F401 (before Keras)
import keras
import numpy as np

import keras_gen  # noqa: F401 (registers the classes)

for file in sorted(pathlib.Path(sys.argv[1]).glob("*.keras")):
    model = keras.models.load_model(file)
    with np.load(file.with_suffix(".npz")) as saved:
        arrays = dict(saved)
    if "samples" in arrays:
        expected = [arrays.pop("samples")]
        actual = [model.sample(len(expected[0]), seed=3, verbose=0, **arrays)]
    else:
        expected = [arrays.pop(name) for name in list(arrays) if name.startswith("outputs")]
        inputs = [keras.ops.convert_to_tensor(array) for array in arrays.values()]
        outputs = model(inputs if len(inputs) > 1 else inputs[0], training=False)
        actual = [keras.ops.convert_to_numpy(output) for output in keras.tree.flatten(outputs)]
    for a, b in zip(actual, expected, strict=bool(expected)):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5, err_msg=file.stem)
    print(file.stem)
