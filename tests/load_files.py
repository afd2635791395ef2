"""Loads .keras files of a folder in this fresh process and compares their outputs; prints the names that agree.

`python load_files.py FOLDER [FIRST]`: all of them, or every third from the one numbered FIRST. Objects without weights
are in `configured.json`: each must keep the arguments that the file gives it.
"""

import json
import pathlib
import sys

import alone  # noqa: F401 (before Keras)
import keras
import numpy as np

import keras_gen  # noqa: F401 (registers the classes)


def check_kept(saved, now, name):
    """Fails unless `now` has all that was saved; later versions may add arguments."""
    if isinstance(saved, dict):
        for key, value in saved.items():
            if key != "module":  # the registered name is what counts
                check_kept(value, now[key], f"{name}.{key}")
    elif isinstance(saved, list):
        for i, (a, b) in enumerate(zip(saved, now, strict=True)):
            check_kept(a, b, f"{name}[{i}]")
    else:
        assert saved == now, f"{name} was {saved}, is {now}"


def nested(arrays):
    """Returns keyword arguments: `condition.tokens` is a part of `condition`."""
    result = {}
    for name, array in arrays.items():
        argument, _, part = name.partition(".")
        result[argument] = {**result.get(argument, {}), part: array} if part else array
    return result


folder, *first = sys.argv[1:]
every_third = slice(int(first[0]), None, 3) if first else slice(None)
configured = pathlib.Path(folder) / "configured.json"
for name, saved in json.loads(configured.read_text() if configured.exists() else "{}").items():
    now = keras.saving.serialize_keras_object(keras.saving.deserialize_keras_object(saved))
    check_kept(saved, json.loads(json.dumps(now)), name)
    print(name)
for file in sorted(pathlib.Path(folder).glob("*.keras"))[every_third]:
    model = keras.models.load_model(file)
    with np.load(file.with_suffix(".npz")) as saved:
        arrays = dict(saved)
    if "samples" in arrays:
        expected = [arrays.pop("samples")]
        actual = [model.sample(len(expected[0]), seed=3, verbose=0, **nested(arrays))]
    else:
        expected = [arrays.pop(name) for name in list(arrays) if name.startswith("outputs")]
        inputs = [keras.ops.convert_to_tensor(array) for array in arrays.values()]
        outputs = model(inputs if len(inputs) > 1 else inputs[0], training=False)
        actual = [keras.ops.convert_to_numpy(output) for output in keras.tree.flatten(outputs)]
    for a, b in zip(actual, expected, strict=bool(expected)):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5, err_msg=file.stem)
    print(file.stem)
