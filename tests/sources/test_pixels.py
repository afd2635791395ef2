"""Scales of pixels, and splits of data."""

import numpy as np
import pytest
from keras import ops

from keras_gen.data import denormalize_images, normalize_images, train_test_split
from keras_gen.ops import image_grid

LEVELS = np.arange(256).reshape(4, 8, 8)


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32", "float64"])
def test_there_and_back(dtype):
    images = normalize_images(LEVELS.astype(dtype))
    assert (images.dtype, images.shape) == ("float32", (4, 8, 8, 1))
    np.testing.assert_allclose(images.ravel(), np.linspace(-1, 1, 256), atol=1e-6)
    pixels = denormalize_images(images)
    assert pixels.dtype == "uint8"
    np.testing.assert_array_equal(pixels[..., 0], LEVELS)


def test_colours_tensors_and_values_outside():
    colours = LEVELS.reshape(1, 8, 8, 4)[..., :3]
    np.testing.assert_array_equal(normalize_images(ops.convert_to_tensor(colours)), normalize_images(colours))
    assert normalize_images(colours).shape == (1, 8, 8, 3)
    assert denormalize_images([-3.0, -1.0, 0.0, 1.0, 1.01]).tolist() == [0, 0, 128, 255, 255]
    assert normalize_images(np.zeros((1, 2, 2, 1), "float32")).max() == -1  # black is black on any scale


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (LEVELS / 255, r"be in 0 .. 255: for \[0, 1\], use `2 \* images - 1`. Received: images=values up to 1"),
        (LEVELS / 127.5 - 1, r"have pixel values in 0 .. 255. Received: images=values in \[-1, 1\]"),
        (LEVELS * 257, r"have pixel values in 0 .. 255.*65535|6.554e\+04"),
        (LEVELS[0], r"have shape \(n, height, width\[, channels\]\). Received: images=shape \(8, 8\)"),
        (LEVELS[:0], r"have shape.*\(0, 8, 8\)"),
        (np.full((1, 2, 2), np.nan), "be finite"),
        (np.array(["a"]), "be real numbers"),
    ],
)
def test_other_scales_are_refused(images, message):
    with pytest.raises(ValueError, match=f"`images` must {message}"):
        normalize_images(images)


def test_a_split_holds_each_sample_once():
    x, y = np.arange(50) * 2, np.arange(50)
    (x_train, y_train), (x_test, y_test) = train_test_split(x, y, fraction=0.3, seed=1)
    assert (len(x_train), len(x_test)) == (35, 15)
    assert sorted([*y_train, *y_test]) == y.tolist()
    np.testing.assert_array_equal(x_train, 2 * y_train)
    np.testing.assert_array_equal(x_test, 2 * y_test)
    assert (np.diff(y_test) > 0).all()
    (_, named), _ = train_test_split(x, {"a": y, "b": -y}, fraction=0.3, seed=1)
    np.testing.assert_array_equal(named["a"], y_train)
    np.testing.assert_array_equal(named["b"], -y_train)
    again, other = (train_test_split(x, y, fraction=0.3, seed=seed)[1][1] for seed in (1, 2))
    np.testing.assert_array_equal(again, y_test)
    assert again.tolist() != other.tolist()
    assert np.std(np.diff(y_test)) > 0  # no stride


def test_both_parts_of_a_split_hold_a_sample():
    for fraction in (0.01, 0.99):
        (x_train, none), (x_test, _) = train_test_split(np.arange(2), fraction=fraction)
        assert (len(x_train), len(x_test), none) == (1, 1, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": np.zeros((1, 3))}, r"`x` must hold at least two samples. Received: x=shape \(1, 3\)"),
        ({"x": np.zeros(4), "fraction": 1.0}, r"`fraction` must be in \(0, 1\). Received: fraction=1.0"),
        ({"x": np.zeros(4), "y": np.zeros(3)}, r"`y` must have one entry for each of 4 samples.*\(3,\)"),
        ({"x": np.zeros(4), "y": {"a": np.zeros(3)}}, r'`y\["a"\]` must have one entry for each of 4 samples'),
        ({"x": np.zeros(4), "seed": -1}, "`seed` must be an integer >= 0. Received: seed=-1"),
        ({"x": (i for i in range(3))}, "`x` must be real numbers. Received: x=dtype object"),
    ],
)
def test_what_cannot_be_split_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        train_test_split(**arguments)


def test_pixels_are_not_scaled_twice():
    pixels = np.zeros((2, 4, 4, 1), "uint8")
    message = r"`images` must be in \[-1, 1\], as `normalize_images` makes them of pixels. Received: images=dtype uint8"
    for draw in (denormalize_images, image_grid):
        with pytest.raises(ValueError, match=message):
            draw(pixels)
