"""Saves a tiny file of every class, inputs and outputs beside it, in a folder: `python tests/save_files.py FOLDER`.

`tests/data/<version>/` was written so, once, with that version; `load_files.py` reads it with every later one.
"""

import json
import pathlib
import sys
import zipfile
from typing import Any

import keras
import numpy as np
from laws import BIJECTORS, CONFIGURED, LAYERS, MODELS, OF_DIFFUSION, SAMPLING, autoencoder, compiled, vqvae
from laws.models import told_network

from keras_gen import layers, models, samplers
from keras_gen.core.fixtures import as_inputs, flat_numpy, functional, randomize_weights

STEPS = 20  # of the diffusion models in the tables
CONDITIONAL = {name: parts for name, parts in BIJECTORS.items() if len(parts) == 3}
DECAY = keras.optimizers.schedules.ExponentialDecay(1.0, 10, 0.5)


def save_all(folder: pathlib.Path, digits: tuple[np.ndarray, np.ndarray]) -> list[str]:
    """Saves all classes of the tables, and returns the names."""
    for name, (make, arrays) in LAYERS.items():
        save_network(folder / name, functional(make(), *arrays), arrays, name not in SAMPLING)
    for name, (make, x, condition) in CONDITIONAL.items():
        inputs = keras.Input(x.shape[1:]), keras.Input(condition.shape[1:])
        network = keras.Model(inputs, make()(inputs[0], condition=inputs[1]))
        save_network(folder / name, network, (x, condition), True)
    for name, (make, takes_labels, *prepare) in MODELS.items():
        _save_model(folder / name, make(), digits, takes_labels, *prepare)
    _save_model(folder / "vae_warm_up", _vae_with_warm_up(), digits, False)
    _save_model(folder / "vqvae_prior", _vqvae_with_prior(digits[0][:16]), digits, False)
    configured = {name: make() for name, make in (CONFIGURED | OF_DIFFUSION).items()}
    configured["ddim_sampler_threshold"] = samplers.DDIMSampler(clip_x0=samplers.DynamicThreshold(0.9))
    serialized = {name: keras.saving.serialize_keras_object(thing) for name, thing in configured.items()}
    (folder / "configured.json").write_text(json.dumps(serialized, indent=1, sort_keys=True) + "\n")
    for path in folder.glob("*.keras"):
        _compress(path)
    return sorted([*LAYERS, *CONDITIONAL, *MODELS, "vae_warm_up", "vqvae_prior"])


def save_network(path: pathlib.Path, network: keras.Model, arrays: Any, deterministic: bool) -> None:
    """Saves a network of random weights with its inputs and, where it draws nothing, outputs."""
    randomize_weights(network)
    outputs = flat_numpy(network(as_inputs(arrays), training=False)) if deterministic else []
    flat = keras.tree.flatten(list(arrays))
    np.savez_compressed(path.with_suffix(".npz"), *flat, **{f"outputs_{i}": y for i, y in enumerate(outputs)})
    network.save(path.with_suffix(".keras"))


def _save_model(path: pathlib.Path, model: keras.Model, digits: Any, takes_labels: bool, prepare: Any = None) -> None:
    """Saves a model after a step of training, which gives the optimizers their state."""
    images, labels = (part[:16] for part in digits)
    x = prepare(images) if prepare else images
    model.fit(x, labels if takes_labels else None, batch_size=16, verbose=0)
    variances = [weight for weight in model.weights if weight.name == "moving_variance"]
    values = [keras.ops.convert_to_numpy(weight) for weight in variances]
    randomize_weights(model, scale=0.1)
    for weight, value in zip(variances, values, strict=True):  # which must not be negative
        weight.assign(value)
    save_samples(path, model, takes_labels)


def save_samples(path: pathlib.Path, model: keras.Model, takes_labels: bool) -> None:
    """Saves a model with two samples, whose noise does not depend on the backend."""
    options = {"condition": np.array([1, 2])} if takes_labels else {}
    process = getattr(model, "diffusion", model)
    if isinstance(process, models.DDPM):  # its sampler draws on the backend
        noise = np.random.default_rng(0).standard_normal((STEPS, 2, *process.image_shape))
        options["step_noise"] = noise.astype("float32")
    samples = model.sample(2, seed=3, verbose=0, **options)
    np.savez_compressed(path.with_suffix(".npz"), samples=samples, **options)
    model.save(path.with_suffix(".keras"))


def save_told(path: pathlib.Path) -> None:
    """Saves a model of conditions with two parts."""
    condition = {"tokens": np.ones((2, 2, 3)), "pooled": np.arange(8).reshape(2, 4)}
    model = models.RectifiedFlow(told_network(), null_condition={"tokens": np.ones((2, 3)), "pooled": None}, seed=0)
    randomize_weights(model)
    samples = model.sample(2, condition=condition, seed=3, verbose=0)
    parts = {f"condition.{name}": part for name, part in condition.items()}
    np.savez_compressed(path.with_suffix(".npz"), samples=samples, **parts)
    model.save(path.with_suffix(".keras"))


def _vae_with_warm_up() -> models.VAE:
    return compiled(models.VAE(*autoencoder(3, 2), kl_weight=DECAY, seed=0))


def _vqvae_with_prior(images: np.ndarray) -> models.VQVAE:
    model = vqvae(layers.VectorQuantizer(4, seed=0))
    model.fit(images, verbose=0)
    prior = models.CodeTransformer(4, 16, dim=8, depth=1, num_heads=2, seed=0)
    model.fit_prior(compiled(prior), images, verbose=0)
    return model


def _compress(path: pathlib.Path) -> None:
    """Packs a file again with compression, which Keras does without: it is then a third of the size."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


if __name__ == "__main__":
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    keras.utils.set_random_seed(0)
    target = pathlib.Path(sys.argv[1])
    target.mkdir(parents=True)
    print(*save_all(target, ((images.reshape(-1, 8, 8, 1) / 8 - 1).astype("float32"), labels.astype("int32"))))
