"""The features of FID: resizing, the kinds of layers in a network of a few filters, its files, and its name in logs."""

import keras
import numpy as np
import pytest
from laws.arrays import GRAY
from numpy.lib.stride_tricks import sliding_window_view
from offenders import not_refused
from programs import one_program

from keras_gen.callbacks import EvaluateSamples
from keras_gen.core.fixtures import save_and_load, to_numpy
from keras_gen.metrics import FrechetDistance, KernelDistance
from keras_gen.models import FIDInception
from keras_gen.networks.backbones import fid_inception
from keras_gen.networks.backbones.fid_inception import (
    COLUMN,
    HALF,
    MAXIMUM,
    MEAN,
    ROW,
    SIZE,
    Convolution,
    Pixels,
    halving,
)
from keras_gen.networks.blocks.resizing import bicubic_weights, bilinear_weights
from keras_gen.testing import check_config

# Each kind of part, in few filters.
FEW = {
    "first": halving(4),
    "pool": HALF,
    "halved": {"_one": halving(3), "_pool": HALF},
    "long": {
        "_row": [Convolution(3), Convolution(3, ROW), Convolution(2, COLUMN)],
        "_mean": Convolution(2, 1, 1, "same", MEAN),
    },
    "crossed": {
        "_cross": [Convolution(3), {"a": Convolution(2, (1, 3)), "b": Convolution(3, (3, 1))}],
        "_max": Convolution(2, pooling=MAXIMUM),
    },
}
SHAPES = {
    "first": (4, 3, 3, 3),
    "halved_one": (3, 4, 3, 3),
    "long_row_1": (3, 7, 1, 1),
    "long_row_2": (3, 3, 1, 7),
    "long_row_3": (2, 3, 7, 1),
    "long_mean": (2, 7, 1, 1),
    "crossed_cross_1": (3, 4, 1, 1),
    "crossed_cross_2a": (2, 3, 1, 3),
    "crossed_cross_2b": (3, 3, 3, 1),
    "crossed_max": (2, 4, 1, 1),
}


def tensors():
    rng = np.random.default_rng(0)
    kernels = {
        f"{name}.weight": rng.normal(size=shape) * (2 / np.prod(shape[1:])) ** 0.5 for name, shape in SHAPES.items()
    }
    biases = {f"{name}.bias": rng.normal(size=shape[0]) / 4 for name, shape in SHAPES.items()}
    return {name: tensor.astype("float32") for name, tensor in {**kernels, **biases}.items()}


@pytest.fixture
def few(monkeypatch, tmp_path):
    """The file of a network of few filters, in place of the large one."""
    save_file = pytest.importorskip("safetensors.numpy").save_file
    monkeypatch.setattr(fid_inception, "PARTS", FEW)
    save_file(tensors(), tmp_path / "few.safetensors")
    return tmp_path / "few.safetensors"


