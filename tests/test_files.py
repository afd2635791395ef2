"""Files: every class is saved here, and all are loaded in one fresh process that only imports keras_gen."""

import pathlib
import subprocess
import sys

import numpy as np
from laws import LAYERS, MODELS, SAMPLING

from keras_gen.core.fixtures import as_inputs, flat_numpy, functional, randomize_weights
from keras_gen.models import DDPM, Flow

LOADER = pathlib.Path(__file__).parent / "load_files.py"


def test_files_load_in_a_fresh_process(tmp_path, rng):
    for name, (make, arrays) in LAYERS.items():
        model = functional(make(), *arrays)
        randomize_weights(model)
        outputs = flat_numpy(model(as_inputs(arrays), training=False))
        expected = {} if name in SAMPLING else {f"outputs_{i}": output for i, output in enumerate(outputs)}
        np.savez(tmp_path / f"{name}.npz", *arrays, **expected)
        model.save(tmp_path / f"{name}.keras")
    for name, (make, takes_labels, *prepare) in MODELS.items():
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
        np.savez(tmp_path / f"{name}.npz", samples=samples, **options)
        model.save(tmp_path / f"{name}.keras")
    result = subprocess.run([sys.executable, LOADER, tmp_path], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.split() == sorted([*LAYERS, *MODELS])
