"""The loss of every model stays what it was, as recorded with version 0.1.0."""

import json
import pathlib

import keras
import numpy as np
import pytest
from keras import ops
from laws import MODELS

from keras_gen.core.fixtures import made_alike, randomize_weights, to_numpy

RECORDED = pathlib.Path(__file__).parent / "data" / "losses.json"
UNWEIGHTED = ("gan", "vqgan")  # models that refuse a `sample_weight`


@pytest.mark.parametrize("name", MODELS)
def test_losses_are_the_recorded_ones(name, digits, request):
    make, takes_labels, *prepare = MODELS[name]
    images, labels = (part[:16] for part in digits)
    x = prepare[0](images) if prepare else images
    y = labels if takes_labels else None
    model = made_alike(make)
    if not model.built:
        model.build(*([(None, *x.shape[1:])] + ([(None,)] if name == "flow_condition" else [])))
    randomize_weights(model, scale=0.1)
    if name == "latent_diffusion":  # the step of training sees latents
        x = model.encode(x)
    weight = None if name.startswith(UNWEIGHTED) else ops.convert_to_tensor(np.linspace(0.5, 2, 16, dtype="float32"))
    x, y = ops.convert_to_tensor(x), None if y is None else ops.convert_to_tensor(y)
    losses = []
    for training in (True, False):
        for sample_weight in (None, weight):
            loss = model.compute_loss(x=x, y=y, sample_weight=sample_weight, training=training)
            losses.append(float(to_numpy(loss)))
    recorded = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    if request.config.getoption("--update-references"):
        recorded.setdefault(name, {})[keras.backend.backend()] = losses
        RECORDED.write_text(json.dumps(recorded, indent=1, sort_keys=True) + "\n")
    np.testing.assert_allclose(losses, recorded[name][keras.backend.backend()], rtol=2e-5, atol=1e-6)