def expected_features(x, weights):
    """The network of few filters in NumPy, of images as it takes them."""

    def padded(x, size, value):
        return np.pad(x, ((0, 0), *((side // 2, side // 2) for side in size), (0, 0)), constant_values=value)

    def windows(x, size, strides):
        return sliding_window_view(x, size, axis=(1, 2))[:, ::strides, ::strides]

    def conv(x, name, strides=1):
        kernel = weights[f"{name}.weight"]
        x = padded(x, kernel.shape[2:], 0) if strides == 1 else x
        y = np.einsum("bhwcij,ocij->bhwo", windows(x, kernel.shape[2:], strides), kernel, optimize=True)
        return np.maximum(y + weights[f"{name}.bias"], 0)

    def half(x):
        return windows(x, (3, 3), 2).max(axis=(-2, -1))

    def pool(x, function):
        return function(windows(padded(x, (3, 3), np.nan), (3, 3), 1), axis=(-2, -1))

    x = half(conv(x, "first", 2))
    x = np.concatenate([conv(x, "halved_one", 2), half(x)], -1)
    row = conv(conv(conv(x, "long_row_1"), "long_row_2"), "long_row_3")
    x = np.concatenate([row, conv(pool(x, np.nanmean), "long_mean")], -1)
    cross = conv(x, "crossed_cross_1")
    parts = [conv(cross, "crossed_cross_2a"), conv(cross, "crossed_cross_2b"), conv(pool(x, np.nanmax), "crossed_max")]
    return np.concatenate(parts, -1).mean(axis=(1, 2))


def expected_pixels(images, weights):
    levels = np.round(np.clip((images.astype("float64") + 1) * 127.5, 0, 255))
    of_rows, of_columns = (weights(size, SIZE) for size in images.shape[1:3])
    x = np.einsum("ih,bhwc,jw->bijc", of_rows, levels, of_columns, optimize=True)
    return np.broadcast_to((np.clip(x, 0, 255) - 128) / 128, (*x.shape[:3], 3))


@pytest.mark.one_backend
def test_clean_resizing_is_pillows():
    image = pytest.importorskip("PIL.Image")
    for height, width in ((1, 5), (32, 299), (301, 640)):
        x = np.random.default_rng(height).uniform(0, 255, (height, width)).astype("float32")
        expected = np.asarray(image.fromarray(x).resize((SIZE, SIZE), image.Resampling.BICUBIC))
        actual = bicubic_weights(height, SIZE) @ x @ bicubic_weights(width, SIZE).T
        np.testing.assert_allclose(actual, expected, atol=5e-5)  # the spacing of float32 is 3e-5


@pytest.mark.one_backend
def test_legacy_resizing_by_definition():
    for old in (1, 2, 32, 299, 640):
        x = np.random.default_rng(old).normal(size=old)
        actual = bilinear_weights(old, SIZE) @ x
        places = np.arange(SIZE) * old / SIZE
        expected = np.interp(places, np.arange(old), x)  # beyond the last pixel, its value
        np.testing.assert_allclose(actual, expected, atol=1e-3)  # places have the rounding of float32
    assert bilinear_weights(2, 4).tolist() == [[1, 0], [0.5, 0.5], [0, 1], [0, 1]]


def test_pixels_have_8_bits_and_three_channels():
    images = 1.1 * GRAY
    assert np.abs(images).max() > 1
    for weights in (bicubic_weights, bilinear_weights):
        actual = one_program(None, Pixels(weights))(images)
        np.testing.assert_allclose(to_numpy(actual), expected_pixels(images, weights), atol=1e-6)


def features_of(network):
    return to_numpy(one_program(network, network)(GRAY))


def test_network_of_few_filters(few):
    network = FIDInception.from_safetensors(few, "legacy_tensorflow")
    expected = expected_features(expected_pixels(GRAY, bilinear_weights), tensors())
    np.testing.assert_allclose(features_of(network), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(features_of(save_and_load(network)), expected, rtol=1e-5, atol=1e-5)
    assert not network.trainable_weights
    check_config(lambda: FIDInception("legacy_tensorflow", "other", "mixed_bfloat16"))


class Sampler(keras.Model):
    def check_sampling(self, n, **options):
        pass

    def sample(self, n, **options):
        return GRAY[:n]


def test_logs_say_fid_with_the_weights_of_a_file_alone(few):
    read = FIDInception.from_safetensors
    assert (read(few, "legacy_tensorflow").name, read(few, name="other").name) == ("fid_legacy_tensorflow", "other")
    features = [read(few), FIDInception()]
    metrics = [kind(model) for model in features for kind in (FrechetDistance, KernelDistance)]
    evaluate, logs = EvaluateSamples(GRAY[::-1].copy(), metrics), {}
    evaluate.set_model(Sampler())
    evaluate.on_train_begin()
    evaluate.on_epoch_end(0, logs)
    names = ("fid_clean", "inception_2015")
    assert list(logs) == [f"{kind}_{name}" for name in names for kind in ("frechet", "kernel")]
    assert logs["frechet_fid_clean"] == pytest.approx(0, abs=1e-4)  # the same images


def test_the_global_policy_does_not_reach_the_features(few):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = FIDInception.from_safetensors(few)
        assert {layer.compute_dtype for layer in network.layers if layer.weights} == {"float32"}
    finally:
        keras.config.set_dtype_policy("float32")
    half = FIDInception.from_safetensors(few, dtype="mixed_bfloat16")
    assert keras.backend.standardize_dtype(half.output.dtype) == "bfloat16"
    assert half.get_layer("pixels").compute_dtype == "float32"


@pytest.mark.one_backend
def test_refused(few, tmp_path):
    save_file = pytest.importorskip("safetensors.numpy").save_file
    network, read = FIDInception(), FIDInception.from_safetensors

    def changed(name, **changes):
        weights = {**tensors(), **{f"{key}.bias": value for key, value in changes.items()}}
        save_file({key: value for key, value in weights.items() if value is not None}, tmp_path / name)
        return tmp_path / name

    pickled, damaged = tmp_path / "few.pth", tmp_path / "damaged.safetensors"
    for file in (pickled, damaged):
        file.write_bytes(few.read_bytes()[:-10])
    bias = np.zeros(4, "float32")
    cases = [
        ("resizing", lambda: FIDInception("bicubic"), "`resizing` must be one of 'clean', 'legacy_tensorflow'"),
        (
            "integers",
            lambda: network(np.zeros((2, 4, 4, 3), "uint8")),
            "`images` must be floating-point images, scaled",
        ),
        (
            "channels",
            lambda: network(np.zeros((2, 4, 4, 2), "float32")),
            "`images` must have shape .n, height, width, 1",
        ),
        ("rank", lambda: network(np.zeros((4, 4, 3), "float32")), "`images` must have shape .n, height, width, 1 or 3"),
        ("metric", lambda: FrechetDistance(network).update_state(GRAY[..., 0], None), "`feature_model` must take data"),
        ("number", lambda: read(3), "`source` must be the path of a file in safetensors.*pickles.*source=3"),
        ("pickle", lambda: read(pickled), "`source` must be the path of a file in safetensors.*few.pth"),
        (
            "no file",
            lambda: read(tmp_path / "no.safetensors"),
            "`source` must be the path of a file in safetensors.*no",
        ),
        ("damaged", lambda: read(damaged), "`source` must have a whole file of weights.*damaged"),
        ("missing", lambda: read(changed("a.safetensors", first=None)), "must contain the weight first.bias"),
        (
            "unused",
            lambda: read(changed("b.safetensors", fc=bias)),
            "contain only a FIDInception's weights.*fc.bias",
        ),
        ("shape", lambda: read(changed("c.safetensors", first=bias[1:])), "contain first.bias of shape .4,.*.3,"),
        (
            "nan",
            lambda: read(changed("d.safetensors", first=bias * np.nan)),
            "`weights` must be finite.*first.bias",
        ),
    ]
    assert not not_refused(cases)
    assert network.name == "inception_2015"


@pytest.mark.one_backend
def test_number_of_weights():
    """Those of `keras.applications.InceptionV3`, which differs in its poolings: kernels and shifts."""
    assert FIDInception().count_params() == 21_768_352
