"""`load_weights`: all weights of a file, or none. That what is loaded is right is a law of models, see tests/laws."""

import pathlib
import random

import h5py
import keras
import numpy as np
import pytest
from laws import MODELS, autoencoder, compiled, ddpm
from offenders import not_refused

from keras_gen.core.fixtures import to_numpy
from keras_gen.core.weights import _entries, _layers, _saved_weights
from keras_gen.layers import AffineCoupling
from keras_gen.models import GAN, VAE, Flow


def small_ddpm(num_classes=None):
    model = ddpm(num_classes)
    model.optimizer.build(model.trainable_variables)
    return model


def values(model):
    variables = {id(variable): variable for variable in [*model.variables, *model.optimizer.variables]}
    return [np.array(to_numpy(variable)) for variable in variables.values()]


def same(before, after):
    return all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "whole.weights.h5"
    small_ddpm().save_weights(path)
    return path


def datasets(file):
    paths = []
    file.visititems(lambda path, item: paths.append(path) if isinstance(item, h5py.Dataset) else None)
    return paths


def changed(file, name, change):
    """Returns a copy of a file in which the first kernel of a convolution is changed."""
    copy = file.with_name(f"{name}.weights.h5")
    copy.write_bytes(file.read_bytes())
    with h5py.File(copy, "a") as content:
        path = next(path for path in datasets(content) if "conv2d_1/vars/0" in path)
        change(content, path)
    return copy


def replace(value):
    def change(content, path):
        del content[path]
        if value is not None:
            content[path] = value(path) if callable(value) else value

    return change


def test_a_file_that_fails_is_named_and_changes_nothing(file):
    whole, rest = file.read_bytes(), "a whole file of this model's weights. Received: filepath=.*{}.*"
    files = {
        "absent": changed(file, "absent", replace(None)),
        "misshapen": changed(file, "misshapen", replace(np.zeros((2, 2), "float32"))),
        "text": changed(file, "text", replace("words")),
        "nan": changed(file, "nan", replace(np.full((3, 3, 8, 1), np.nan, "float32"))),
        "link": changed(file, "link", replace(h5py.ExternalLink("other.h5", "/x"))),
        "group": changed(file, "group", lambda content, path: (content.pop(path), content.create_group(path))),
    }
    for name, content in {"words": b"no weights", "empty": b"", "cut": whole[: len(whole) // 2]}.items():
        files[name] = file.with_name(f"{name}.weights.h5")
        files[name].write_bytes(content)
    files["words_keras"] = file.with_name("words.keras")
    files["words_keras"].write_bytes(b"no zip archive")
    model = small_ddpm()
    before = values(model)
    cases = [
        (name, lambda path=path: model.load_weights(path), "`filepath` must be " + rest.format(path.name))
        for name, path in files.items()
    ]
    assert not not_refused(cases)
    assert same(before, values(model))


def test_flipped_bytes_load_or_change_nothing(file):
    whole, chance, model = file.read_bytes(), random.Random(0), small_ddpm()
    before, refused = values(model), 0
    for _ in range(25):
        damaged = bytearray(whole)
        for _ in range(20):
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        path = file.with_name("damaged.weights.h5")
        path.write_bytes(damaged)
        try:
            model.load_weights(path)
        except ValueError as error:
            refused += 1
            assert "damaged.weights.h5" in str(error)  # noqa: PT017 (which flips can be seen is chance)
            assert same(before, values(model))
        else:
            before = values(model)
    assert refused > 3


def test_weights_left_over_are_refused(tmp_path):
    with_labels, without = small_ddpm(10), small_ddpm()
    before = values(without)
    for path in (tmp_path / "a.weights.h5", tmp_path / "a.keras"):
        (with_labels.save if path.suffix == ".keras" else with_labels.save_weights)(path)
        match = r"hold no weights but the model's \(`skip_mismatch=True` ignores others\).*layers/embedding/vars/0"
        with pytest.raises(ValueError, match=match):
            without.load_weights(path)
        assert same(before, values(without))
        without.load_weights(path, skip_mismatch=True)
        assert not same(before, values(without))
        without = small_ddpm()
        before = values(without)


def test_files_and_models_agree_on_the_number_of_weights(tmp_path):
    """Else `load_weights` would refuse a model's own file, or not see what is left over."""
    path, offenders = tmp_path / "a.weights.h5", []
    for name, (make, takes_labels, *_) in MODELS.items():
        model = make()
        if not model.built:
            labels = [(None,)] if isinstance(model, Flow) and takes_labels else []
            model.build((None, 8, 8, 1), *labels)
        model.save_weights(path)
        saved, own = len(_saved_weights(path)), sum(map(_entries, _layers(model)))
        if saved != own:
            offenders.append(f"{name}: {saved} in the file, {own} of the model")
    assert not offenders


def test_weights_in_two_layers_count_twice(tmp_path):
    class Tied(keras.layers.Layer):
        def __init__(self, other):
            super().__init__()
            self.kernel = other.kernel

        def call(self, x):
            return keras.ops.matmul(x, self.kernel)

    def make():
        encoder, decoder = autoencoder(3, 2)
        square = keras.layers.Dense(3, use_bias=False)
        square.build((None, 3))
        z = keras.Input((3,))
        return VAE(encoder, keras.Model(z, decoder(Tied(square)(square(z)))))

    model = make()
    model.build((None, 8, 8, 1))
    model.save_weights(tmp_path / "a.weights.h5")
    make().load_weights(tmp_path / "a.weights.h5")


def new_gan():
    generator = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    return GAN(generator, keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)]))


@pytest.mark.parametrize("make", [lambda: VAE(*autoencoder(3, 2)), new_gan])
def test_new_models_are_built_first(make, tmp_path):
    model = compiled(make())
    shape = (None, 3) if isinstance(model, GAN) else (None, 8, 8, 1)
    model.build(shape)
    model.save_weights(tmp_path / "a.weights.h5")
    second = make()
    assert not second.built
    second.load_weights(tmp_path / "a.weights.h5")
    for a, b in zip(model.weights, second.weights, strict=True):
        np.testing.assert_array_equal(to_numpy(a), to_numpy(b))


def test_a_model_of_unknown_shape_asks_to_be_built(tmp_path):
    model = Flow(AffineCoupling(units=[4]))
    with pytest.raises(ValueError, match="`model` must be built: call `fit` or `build` first"):
        model.load_weights(tmp_path / "a.weights.h5")


def test_a_missing_file_is_not_a_damaged_one(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\.weights\.h5"):
        small_ddpm().load_weights(str(pathlib.Path(tmp_path) / "missing.weights.h5"))
