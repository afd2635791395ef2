"""Files: every class is saved here and loaded in a fresh process, one for each third, that only imports keras_gen."""

import pathlib
import subprocess
import sys

import pytest
from laws import LAYERS, MODELS, SAMPLING
from save_files import save_network, save_samples, save_told

from keras_gen.core.fixtures import functional, randomize_weights
from keras_gen.models import Flow

LOADER = pathlib.Path(__file__).parent / "load_files.py"


@pytest.mark.parametrize("third", range(3))
def test_files_load_in_a_fresh_process(third, tmp_path):
    names = sorted([*LAYERS, *MODELS])[third::3]
    for name in names:
        if name in LAYERS:
            make, arrays = LAYERS[name]
            save_network(tmp_path / name, functional(make(), *arrays), arrays, name not in SAMPLING)
        else:
            make, takes_labels, *prepare = MODELS[name]
            model = make()
            if prepare:  # a model of codes
                model.build((None, 8, 8, 1))
            if isinstance(model, Flow):  # has no network that tells the shape of data
                model.build((None, 8, 8, 1), (None,) if takes_labels else None)
            randomize_weights(model)
            save_samples(tmp_path / name, model, takes_labels)
    if third == 0:
        save_told(tmp_path / "told")
        names = sorted([*names, "told"])
    result = subprocess.run([sys.executable, LOADER, tmp_path], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.split() == names
