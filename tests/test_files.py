"""Files: every class is saved here and loaded in a fresh process, one for each third, that only imports keras_gen."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
from laws import LAYERS, MODELS, SAMPLING

from keras_gen.core.fixtures import as_inputs, flat_numpy, functional, randomize_weights
from keras_gen.models import DDPM, Flow

LOADER = pathlib.Path(__file__).parent / "load_files.py"


@pytest.mark.parametrize("third", range(3))
def test_files_load_in_a_fresh_process(third, tmp_path, rng):
    names = sorted([*LAYERS, *MODELS])[third::3]
    for name in names:
        if name in LAYERS:
            save_layer(name, tmp_path)
        else:
            save_model(name, tmp_path, rng)
    result = subprocess.run([sys.executable, LOADER, tmp_path], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.split() == names


def save_layer(name, folder):
    make, arrays = LAYERS[name]
    model = functional(make(), *arrays)
    randomize_weights(model)
    outputs = flat_numpy(model(as_inputs(arrays), training=False))
    expected = {} if name in SAMPLING else {f"outputs_{i}": output for i, output in enumerate(outputs)}
    np.savez(folder / f"{name}.npz", *arrays, **expected)
    model.save(folder / f"{name}.keras")


def save_model(name, folder, rng):
    make, takes_labels, *prepare = MODELS[name]
    model = make()
    if prepare:  # a model of codes
        model.build((None, 8, 8, 1))
    if isinstance(model, Flow):  # has no network that tells the shape of data
        model.build((None, 8, 8, 1), (None,) if takes_labels else None)
    randomize_weights(model)
    options = {"condition": np.array([1, 2])} if takes_labels else {}
    process = getattr(model, "diffusion", model)
    if isinstance(process, DDPM):  # its sampler draws on the backend
        options["step_noise"] = rng.standard_normal((20, 2, *process.image_shape)).astype("float32")
    samples = model.sample(2, seed=3, verbose=0, **options)
    np.savez(folder / f"{name}.npz", samples=samples, **options)
    model.save(folder / f"{name}.keras")
