"""`predict` and `export`, which Keras defines by `call`: of an autoencoder the reconstruction, else refused."""

import keras
import numpy as np
import pytest
from laws.models import MODELS

from keras_gen.core.fixtures import to_numpy
from keras_gen.core.generative_model import GenerativeModel

X = np.random.default_rng(0).uniform(-1, 1, (5, 8, 8, 1)).astype("float32")
AUTOENCODERS = [name for name in MODELS if any(part in name for part in ("vae", "vqgan", "autoencoder"))]


def built(name):
    model = MODELS[name][0]()
    model.build((None, 8, 8, 1))
    return model


@pytest.mark.parametrize("name", ["gumbel_vae", "vae", "vqgan"])
def test_prediction_is_the_reconstruction(name):
    model = built(name)
    expected = model.reconstruct(X)
    np.testing.assert_allclose(model.predict(X, batch_size=2, verbose=0), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(to_numpy(model(X)), X)  # in training, where it must cost nothing
    assert np.isfinite(model.evaluate(X, verbose=0)).all()
    np.testing.assert_allclose(model.predict(X, verbose=0), expected, rtol=1e-5, atol=1e-6)


def test_other_models_refuse():
    """Each by the methods, and the parts, that it has."""
    offenders = []
    for name, (make, *_) in MODELS.items():
        model = make()
        reconstructs = type(model).reconstruction is not GenerativeModel.reconstruction
        if reconstructs != (name in AUTOENCODERS):
            offenders.append(f"{name}: has a reconstruction: {reconstructs}")
        if reconstructs:
            continue
        for call in (lambda model=model: model.predict(X), lambda model=model: model.export("folder")):
            try:
                call()
                offenders.append(f"{name}: does not refuse")
            except NotImplementedError as error:
                named = [word.strip("`,") for word in str(error).partition("use ")[2].split()]
                missing = [path for path in named if not _has(model, path)]
                offenders += [f"{name}: {error}"] * bool(missing)
    assert not offenders, "\n".join(offenders)
    with pytest.raises(NotImplementedError, match="DDPM has no `predict`: use `sample`, `elbo`, `denoise_from`"):
        MODELS["ddpm"][0]().predict(X)
    with pytest.raises(NotImplementedError, match=r"DDPM has no `export`: use `network.export`, `export_sampler`"):
        MODELS["ddpm"][0]().export("folder")


def _has(model, path):
    for name in path.split("."):
        model = getattr(model, name, None)
    return callable(model)


@pytest.mark.parametrize("name", ["vae", "vqvae"])
def test_exported_is_the_reconstruction(name, tmp_path):
    model = built(name)
    path = tmp_path / "exported"
    if keras.backend.backend() == "torch":
        import torch

        # Keras 3.15 exports a batch of one.
        model.export(path.with_suffix(".pt2"), format="torch", verbose=False)
        served = torch.export.load(path.with_suffix(".pt2")).module()(torch.tensor(X[:1])).detach().numpy()
    else:
        tensorflow = pytest.importorskip("tensorflow")
        model.export(path, verbose=False)
        loaded = tensorflow.saved_model.load(path)
        served = loaded.serve(X).numpy()
    np.testing.assert_allclose(served, model.reconstruct(X[: len(served)]), rtol=1e-5, atol=1e-6)


def test_what_is_not_built_cannot_be_exported():
    encoder, decoder = keras.layers.Dense(2), keras.layers.Dense(3)
    model = MODELS["vqvae"][0]()
    model = type(model)(encoder, decoder, model.quantizer)
    with pytest.raises(ValueError, match="`model` must be built: call `fit` or `build` first"):
        model.export("folder")
